"""Starts the release binary on free ports and asks it questions. Standard library only, so that
every client can run in an environment of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlencode
from urllib.request import Request, urlopen

BINARY = os.environ.get("PLUMBAGO", "target/release/plumbago")
LISTENERS = {
    "statsd.udp": "127.0.0.1:0",
    "statsd.admin": "127.0.0.1:0",
    "carbon.line_tcp": "127.0.0.1:0",
    "carbon.line_udp": "127.0.0.1:0",
    "carbon.pickle": "127.0.0.1:0",
    # Other programs read the files while the server runs.
    "carbon.persist_within": "1s",
    "render.http": "127.0.0.1:0",
}


class Server:
    """A server in a fresh directory: `with Server() as server`."""

    def __init__(self, flush="1s", **settings):
        self.dir = tempfile.mkdtemp(prefix="plumbago-client-")
        self.settings = dict(LISTENERS, **{"statsd.flush_interval": flush})
        for key, value in settings.items():
            self.settings[key.replace("__", ".")] = value
        self.process = None

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self):
        ready = self.path("ready.json")
        if os.path.exists(ready):
            os.remove(ready)
        command = [BINARY, "serve", "--data", self.path("data"), "--ready-file", ready]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        self.process = subprocess.Popen(command, stderr=open(self.path("log"), "ab"))
        until(lambda: os.path.exists(ready) or self.process.poll() is not None, "the ready file")
        if self.process.poll() is not None:
            sys.exit(f"the server did not start:\n{self.log()}")
        with open(ready, encoding="utf8") as file:
            self.addresses = json.load(file)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        if code != 0:
            sys.exit(f"the server ended with {code}:\n{self.log()}")

    def log(self):
        with open(self.path("log"), encoding="utf8", errors="replace") as file:
            return file.read()

    def host_port(self, key):
        host, port = self.addresses[key][0].rsplit(":", 1)
        return host, int(port)

    def ask(self, path, query=(), body=None):
        """The JSON answer to a request."""
        return json.loads(self.ask_bytes(path, query, body))

    def ask_bytes(self, path, query=(), body=None, method=None):
        host, port = self.host_port("render.http")
        pairs = list(query.items() if isinstance(query, dict) else query)
        url = f"http://{host}:{port}{path}" + ("?" + urlencode(pairs) if pairs else "")
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data else {}
        with urlopen(Request(url, data, headers, method=method), timeout=20) as answer:
            return answer.read()

    def values(self, target, start="-10min"):
        """The present values of the one series that `target` gives."""
        series = self.ask("/render", {"target": target, "from": start, "format": "json"})
        if len(series) > 1:
            sys.exit(f"{target}: {len(series)} series")
        return [value for value, _ in series[0]["datapoints"] if value is not None] if series else []

    def expect(self, target, wanted, fold=sum, start="-10min"):
        """Waits until `fold` of the values of `target` is what was sent."""
        seen = []

        def equal():
            seen[:] = self.values(target, start)
            if not seen:
                return False
            got = fold(seen)
            return abs(got - wanted) <= 1e-6 * max(1.0, abs(wanted))

        until(equal, f"{target}: {fold.__name__} of the values to be {wanted}", lambda: f"values {seen}")
        print(f"ok   {target}: {fold.__name__} is {wanted}")

    def lines(self, lines):
        """Sends carbon lines over TCP."""
        with socket.create_connection(self.host_port("carbon.line_tcp")) as connection:
            connection.sendall("".join(line + "\n" for line in lines).encode())


def last(values):
    return values[-1]


def biggest(values):
    return max(values)


def until(done, what, more=lambda: "", seconds=20):
    """Waits for an event that is bound to come; gives up loudly."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(f"waited {seconds} s for {what} {more()}")
        time.sleep(0.05)


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: wanted {wanted!r}, got {got!r}")
    print(f"ok   {what}")

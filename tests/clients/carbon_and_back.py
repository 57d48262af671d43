"""carbon-cache, then plumbago, then carbon-cache, then plumbago over one tree, with hashed and with
plain file names of tagged series: every value that was sent is read, with what docs/migration.md says
to do and nothing more. The tag database of graphite-web is played by a small server here, which carbon
registers its series with."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import whisper
from carbon.util import TaggedSeries

from carbon_cache import Carbon
from server import BINARY, Server, check, until


class TagDatabase:
    """What graphite-web answers below /tags."""

    def __init__(self):
        self.names = names = set()

        class Handler(BaseHTTPRequestHandler):
            def answer(self, value):
                text = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.answer(sorted(names))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                # carbon posts a multipart form.
                paths = re.findall(r'name="path"\r\n\r\n(.*?)\r\n', body) or parse_qs(body).get("path", [])
                names.update(paths)
                self.answer(paths)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Run:
    """One tree, and every value that was sent to it."""

    def __init__(self, hashed):
        self.hashed = hashed
        self.now = int(time.time())
        self.sent = {}
        self.phase = 0
        self.database = TagDatabase()
        self.home = tempfile.mkdtemp(prefix="plumbago-carbon-")
        self.tree = os.path.join(self.home, "whisper")
        os.mkdir(self.tree)

    def send(self, program, who):
        """Ten series, two of them new: four seconds and a late point each."""
        self.phase += 1
        names = ["mig.a", "mig.b.count", "mig.deep.x.y.z", "mig.sp-ec_ial:x", "mig.üml.é"]
        names += ["mig.t;env=prod;host=a", "mig.t;env=prod;host=b", "mig.tag.count;a=2;z=1"]
        names += [f"mig.{who}.only", f"mig.{who}.t;ph={who}"]
        start = self.now - 600 + 100 * self.phase
        lines = []
        for number, name in enumerate(names):
            for at in (start, start + 1, start + 2, start + 3, start - 30):
                value = at % 1000 + number / 10
                lines.append(f"{name} {value} {at}")
                self.sent.setdefault(name, {})[at] = value
        program.lines(lines)

    def path(self, name, hashed):
        """Where carbon and graphite-web look for a file."""
        return os.path.join(self.tree, TaggedSeries.encode(name, os.sep, hashed) + ".wsp")

    def missing_in_files(self):
        """What graphite-web would not read: it looks under both names of a tagged series."""
        missing = []
        for name, values in self.sent.items():
            found = {}
            for path in {self.path(name, True), self.path(name, False)}:
                if os.path.exists(path):
                    (start, _, step), stored = whisper.fetch(path, self.now - 1000, self.now)
                    found.update({start + step * n: value for n, value in enumerate(stored) if value is not None})
            missing += [(name, at) for at, value in values.items() if abs(found.get(at, -1) - value) > 1e-9]
        return missing

    def missing_in(self, server):
        """What /render does not answer."""
        missing = []
        for name, values in self.sent.items():
            target = name
            if ";" in name:
                metric, *tags = name.split(";")
                target = "seriesByTag(" + ",".join(json.dumps(tag) for tag in ["name=" + metric] + tags) + ")"
            query = {"target": target, "from": self.now - 1000, "until": self.now, "format": "json"}
            found = {}
            for series in server.ask("/render", query):
                if series["target"] == name:
                    found = {at: value for value, at in series["datapoints"] if value is not None}
            missing += [(name, at) for at, value in values.items() if abs(found.get(at, -1) - value) > 1e-9]
        return missing

    def count(self):
        return sum(len(values) for values in self.sent.values())

    def tags(self, *arguments):
        command = [BINARY, "tags", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        check("plumbago tags " + " ".join(arguments) + ": " + done.stderr, done.returncode, 0)
        return done.stdout

    def carbon(self, who, hashed):
        with Carbon(self.home, self.tree, self.database.url, hashed) as carbon:
            self.send(carbon, who)
            until(lambda: not self.missing_in_files(), "carbon's files", self.missing_in_files)
            tagged = {name for name in self.sent if ";" in name}
            until(lambda: tagged <= self.database.names, "carbon's registrations")
        check(f"{who}: {self.count()} values in files", self.missing_in_files(), [])

    def plumbago(self, who):
        with Server(carbon__whisper_dir=self.tree, stats__self="false") as server:
            url = "http://%s:%d" % server.host_port("render.http")
            if not self.hashed:
                # The files say the names.
                check(f"{who}: without an import", self.missing_in(server), [])
            print(self.tags("import", self.database.url, "--url", url), end="")
            check(f"{who}: {self.count()} values taken over", self.missing_in(server), [])
            check("no file without a name", b"index_files_without_name 0\n" in server.ask_bytes("/metrics"), True)
            self.send(server, who)
            until(lambda: not self.missing_in(server), "its own values", lambda: self.missing_in(server))
            # The way back: graphite-web learns the names that are new.
            out = self.tags("import", url, "--url", self.database.url)
            check("names for graphite-web", re.match(r"1 added, [0-9]+ known already", out) is not None, True)
            server.stop()
        tagged = {name for name in self.sent if ";" in name}
        check("graphite-web knows all names", tagged - self.database.names, set())
        check(f"{who}: {self.count()} values in files", self.missing_in_files(), [])


total = 0
for hashed in (True, False):
    run = Run(hashed)
    run.carbon("first", hashed)
    run.plumbago("there")
    # Beside the files with hashed names that plumbago made, carbon finds those with plain names, too.
    run.carbon("back", True)
    run.hashed = True
    run.plumbago("again")
    total += run.count()
    shutil.rmtree(run.home)
print(f"ok   {total} of {total} values, both ways, with hashed and with plain file names")

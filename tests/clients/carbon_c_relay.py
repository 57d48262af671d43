"""Debian's carbon-c-relay and plumbago's routes in front of the same destinations: each name arrives at the same
ones, for every method, with replication and tags."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from server import Server, check, until

NAMES = [f"servers.dc{n % 3}.web{n % 41:02}.cpu.{n % 8}.m{n}" for n in range(600)]
NAMES += [f"disk.used;dc=d{n % 5};host=h{n}" for n in range(100)]
METHODS = [
    ("all", "forward"),
    ("any_of", "any_of"),
    ("carbon_ch", "carbon_ch"),
    ("carbon_ch", "carbon_ch replication 2"),
    ("fnv1a_ch", "fnv1a_ch"),
    ("fnv1a_ch", "fnv1a_ch replication 3"),
    ("jump_fnv1a_ch", "jump_fnv1a_ch"),
    ("jump_fnv1a_ch", "jump_fnv1a_ch replication 2"),
]


class Destination:
    """Reads lines, and knows which names came."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.names = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.read, args=(stream,), daemon=True).start()

    def read(self, stream):
        for line in stream.makefile("rb"):
            self.names.add(line.split(b" ")[0].decode())


def free_port():
    """A port below those that the kernel gives to clients: a client that tries one of these may meet itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def arrived(address, destinations, copies, seconds=20):
    """Sends all names to a relay; which of them each destination got, None if not all came in time."""
    end = time.monotonic() + seconds
    with socket.create_connection(address) as stream:
        stream.sendall("".join(f"{name} 1 1700000000\n" for name in NAMES).encode())
        while sum(len(one.names) for one in destinations) < copies * len(NAMES):
            if time.monotonic() > end:
                return None
            time.sleep(0.05)
    names = [frozenset(one.names) for one in destinations]
    for one in destinations:
        one.names.clear()
    return names


def theirs(destinations, cluster, copies):
    directory = tempfile.mkdtemp(prefix="plumbago-client-")
    port = free_port()
    path = os.path.join(directory, "relay.conf")
    servers = "\n".join(f"  127.0.0.1:{one.port}={chr(97 + n)}" for n, one in enumerate(destinations))
    with open(path, "w", encoding="utf8") as file:
        file.write(f"cluster all\n {cluster}\n{servers}\n;\nmatch * send to all stop;\n")
    program = shutil.which("carbon-c-relay", path=os.environ["PATH"] + ":/usr/sbin")
    relay = subprocess.Popen(
        [program, "-f", path, "-p", str(port), "-s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def listens():
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return True
            except OSError:
                return False

        until(listens, "carbon-c-relay")
        return arrived(("127.0.0.1", port), destinations, copies, seconds=5)
    finally:
        relay.terminate()
        relay.wait()
        shutil.rmtree(directory)


def ours(destinations, method, copies):
    places = [f"127.0.0.1:{one.port}:{chr(97 + n)}" for n, one in enumerate(destinations)]
    replication = copies if method.endswith("_ch") else 1
    route = f'{{destinations = {places}, method = "{method}", replication = {replication}, keep = "never"}}'
    with Server(carbon__routes=f"[{route}]", stats__self="false") as server:
        return arrived(server.host_port("carbon.line_tcp"), destinations, copies)


def main():
    destinations = [Destination() for _ in range(4)]
    for method, cluster in METHODS:
        copies = len(destinations) if method == "all" else int(cluster.split()[-1]) if "replication" in cluster else 1
        got = ours(destinations, method, copies)
        # carbon-c-relay sometimes reads nothing after a start.
        expected = next(filter(None, (theirs(destinations, cluster, copies) for _ in range(5))), None)
        check(f"{cluster}: each name at the same destinations", got == expected, True)
        check(f"{cluster}: every destination has names", all(got), True)


if __name__ == "__main__":
    main()

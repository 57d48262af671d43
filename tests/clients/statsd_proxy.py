"""PyPI statsd sends to `plumbago statsd-proxy` in front of two servers: each counter arrives whole at the one that StatsD's
proxy would choose; when that one is stopped the other gets it, and when it is back it has it again."""

import hashlib
import re
import socket
import subprocess

import statsd

from server import BINARY, Server, check, until

NAMES = [f"page{n}.views" for n in range(120)]


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place(nodes, name):
    """npm hashring's: 40 places for each node."""

    def hashed(text):
        return int.from_bytes(hashlib.md5(text.encode()).digest()[:4], "little")

    places = sorted((hashed(f"{node}-{n}"), node) for node in nodes for n in range(40))
    return next((node for at, node in places if at >= hashed(name)), places[0][1])


class Proxy:
    def __init__(self, nodes):
        command = [BINARY, "statsd-proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--check-interval", "100ms"]
        for node in nodes:
            command += ["--node", node]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        udp, admin = re.fullmatch(r"statsd-proxy listens on 127\.0\.0\.1:(\d+) and 127\.0\.0\.1:(\d+)\n", line).groups()
        self.port, self.admin = int(udp), int(admin)

    def nodes(self):
        with socket.create_connection(("127.0.0.1", self.admin)) as stream:
            stream.sendall(b"status\nquit\n")
            text = b"".join(iter(lambda: stream.recv(4096), b"")).decode()
        return set(re.search(r"nodes: (.*)\n", text)[1].split())


def main():
    servers = {}
    for _ in range(2):
        udp, admin = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        settings = {"statsd__udp": f"127.0.0.1:{udp}", "statsd__admin": f"127.0.0.1:{admin}"}
        server = Server(stats__self="false", statsd__delete_idle_stats="true", **settings)
        servers[f"127.0.0.1:{udp}"] = server
        server.start()
    proxy = Proxy(f"{node}:{server.host_port('statsd.admin')[1]}" for node, server in servers.items())
    try:
        for round_, missing in enumerate([None, list(servers)[0], None], 1):
            if missing:
                servers[missing].stop()
            elif round_ > 1:
                list(servers.values())[0].start()
            there = [node for node in servers if node != missing]
            until(lambda: proxy.nodes() == set(there), "the ring", proxy.nodes)
            client = statsd.StatsClient("127.0.0.1", proxy.port, prefix=f"round{round_}")
            with client.pipeline() as pipe:
                for name in NAMES:
                    pipe.incr(name, round_)
            for name in NAMES:
                client.incr(name)
            for node in there:
                names = [f"round{round_}.{name}" for name in NAMES]
                wanted = {f"stats_counts.{name}": round_ + 1.0 for name in names if place(there, name) == node}
                got = {}

                def arrived():
                    query = {"target": f"stats_counts.round{round_}.*.views", "from": "-10min", "format": "json"}
                    for series in servers[node].ask("/render", query):
                        got[series["target"]] = sum(value for value, _ in series["datapoints"] if value is not None)
                    return got == wanted

                until(arrived, f"{len(wanted)} counters at {node}", lambda: got)
            print(f"ok   round {round_}: each counter is whole at its server, {len(there)} of 2 servers there")
        check("both are in the ring again", proxy.nodes(), set(servers))
    finally:
        proxy.process.kill()
        for server in servers.values():
            server.__exit__()


if __name__ == "__main__":
    main()

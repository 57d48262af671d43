#!/usr/bin/env python3
"""Queries answered from ClickHouse, in turn with the selects that plumbago sends for them.

    read.py PLUMBAGO [ROUNDS]

Debian's server is started in a fresh directory and filled with a million names and 2,000 series of 1,440 points. The select
is taken from the server's own log of queries and asked over HTTP by the same client, with the same settings; its answer is
read to its end and not looked at. Medians in milliseconds, and CPU time of plumbago. Standard library only.
"""

import http.client
import os
import statistics
import struct
import sys
import time
from urllib.parse import urlencode, urlsplit

BINARY = sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 31
os.environ["PLUMBAGO"] = BINARY
sys.argv = sys.argv[:1]
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "clients"))

from clickhouse import ClickHouse, plumbago, text  # noqa: E402
from server import Server  # noqa: E402

SERIES, POINTS, STEP, NAMES = 2_000, 1_440, 10, 1_000_000
DAY = 86_400


def series(n):
    return f"load.host{n // 100:03}.metric{n % 100:02}"


def name(n):
    return f"app{n % 25:02}.host{n // 25 % 400:04}.metric{n // 10_000:03}"


def fill(clickhouse, begin):
    for first in range(0, POINTS, 120):
        rows = []
        for point in range(first, first + 120):
            at = begin + point * STEP
            tail = struct.pack("<IHI", at, at // DAY, begin)
            for n in range(SERIES):
                rows.append(text(series(n)) + struct.pack("<d", (n * 7_919 + point * 31) % 1_000 / 10) + tail)
        clickhouse.ask("INSERT INTO graphite (Path, Value, Time, Date, Timestamp) FORMAT RowBinary", b"".join(rows))
    insert = "INSERT INTO graphite_index (Date, Level, Path, Version) FORMAT RowBinary"
    version = struct.pack("<I", begin)
    rows = [struct.pack("<HI", 42, 20_003) + text(series(n)) + version for n in range(SERIES)]
    clickhouse.ask(insert, b"".join(rows))
    for first in range(0, NAMES, 100_000):
        rows, branches = [], set()
        for path in map(name, range(first, first + 100_000)):
            nodes = path.split(".")
            rows.append(struct.pack("<HI", 42, 20_003) + text(path) + version)
            rows.append(struct.pack("<HI", 42, 30_003) + text(".".join(reversed(nodes))) + version)
            branches.update((20_000 + depth, ".".join(nodes[:depth]) + ".") for depth in (1, 2))
        rows += [struct.pack("<HI", 42, level) + text(branch) + version for level, branch in branches]
        clickhouse.ask(insert, b"".join(rows))


class Client:
    """One connection, one buffer."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address)
        self.buffer = memoryview(bytearray(1 << 20))

    def ask(self, method, path, body=None):
        """Milliseconds until the last byte of the answer, and its length."""
        begun, length = time.perf_counter(), 0
        self.connection.request(method, path, body)
        answer = self.connection.getresponse()
        while read := answer.readinto(self.buffer):
            length += read
        took = (time.perf_counter() - begun) * 1e3
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {bytes(self.buffer[:300])}")
        return took, length


def cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="utf8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


def compare(title, server, clickhouse, path, query, table):
    ours = Client(":".join(map(str, server.host_port("render.http"))))
    theirs = Client(urlsplit(clickhouse.url).netloc)
    path = f"{path}?{urlencode(query)}"
    clickhouse.ask("SYSTEM FLUSH LOGS")
    clickhouse.ask("TRUNCATE TABLE system.query_log")
    ours.ask("GET", path)
    clickhouse.ask("SYSTEM FLUSH LOGS")
    sql = clickhouse.ask(
        f"SELECT query FROM system.query_log WHERE type = 2 AND query LIKE '%FROM {table} %' "
        "AND query NOT LIKE '%query_log%' LIMIT 1 FORMAT TabSeparatedRaw"
    ).strip()
    took, alone, spent = [], [], 0
    for _ in range(ROUNDS):
        before = cpu(server.process.pid)
        took.append(ours.ask("GET", path))
        spent += cpu(server.process.pid) - before
        alone.append(theirs.ask("POST", "/?max_query_size=16777216&max_execution_time=30", sql))
    a, b = (statistics.median(ms for ms, _ in each) for each in (took, alone))
    print(
        f"{title:28} {a:7.1f} ms, the select {b:7.1f} ms: {a / b:.2f}   CPU {spent / ROUNDS:.1f} ms   "
        f"{took[0][1]} and {alone[0][1]} bytes   load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return sql


def main():
    clickhouse = ClickHouse()
    try:
        plumbago("clickhouse", "schema", "--apply", "--set", f"store.clickhouse.url={clickhouse.url}")
        begin = int(time.time()) // STEP * STEP - POINTS * STEP
        fill(clickhouse, begin)
        settings = {"store__engine": "clickhouse", "store__clickhouse__url": clickhouse.url, "stats__self": "false"}
        render = {"target": "load.host003.*", "from": begin - STEP, "format": "json", "maxDataPoints": 100_000}
        with Server(**settings) as server:
            sql = compare("100 series of 1,440 points", server, clickhouse, "/render", render, "graphite")
            print(f"   {sql[:120]} … {sql[-90:]}")
        # Without the answers to patterns that are kept for 30 seconds.
        with Server(store__clickhouse__find_cache="0s", **settings) as server:
            compare("the same, pattern not kept", server, clickhouse, "/render", render, "graphite")
            for pattern, found in (
                ("app07.host0032.metric0[0-3]*", "40"),
                ("app07.host00[0-9]2.metric0*", "1,000"),
                ("app0*.*.*", "400,000"),
            ):
                query = {"query": pattern, "leavesOnly": 1}
                title = f"{found} of a million names"
                sql = compare(title, server, clickhouse, "/metrics/expand", query, "graphite_index")
                print(f"   {sql}")
    finally:
        clickhouse.stop()


if __name__ == "__main__":
    main()

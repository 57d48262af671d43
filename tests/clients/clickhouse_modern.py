"""Today's ClickHouse as the store: the engine inside chdb, behind a few lines of HTTP.

What differs from the old server of clickhouse.py: the form of the rollup rules, the settings of inserts, and how strictly
statements are read. Needs the package chdb.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

from server import BINARY, Server, check, until

STRUCTURES = {
    "graphite": "Path String, Value Float64, Time UInt32, Date Date, Timestamp UInt32",
    "graphite_index": "Date Date, Level UInt32, Path String, Version UInt32",
    "graphite_tagged": "Date Date, Tag1 String, Path String, Tags Array(String), Version UInt32",
    "graphite_events": "Id String, Version UInt64, BornFirst UInt64, BornLast UInt64, Deleted UInt8, Time Float64, "
    "Until Nullable(Float64), Status String, What String, Data String, Tags Array(String), RollbackOf String, "
    "Link String, Key String",
}


def plumbago(*args):
    return subprocess.run([BINARY, *args], check=True, capture_output=True, text=True).stdout


class Engine:
    """The engine in a directory of its own; one statement at a time."""

    def __init__(self, directory):
        self.directory = directory
        self.lock = threading.Lock()
        self.settings = set()
        config = os.path.join(directory, "chdb.xml")
        with open(config, "w", encoding="utf8") as file:
            file.write(plumbago("clickhouse", "schema", "--rollup", "--server-version", "26"))
        self.session = session.Session(f"{directory}/data?config-file={config}")

    def run(self, sql):
        with self.lock:
            return bytes(self.session.query(sql, "TabSeparated").bytes() or b"")

    def insert(self, statement, body):
        table, columns = re.match(r"INSERT INTO (\w+) \((.*)\) FORMAT RowBinary", statement).groups()
        with self.lock:
            path = os.path.join(self.directory, "rows.bin")
            with open(path, "wb") as file:
                file.write(body)
            self.session.query(
                f"INSERT INTO {table} ({columns}) SETTINGS optimize_on_insert=0 "
                f"SELECT * FROM file('{path}', RowBinary, '{STRUCTURES[table]}')"
            )


def serve(engine):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            try:
                if "query" in query:
                    engine.settings.update(query)
                    engine.insert(query["query"], body)
                    answer = b""
                else:
                    answer = engine.run(body.decode())
                self.answer(200, answer)
            except Exception as error:  # Whatever the engine says is the answer.
                self.answer(500, str(error).encode())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def main():
    directory = tempfile.TemporaryDirectory(prefix="plumbago-chdb-")
    engine = Engine(directory.name)
    print(f"     {engine.run('SELECT version()').decode().strip()}")
    url = serve(engine)
    made = plumbago("clickhouse", "schema", "--apply", "--set", f"store.clickhouse.url={url}")
    check("the tables are made", made.count(": made"), 4)
    settings = {
        "store__engine": "clickhouse",
        "store__clickhouse__url": url,
        # chdb reads plain files.
        "store__clickhouse__compression": "none",
        "store__clickhouse__find_cache": "0s",
        "stats__self": "false",
    }
    with Server(**settings) as server:
        now = int(time.time()) // 10 * 10 - 600
        lines = [f"a.b{n}.{kind} {step} {now + step}" for n in range(20) for kind in ("count", "x") for step in range(20)]
        lines += [f"cpu;dc=d{n % 2};host=h:{n} {n} {now}" for n in range(10)]
        server.lines(lines)

        def rows():
            return int(engine.run("SELECT count() FROM graphite"))

        until(lambda: rows() == len(lines), "all points to be there", rows, seconds=60)
        print(f"ok   {len(lines)} points are in ClickHouse")
        check("blocks are not rolled up when they are inserted", engine.settings >= {"optimize_on_insert"}, True)
        check("sums", server.values("a.b7.count", "-11min"), [45.0, 145.0])
        check("averages", server.values("a.b7.x", "-11min"), [4.5, 14.5])
        # ClickHouse itself has the same rules, and answers stay as they are.
        engine.run("OPTIMIZE TABLE graphite FINAL")
        until(lambda: rows() == 20 * 2 * 2 + 10, "the points to be rolled up", rows)
        check("sums that ClickHouse made", server.values("a.b7.count", "-11min"), [45.0, 145.0])
        check("averages that ClickHouse made", server.values("a.b7.x", "-11min"), [4.5, 14.5])
        found = server.ask("/metrics/expand", {"query": "a.b1?.{count,x}", "leavesOnly": "1"})
        check("patterns", len(found["results"]), 20)
        check("at any depth", len(server.ask("/metrics/expand", {"query": "a.**.x", "leavesOnly": "1"})["results"]), 20)
        series = server.ask("/render", {"target": "seriesByTag('name=cpu','dc=d1','host!=h:3')", "format": "json"})
        check("tag expressions", len(series), 4)
        check("tags", [tag["tag"] for tag in server.ask("/tags")], ["dc", "host", "name"])
        values = server.ask("/tags/autoComplete/values", {"tag": "dc", "expr": "name=cpu"})
        check("values of tags", values, ["d0", "d1"])
        shared_events(server, settings)


def shared_events(one, settings):
    with Server(**settings) as two:

        def what(server):
            return sorted(event["what"] for event in server.ask("/events/get_data"))

        one.ask_bytes("/events/", body={"what": "deploy 7", "tags": "deploy web", "data": "x", "until": int(time.time())})
        one.ask_bytes("/events/", body={"what": "gone", "tags": "deploy"})
        until(lambda: what(two) == ["deploy 7", "gone"], "events of the other server", two.log)
        gone = next(event for event in two.ask("/events/get_data") if event["what"] == "gone")
        two.ask_bytes(f"/events/{gone['id']}/", method="DELETE")
        until(lambda: what(one) == ["deploy 7"], "a deletion of the other server", one.log)
        print("ok   events and deletions reach the other server by the table")


main()
sys.stdout.flush()
# Threads of the engine may still run.
os._exit(0)

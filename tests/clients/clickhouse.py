"""ClickHouse as the store: Debian's server, which is killed under load, and the tables of carbon-clickhouse.

    clickhouse.py [POINTS_PER_SECOND] [SECONDS]

1. `plumbago clickhouse schema` makes the rollup section and the tables.
2. The server is killed with -9 and started again three times during a load: every point is there once.
3. The queries of graphite-clickhouse, as its own SQL, find what was written.
4. Tables that were filled in carbon-clickhouse's layout are read.
Standard library only.
"""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from server import BINARY, Server, check, until

RATE = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 30
SERIES = 10_000
STEP = 10
DAY = 86_400

USERS = """<yandex><profiles><default><max_memory_usage>1000000000</max_memory_usage><log_queries>1</log_queries></default></profiles>
<users><default><password></password><networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users>
<quotas><default/></quotas></yandex>"""
CONFIG = """<yandex><logger><level>error</level><log>{dir}/log</log><errorlog>{dir}/errors</errorlog></logger>
<http_port>{http}</http_port><tcp_port>{tcp}</tcp_port><listen_host>127.0.0.1</listen_host>
<mark_cache_size>67108864</mark_cache_size><path>{dir}/data/</path><tmp_path>{dir}/tmp/</tmp_path>
<user_files_path>{dir}/files/</user_files_path><users_config>users.xml</users_config>
<query_log><database>system</database><table>query_log</table></query_log>
<default_profile>default</default_profile><default_database>default</default_database><timezone>UTC</timezone>
{rollup}</yandex>"""


def plumbago(*args):
    return subprocess.run([BINARY, *args], check=True, capture_output=True, text=True).stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class ClickHouse:
    """Debian's server in a fresh directory."""

    def __init__(self, rollup=None):
        self.dir = tempfile.mkdtemp(prefix="plumbago-clickhouse-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        for name in ("data", "tmp", "files"):
            os.mkdir(os.path.join(self.dir, name))
        section = rollup or plumbago("clickhouse", "schema", "--rollup", "--server-version", "18")
        section = re.sub(r"</?yandex>\n", "", section)
        values = {"dir": self.dir, "http": self.port, "tcp": free_port(), "rollup": section}
        for name, text in (("config.xml", CONFIG.format(**values)), ("users.xml", USERS)):
            with open(os.path.join(self.dir, name), "w", encoding="utf8") as file:
                file.write(text)
        self.process = None
        self.start()

    def start(self):
        program = shutil.which("clickhouse-server") or "/usr/sbin/clickhouse-server"
        config = os.path.join(self.dir, "config.xml")
        with open(os.path.join(self.dir, "out"), "ab") as out:
            self.process = subprocess.Popen(
                [program, f"--config-file={config}"], cwd=self.dir, stdout=out, stderr=out
            )
        until(self.answers, "ClickHouse to answer", seconds=60)

    def answers(self):
        if self.process.poll() is not None:
            sys.exit(f"clickhouse-server ended with {self.process.returncode}: see {self.dir}")
        try:
            return self.ask("SELECT 1") == "1\n"
        except OSError:
            return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, sql, body=None, **settings):
        settings = dict(settings, query=sql)
        request = Request(f"{self.url}/?{urlencode(settings)}", body if body is not None else b"")
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.read().decode()
        except HTTPError as error:
            sys.exit(f"{sql}: {error.read().decode()}")

    def number(self, sql):
        return int(self.ask(sql))

    def stop(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def load(server, clickhouse):
    """Sends points, and kills ClickHouse three times meanwhile. Returns how many were sent."""
    kills = [SECONDS * share // 8 for share in (2, 4, 6)]
    begun, sent, second = time.monotonic(), 0, 0
    # As far apart as the rollup rules want them, so that merges make no two of them one.
    now = int(time.time()) // STEP * STEP - SECONDS * (RATE // SERIES) * STEP
    connection = socket.create_connection(server.host_port("carbon.line_tcp"))
    names = [f"load.host{n // 100:03}.metric{n % 100:02} {n} " for n in range(SERIES)]
    down = None
    while second < SECONDS:
        step = 0
        while step * SERIES < RATE:
            # Each series gets one point for each step.
            at = now + (second * (RATE // SERIES) + step) * STEP
            connection.sendall("".join(f"{name}{at}\n" for name in names).encode())
            sent += SERIES
            step += 1
        second += 1
        if second in kills:
            clickhouse.kill()
            down = second
        if down is not None and second == down + 2:
            clickhouse.start()
            down = None
        time.sleep(max(0, begun + second - time.monotonic()))
    connection.close()
    took = time.monotonic() - begun
    print(f"     {sent} points in {took:.1f} s: {sent / took:.0f} points/s, {len(kills)} times killed")
    return sent


def each_point_once(server, clickhouse, sent):
    def rows():
        return clickhouse.number("SELECT count() FROM (SELECT Path, Time FROM graphite WHERE Path LIKE 'load.%' GROUP BY Path, Time)")

    until(lambda: rows() == sent, "all points to be in ClickHouse", lambda: f"{rows()} of {sent}", seconds=90)
    print(f"ok   {sent} points are in ClickHouse")
    twice = clickhouse.number("SELECT count() FROM graphite WHERE Path LIKE 'load.%'") - sent
    different = clickhouse.number(
        "SELECT count() FROM (SELECT Path, Time, min(Value) AS a, max(Value) AS b FROM graphite WHERE Path LIKE 'load.%' GROUP BY Path, Time HAVING a != b)"
    )
    check(f"rows that were sent again ({twice}) are alike", different, 0)
    names = clickhouse.number(
        "SELECT uniqExact(Path) FROM graphite_index WHERE Date = '1970-02-12' AND Level = 20003 AND Path LIKE 'load.%'"
    )
    check("names are in the index", names, SERIES)
    found = server.ask("/metrics/expand", {"query": "load.host00*.metric1?", "leavesOnly": "1"})
    check("patterns find them", len(found["results"]), 100)
    series = server.ask("/render", {"target": "load.host001.*", "from": "-1h", "format": "json"})
    check("a query finds a branch's series", len(series), 100)
    values = {value for one in series for value, _ in one["datapoints"] if value is not None}
    check("with their values", values, set(float(n) for n in range(100, 200)))
    found = server.ask("/render", {"target": "*.*.metric07", "from": "-1h", "format": "json"})
    check("leading wildcards find their series", len(found), 100)
    clickhouse.ask("SYSTEM FLUSH LOGS")
    # The server's own log of its queries, without those of this function.
    asked = clickhouse.ask(
        "SELECT DISTINCT extract(query, 'Level = \\\\d+ AND Path LIKE [^ ]+') FROM system.query_log "
        "WHERE type = 2 AND query LIKE '%metric07%' AND query LIKE '%graphite_index%' AND query NOT LIKE '%query_log%'"
    )
    check("by the reversed index", asked, "Level = 30003 AND Path LIKE \\'metric07.%\\'\n")
    shown = server.ask_bytes("/page/search", {"q": "host001 metric07"})
    check("the explorer's search finds names", b"load.host001.metric07" in shown, True)


def graphite_clickhouse(clickhouse):
    """Its SQL, as it logs it (finder and render)."""
    sql = (
        "SELECT Path FROM graphite_index WHERE ((Level=20003) AND (Path LIKE 'load.host001.%' AND "
        "match(Path, '^load[.]host001[.]([^.]*?)[.]?$'))) AND (Date='1970-02-12') GROUP BY Path FORMAT TabSeparated"
    )
    check("graphite-clickhouse finds a branch", len(clickhouse.ask(sql).split()), 100)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - DAY))
    days = f"Date >='{yesterday}' AND Date <= '{today}'"
    sql = f"SELECT Path FROM graphite_index WHERE (Level=10003) AND (Path LIKE 'metric07.%') AND ({days}) GROUP BY Path"
    check("graphite-clickhouse finds reversed names by day", len(clickhouse.ask(sql).split()), SERIES // 100)
    sql = f"SELECT Path FROM graphite_tagged WHERE (Tag1='__name__=cpu') AND (arrayExists((x) -> x='host=a:b', Tags)) AND ({days}) GROUP BY Path"
    check("graphite-clickhouse finds tagged series", clickhouse.ask(sql), "cpu?dc=x&host=a%3Ab\n")
    sql = f"SELECT splitByChar('=', Tag1)[1] AS value FROM graphite_tagged WHERE ({days}) GROUP BY value ORDER BY value"
    check("graphite-clickhouse lists tags", clickhouse.ask(sql).split(), ["__name__", "dc", "host"])
    now = int(time.time())
    sql = (
        "SELECT Path, groupArray(Time), groupArray(Value), groupArray(Timestamp) FROM graphite "
        f"PREWHERE {days} WHERE (Path IN ('load.host001.metric01')) AND (Time >= {now - DAY} AND Time <= {now}) "
        "GROUP BY Path FORMAT TabSeparated"
    )
    row = clickhouse.ask(sql).rstrip("\n").split("\t")
    check("graphite-clickhouse reads points", row[0], "load.host001.metric01")
    check("with their values", set(row[2].strip("[]").split(",")), {"101"})


def shared_events(clickhouse, settings):
    """Two servers over the same tables, ClickHouse gone for a while in between."""
    with Server(stats__self="false", **settings) as one, Server(stats__self="false", **settings) as two:

        def events(server):
            return {event["what"]: event for event in server.ask("/events/get_data")}

        start = {"what": "deploy 7", "tags": "deploy web", "key": "deploy-7", "status": "started"}
        one.ask_bytes("/events/", body=start)
        one.ask_bytes("/events/", body={"what": "gone", "tags": "deploy"})
        until(lambda: set(events(two)) == {"deploy 7", "gone"}, "events of the other server", two.log)
        print("ok   events reach the other server by the table")
        clickhouse.kill()
        two.ask_bytes("/events/", body={"what": "deploy 7", "key": "deploy-7", "status": "succeeded"})
        two.ask_bytes(f"/events/{events(two)['gone']['id']}/", method="DELETE")
        two.ask_bytes("/events/", body={"what": "later", "tags": "deploy"})
        until(lambda: "are not exchanged" in two.log(), "a line about ClickHouse", two.log)
        check("events stay while ClickHouse is away", set(events(two)), {"deploy 7", "later"})
        clickhouse.start()
        until(lambda: set(events(one)) == {"deploy 7", "later"}, "changes and deletions", one.log)
        ended = events(one)["deploy 7"]
        check("the end has come", ended["status"], "succeeded")
        check("once", ended["when"] <= ended["until"], True)
        check("both have the same", [{**each, "id": 0} for each in events(one).values()], [{**each, "id": 0} for each in events(two).values()])
    sql = "SELECT What FROM graphite_events FINAL WHERE NOT Deleted ORDER BY What"
    check("SQL finds them", clickhouse.ask(sql), "deploy 7\nlater\n")
    with Server(stats__self="false", **settings) as third:
        until(lambda: set(events(third)) == {"deploy 7", "later"}, "events of all at a new server", third.log)
        print("ok   a server that joins gets all events")


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def text(string):
    return varint(len(string.encode())) + string.encode()


def carbon_clickhouse(server, clickhouse):
    """Rows as carbon-clickhouse writes them: points, series tree, tagged."""
    now = int(time.time())
    begin = now - now % 60 - 600
    day = begin // DAY
    points = index = b""
    for n in range(10):
        row = struct.pack("<dIHI", float(n), begin + 60 * n, day, now)
        points += text("old.site.hits") + row + text("mem?dc=y&host=b%2Fc") + row
        # An older version of the same point loses.
        points += text("old.site.hits") + struct.pack("<dIHI", 99.0, begin + 60 * n, day, now - 5)
    for level, path in ((20_003, "old.site.hits"), (20_002, "old.site."), (20_001, "old."), (30_003, "hits.site.old")):
        index += struct.pack("<HI", 42, level) + text(path) + struct.pack("<I", now)
    tags = ["__name__=mem", "dc=y", "host=b/c"]
    tagged = b"".join(
        struct.pack("<H", day) + text(tag) + text("mem?dc=y&host=b%2Fc") + varint(len(tags))
        + b"".join(text(each) for each in tags) + struct.pack("<I", now)
        for tag in tags
    )
    clickhouse.ask("INSERT INTO graphite (Path, Value, Time, Date, Timestamp) FORMAT RowBinary", points)
    clickhouse.ask("INSERT INTO graphite_index (Date, Level, Path, Version) FORMAT RowBinary", index)
    clickhouse.ask("INSERT INTO graphite_tagged (Date, Tag1, Path, Tags, Version) FORMAT RowBinary", tagged)
    found = server.ask("/metrics/expand", {"query": "old.*.hits"})
    check("names of carbon-clickhouse are found", found["results"], ["old.site.hits"])
    check("branches, too", [node["leaf"] for node in server.ask("/metrics/find", {"query": "old.*"})], [0])
    wanted = [float(n) for n in range(10)]
    check("points of carbon-clickhouse are read", server.values("old.site.hits", "-11min"), wanted)
    target = "seriesByTag('name=mem','host=~b/.*')"
    check("tagged series, too", server.values(target, "-11min"), wanted)
    check("with their names", server.ask("/render", {"target": target, "format": "json"})[0]["target"], "mem;dc=y;host=b/c")
    values = server.ask("/tags/autoComplete/values", {"tag": "host", "expr": "name=mem"})
    check("and values of tags", values, ["b/c"])


def main():
    clickhouse = ClickHouse()
    try:
        url = f"store.clickhouse.url={clickhouse.url}"
        made = plumbago("clickhouse", "schema", "--apply", "--set", url)
        check("the tables are made", made.count(": made"), 4)
        again = plumbago("clickhouse", "schema", "--apply", "--set", url)
        check("and left as they are", again.count("left as it is"), 4)
        settings = {"store__engine": "clickhouse", "store__clickhouse__url": clickhouse.url}
        shared_events(clickhouse, settings)
        with Server(stats__self="false", **settings) as server:
            now = int(time.time())
            server.lines([f"cpu;host=a:b;dc=x 5 {now}"])
            # Before ClickHouse has it, and afterwards.
            server.expect("cpu;dc=x;host=a:b", 5.0)
            server.expect("seriesByTag('name=cpu')", 5.0)
            sent = load(server, clickhouse)
            each_point_once(server, clickhouse, sent)
            graphite_clickhouse(clickhouse)
            carbon_clickhouse(server, clickhouse)
            server.stop()
            check("the journal is empty after a shutdown", journal_bytes(server) < 100, True)
            server.start()
            check("a restart finds the points", len(server.values("old.site.hits", "-11min")) >= 9, True)
    finally:
        clickhouse.stop()


def journal_bytes(server):
    directory = server.path("data", "journal")
    return sum(os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory))


if __name__ == "__main__":
    main()

"""The recorded answers of graphite-web, asked of ClickHouse.

The points of the recorded whisper files are put into the tables, each archive where the finer ones do not reach, with a
rollup rule for each file. What ClickHouse does not have cannot be answered alike: docs/clickhouse.md lists the classes.
Standard library only.

FAILURES names a file for the cases that are answered otherwise.
"""

import glob
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
from urllib.parse import quote, quote_plus

from clickhouse import ClickHouse, plumbago, text
from server import Server

NOW = 1_700_000_000
# Fewer than this many equal answers are a fault.
LEAST = 4_200
FUNCTIONS = {1: "avg", 2: "sum", 3: "anyLast", 4: "max", 5: "min"}
here = os.path.dirname(os.path.abspath(__file__))
golden = os.environ.get("PLUMBAGO_GOLDEN", os.path.join(here, "..", "golden"))


def archives(path):
    """Function, and (seconds per point, {timestamp: value}) of each archive."""
    with open(path, "rb") as file:
        data = file.read()
    method, _, _, count = struct.unpack(">LLfL", data[:16])
    found = []
    for n in range(count):
        offset, step, points = struct.unpack(">LLL", data[16 + 12 * n : 28 + 12 * n])
        slots = struct.iter_unpack(">Ld", data[offset : offset + 12 * points])
        found.append((step, step * points, {at: value for at, value in slots if at}))
    return FUNCTIONS.get(method, "avg"), found


def table_name(name):
    metric, _, tags = name.partition(";")
    if not tags:
        return name
    pairs = (pair.partition("=") for pair in tags.split(";"))
    escaped = "&".join(f"{quote_plus(tag, safe='-_.~')}={quote_plus(value, safe='-_.~')}" for tag, _, value in pairs)
    return quote(metric, safe="$&+,/:;=@-_.~") + "?" + escaped


def series(tree):
    """The name of each file."""
    with open(os.path.join(golden, "tags.json"), encoding="utf8") as file:
        tagged = {hashlib.sha256(name.encode()).hexdigest(): name for name in json.load(file)}
    for path in glob.glob(os.path.join(tree, "**", "*.wsp"), recursive=True):
        name = os.path.relpath(path, tree)[: -len(".wsp")]
        last = os.path.basename(name)
        if name.startswith("_tagged"):
            name = tagged.get(last) or last.replace("_DOT_", ".")
        else:
            name = name.replace(os.sep, ".")
        yield name, path


def rows(tree):
    points, index, rules = [], set(), []
    for name, path in series(tree):
        function, found = archives(path)
        stored = table_name(name)
        finer, retentions = 0, []
        for step, reach, slots in found:
            # A query is answered by the finest archive that reaches back to its start.
            retentions.append(f"<retention><age>{finer + 1 if finer else 0}</age><precision>{step}</precision></retention>")
            for at, value in slots.items():
                if NOW - reach < at <= NOW and (not finer or at <= NOW - finer):
                    points.append(text(stored) + struct.pack("<dIHI", value, at, at // 86_400, 1))
            finer = reach
        rules.append(
            f"<pattern><regexp>^{escape(stored)}$</regexp><function>{function}</function>{''.join(retentions)}</pattern>"
        )
        if ";" not in name:
            nodes = name.split(".")
            for depth in range(1, len(nodes)):
                index.add((20_000 + depth, ".".join(nodes[:depth]) + "."))
            index.add((20_000 + len(nodes), name))
    return points, index, rules


def escape(name):
    return re.escape(name).replace("&", "&amp;").replace("<", "&lt;").replace("\\&", "&")


def main():
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(os.path.join(golden, "whisper-tree.tar.gz")) as tree:
            tree.extractall(directory)
        points, index, rules = rows(os.path.join(directory, "whisper"))
    names = "".join(
        f"<{part}_column_name>{column}</{part}_column_name>"
        for part, column in (("path", "Path"), ("time", "Time"), ("value", "Value"), ("version", "Timestamp"))
    )
    default = "<default><function>avg</function><retention><age>0</age><precision>10</precision></retention></default>"
    clickhouse = ClickHouse(f"<graphite_rollup>{names}{''.join(rules)}{default}</graphite_rollup>")
    try:
        plumbago("clickhouse", "schema", "--apply", "--set", f"store.clickhouse.url={clickhouse.url}")
        # Queries roll up by the rules themselves; merges would do it by the clock of today.
        clickhouse.ask("DROP TABLE graphite")
        clickhouse.ask(
            "CREATE TABLE graphite (Path String, Value Float64, Time UInt32, Date Date, Timestamp UInt32) "
            "ENGINE = MergeTree PARTITION BY toYYYYMM(Date) ORDER BY (Path, Time)"
        )
        clickhouse.ask("INSERT INTO graphite (Path, Value, Time, Date, Timestamp) FORMAT RowBinary", b"".join(points))
        body = b"".join(struct.pack("<HI", 42, level) + text(path) + struct.pack("<I", 1) for level, path in index)
        clickhouse.ask("INSERT INTO graphite_index (Date, Level, Path, Version) FORMAT RowBinary", body)
        with Server(render__now=NOW, store__engine="clickhouse", store__clickhouse__url=clickhouse.url) as server:
            ask(server)
    finally:
        clickhouse.stop()


def ask(server):
    host, port = server.host_port("render.http")
    cases = glob.glob(os.path.join(golden, "render-cases.jsonl*"))[0]
    failures = os.environ.get("FAILURES", server.path("failures"))
    replay = [sys.executable, os.path.join(here, "replay.py"), "--base-url", f"http://{host}:{port}", "--show", "0"]
    replay += ["--seed", "--seed-dir", golden, "--jobs", "2", "--failures", failures, cases]
    said = subprocess.run(replay, check=False, capture_output=True, text=True)
    print(said.stdout[-3000:], said.stderr[-1000:])
    total = re.search(r"^(\d+) passed, \d+ failed$", said.stdout, re.MULTILINE)
    passed = int(total[1]) if total else 0
    if passed < LEAST:
        sys.exit(f"{passed} answers are as recorded, fewer than {LEAST}")


if __name__ == "__main__":
    main()

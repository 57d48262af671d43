"""PyPI whisper: it reads what we write and we read what it writes, with equal answers, and its
command line tools print what ours print."""

import os
import subprocess
import sys
import time

import whisper

from server import BINARY, Server, check, until

TOOLS = os.path.dirname(sys.executable)


def same(path, answer, start, end):
    """Whether whisper's own fetch gives the series of a /render answer."""
    (begin, _, step), values = whisper.fetch(path, start, end)
    theirs = {begin + index * step: value for index, value in enumerate(values) if value is not None}
    ours = {stamp: value for value, stamp in answer if value is not None}
    return ours == theirs


with Server() as server:
    now = int(time.time())
    sent = [(now - 600 + 10 * n, n * 1.5) for n in range(60)]
    server.lines([f"ours.metric {value} {stamp}" for stamp, value in sent])
    until(lambda: len(server.values("ours.metric", "-20min")) == 60, "60 points")
    server.stop()

    path = server.path("data", "whisper", "ours", "metric.wsp")
    info = whisper.info(path)
    check("whisper reads our header", [archive["secondsPerPoint"] for archive in info["archives"]][1:], [60, 600])
    (begin, _, step), values = whisper.fetch(path, now - 620, now)
    theirs = [value for value in values if value is not None]
    check("whisper reads our points", theirs, [value for _, value in sent][-len(theirs):])
    assert len(theirs) >= 59

    theirs_path = server.path("data", "whisper", "theirs", "metric.wsp")
    os.makedirs(os.path.dirname(theirs_path))
    whisper.create(theirs_path, [(10, 360), (60, 1440)], 0.0, "sum")
    whisper.update_many(theirs_path, [(stamp, value) for stamp, value in sent])
    server.start()
    until(lambda: server.values("theirs.metric", "-20min"), "the file that whisper wrote")
    answer = server.ask("/render", {"target": "theirs.metric", "from": now - 620, "until": now, "format": "json"})
    assert same(theirs_path, answer[0]["datapoints"], now - 620, now), answer
    print("ok   we read what whisper wrote")

    server.lines([f"theirs.metric 99 {now}"])
    until(lambda: server.values("theirs.metric", "-20min")[-1] == 99, "a point in whisper's file")
    server.stop()
    (begin, _, step), values = whisper.fetch(theirs_path, now - 620, now)
    check("whisper reads the point we added to its file", values[-1], 99.0)

    for tool, verb in (("whisper-info", "info"), ("whisper-dump", "dump")):
        program = next(name for name in (tool, tool + ".py") if os.path.exists(os.path.join(TOOLS, name)))
        theirs = subprocess.run([sys.executable, os.path.join(TOOLS, program), path], capture_output=True, text=True)
        ours = subprocess.run([BINARY, "whisper", verb, path], capture_output=True, text=True)
        check(f"{tool} and `plumbago whisper {verb}` print the same", ours.stdout, theirs.stdout)

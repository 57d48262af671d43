"""Replays the recorded answers of graphite-web against the release binary."""

import os
import re
import subprocess
import sys
import tarfile

from server import Server

here = os.path.dirname(os.path.abspath(__file__))
golden = os.environ.get("PLUMBAGO_GOLDEN", os.path.join(here, "..", "golden"))
cases = next(
    path
    for path in (os.path.join(golden, name) for name in ("render-cases.jsonl", "render-cases.jsonl.gz"))
    if os.path.exists(path)
)
# The table of differences names each case that is answered otherwise on purpose.
with open(os.path.join(here, "..", "..", "docs", "graphite-differences.md"), encoding="utf8") as file:
    deviations = re.findall(r"`((?:fn|render|find|tags|events)\.[\w.]+\.[0-9a-f]{10})`", file.read())
server = Server(render__now=1700000000)
server.settings["carbon.whisper_dir"] = server.path("tree", "whisper")
with tarfile.open(os.path.join(golden, "whisper-tree.tar.gz")) as tree:
    if hasattr(tarfile, "data_filter"):
        tree.extractall(server.path("tree"), filter="data")
    else:
        tree.extractall(server.path("tree"))
with server:
    host, port = server.host_port("render.http")
    replay = [sys.executable, os.path.join(here, "replay.py"), "--base-url", f"http://{host}:{port}"]
    replay += ["--seed", "--seed-dir", golden, "--jobs", "2", cases]
    for case in deviations:
        replay += ["--deviates", case]
    sys.exit(subprocess.run(replay, check=False).returncode)

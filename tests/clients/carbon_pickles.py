"""A route with `protocol = "pickle"` to carbon-cache's pickle receiver: every value is in carbon's files."""

import os
import shutil
import tempfile
import time

import whisper

from carbon_cache import Carbon
from programs import free_port
from server import Server, check, until

home = tempfile.mkdtemp(prefix="plumbago-carbon-")
tree = os.path.join(home, "whisper")
os.mkdir(tree)
port = free_port()
# Nothing registers tags here.
options = {"PICKLE_RECEIVER_PORT": port, "ENABLE_TAGS": False}
route = f'{{destinations = ["127.0.0.1:{port}"], protocol = "pickle", keep = "never"}}'
now = int(time.time()) - 900
sent = {f"relay.host{n}.value": {now + at: n + at / 8 for at in range(200)} for n in range(20)}
sent["relay.odd"] = {now: -1e300, now + 1: 0.1, now + 2: 9007199254740992.0, now + 3: -3.0}


def missing():
    absent = []
    for name, values in sent.items():
        path = os.path.join(tree, name.replace(".", os.sep) + ".wsp")
        found = {}
        if os.path.exists(path):
            (start, _, step), stored = whisper.fetch(path, now - 10, now + 300)
            found = {start + step * n: value for n, value in enumerate(stored) if value is not None}
        absent += [(name, at) for at, value in values.items() if found.get(at) != value]
    return absent


with Carbon(home, tree, "http://127.0.0.1:1", False, **options):
    with Server(carbon__routes=f"[{route}]", stats__self="false") as server:
        server.lines([f"{name} {value!r} {at}" for name, values in sent.items() for at, value in values.items()])
        until(lambda: not missing(), "values in carbon's files", lambda: f"{len(missing())} are missing", seconds=60)
count = sum(len(values) for values in sent.values())
check(f"{count} values of pickles are in the files of carbon-cache", missing(), [])
shutil.rmtree(home)

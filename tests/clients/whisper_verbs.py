"""Each `plumbago whisper` verb that writes, next to PyPI whisper doing the same: whisper opens both
files and reads the same header and the same points from them."""

import os
import subprocess
import tempfile

import whisper

from server import BINARY, check

NOW = 1_700_000_000
ARCHIVES = [(10, 360), (60, 1440), (600, 1008)]
SPELLED = ["10:360", "60:1440", "600:1008"]


def verb(*arguments, stdin=None):
    """Runs a verb at the clock NOW; its output."""
    command = [BINARY, "whisper", "--now", str(NOW), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def points(path):
    """What whisper reads over the reach of each archive: {seconds per point: {timestamp: value}}."""
    read = {}
    for archive in whisper.info(path)["archives"]:
        start = NOW - archive["retention"]
        (begin, _, step), values = whisper.fetch(path, start, NOW, now=NOW, archiveToSelect=archive["secondsPerPoint"])
        read[step] = {begin + step * n: value for n, value in enumerate(values) if value is not None}
    return read


def header(path):
    info = whisper.info(path)
    return (info["aggregationMethod"], info["xFilesFactor"], [(a["secondsPerPoint"], a["points"]) for a in info["archives"]])


def same(what, ours, theirs):
    check(f"{what}: header", header(ours), header(theirs))
    check(f"{what}: points", points(ours), points(theirs))
    check(f"{what}: something was compared", any(points(ours).values()), True)


with tempfile.TemporaryDirectory() as folder:
    ours, theirs = os.path.join(folder, "ours.wsp"), os.path.join(folder, "theirs.wsp")
    verb("create", "--xFilesFactor", "0.2", "--aggregationMethod", "sum", ours, *SPELLED)
    whisper.create(theirs, ARCHIVES, 0.2, "sum")
    check("create: header", header(ours), header(theirs))
    with open(ours, "rb") as a, open(theirs, "rb") as b:
        check("create: bytes", a.read() == b.read(), True)

    verb("update", ours, f"{NOW - 30}:1.5")
    whisper.update(theirs, 1.5, NOW - 30, NOW)
    same("update", ours, theirs)

    # Three hours, so that the coarser archives get points of their own. No point is exactly as old as
    # an archive reaches back: those are placed differently on purpose (docs/whisper.md).
    batch = [(NOW - 10_797 + 10 * n, (n * 7919 % 100) / 4) for n in range(1080)]
    verb("update", ours, stdin="".join(f"{stamp}:{value}\n" for stamp, value in batch))
    whisper.update_many(theirs, batch, NOW)
    same("update, many", ours, theirs)

    verb("set-xff", ours, "0.5")
    whisper.setXFilesFactor(theirs, 0.5)
    verb("set-aggregation", ours, "max")
    whisper.setAggregationMethod(theirs, "max")
    verb("update", ours, f"{NOW - 600}:99", f"{NOW - 590}:98")
    whisper.update_many(theirs, [(NOW - 600, 99), (NOW - 590, 98)], NOW)
    same("set-xff and set-aggregation", ours, theirs)

    other = os.path.join(folder, "other.wsp")
    whisper.create(other, ARCHIVES, 0.5, "max")
    whisper.update_many(other, [(NOW - 6_997 + 10 * n, 1000 + n) for n in range(400)], NOW)
    verb("merge", other, ours)
    whisper.merge(other, theirs, now=NOW)
    same("merge", ours, theirs)

    gaps = os.path.join(folder, "gaps.wsp")
    whisper.create(gaps, ARCHIVES, 0.5, "max")
    whisper.update_many(gaps, [(NOW - 3_000 + 10 * n, 5) for n in range(50)], NOW)
    verb("fill", "--every-gap", ours, gaps)
    filled, source = points(gaps), points(ours)
    check("fill: what was there stays", all(filled[10][NOW - NOW % 10 - 3_000 + 10 * n] == 5 for n in range(50)), True)
    check("fill: the finest archive has every point now", set(filled[10]) >= set(source[10]), True)

    start, end = NOW - 2_000, NOW - 1_000
    verb("delete-range", "--from", start, "--until", end, ours)
    left = points(ours)[10]
    check("delete-range: nothing is left in it", [stamp for stamp in left if start <= stamp <= end], [])
    check("delete-range: the rest stays", bool([stamp for stamp in left if stamp > end]), True)

    before = points(ours)
    verb("resize", ours, "10:720", "60:2880", "600:1008")
    check("resize: archives", header(ours)[2], [(10, 720), (60, 2880), (600, 1008)])
    after = points(ours)
    for step in (10, 60, 600):
        kept = all(after[step].get(stamp) == value for stamp, value in before[step].items())
        check(f"resize: every point of the {step} s archive is kept", kept, True)
    check("resize: the copy can be read", bool(points(ours + ".bak")[10]), True)

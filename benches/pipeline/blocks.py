#!/usr/bin/env python3
"""What the bytes are that ext4 wrote to a device: which blocks, of which files.

    blocks.py MOUNT DEVICE TRACE FROM UNTIL POINTS

TRACE has lines of the tracepoint block:block_rq_issue; FROM and UNTIL are times in it, in seconds. While the bench
runs, as root:

    echo 1 > /sys/kernel/tracing/events/block/block_rq_issue/enable
    cat /sys/kernel/tracing/trace_pipe > TRACE

Blocks are assigned to the files that are there when this runs, so it has to run before the bench has ended. A page
in which an archive begins counts for that archive.
"""

import bisect
import collections
import fcntl
import os
import re
import struct
import subprocess
import sys

FIEMAP = 0xC020660B
BLOCK = 4096
WRITE = re.compile(r"(\d+\.\d+): block_rq_issue: (\d+,\d+) (\w*W\w*) \d+ \(.*?\) (\d+) \+ (\d+) ")


def extents(path):
    """Where the blocks of a file lie: its offset, that on the device, and the length."""
    most = 256
    request = bytearray(32 + 56 * most)
    struct.pack_into("=QQIIII", request, 0, 0, 2**64 - 1, 0, 0, most, 0)
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(file, FIEMAP, request)
    finally:
        os.close(file)
    for at in range(struct.unpack_from("=I", request, 20)[0]):
        yield struct.unpack_from("=QQQ", request, 32 + 56 * at)


def archives(path):
    """The offsets of a whisper file's archives."""
    with open(path, "rb") as file:
        head = file.read(16 + 12 * 16)
    count = min(struct.unpack_from(">I", head, 12)[0], 16)
    return [struct.unpack_from(">I", head, 16 + 12 * at)[0] for at in range(count)]


def kinds_of_files(mount):
    kinds = {}
    for root, _, files in os.walk(mount):
        for path in [root] + [os.path.join(root, name) for name in files]:
            try:
                begins = archives(path) if path.endswith(".wsp") else []
                found = list(extents(path))
            except OSError:
                continue
            for offset, at, length in found:
                for n in range(length // BLOCK):
                    last = offset + (n + 1) * BLOCK - 1
                    if begins:
                        kind = f"archive {max(bisect.bisect_right(begins, last), 1)}"
                    elif os.path.isdir(path):
                        kind = "directories"
                    else:
                        kind = "journal" if path.endswith(".journal") else os.path.basename(path)
                    kinds[at // BLOCK + n] = kind
    return kinds


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def kinds_of_metadata(device):
    kinds = {int(n): "ext4's journal" for n in run("debugfs", "-R", "blocks <8>", device).split() if n.isdigit()}
    for kind, first, last in re.findall(r"(Inode table|Block bitmap|Inode bitmap) at (\d+)(?:-(\d+))?", run("dumpe2fs", device)):
        for block in range(int(first), int(last or first) + 1):
            kinds[block] = kind.lower() + "s"
    return kinds


def main():
    mount, device, trace, begin, until, points = sys.argv[1:]
    number = os.stat(device).st_rdev
    number = f"{os.major(number)},{os.minor(number)}"
    kinds = kinds_of_files(mount) | kinds_of_metadata(device)
    written, blocks = collections.Counter(), collections.defaultdict(set)
    with open(trace, errors="replace") as lines:
        for found in filter(None, map(WRITE.search, lines)):
            if found[2] != number or not float(begin) <= float(found[1]) < float(until):
                continue
            first, sectors = int(found[4]) // 8, int(found[5])
            for block in range(first, first + (sectors + 7) // 8):
                kind = kinds.get(block, "other metadata, deleted files")
                written[kind] += min(sectors, 8) * 512
                blocks[kind].add(block)
    for kind, size in written.most_common():
        print(f"{size / float(points):10.1f} bytes a point  {size // BLOCK:9} blocks, {len(blocks[kind])} of them different  {kind}")
    print(f"{written.total() / float(points):10.1f} bytes a point")


main()

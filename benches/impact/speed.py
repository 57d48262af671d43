#!/usr/bin/env python3
"""How long a running server takes for the verdict on a deploy with many series, and how much memory.

2,000 series of a week of minutes go to a server's TCP socket (gauges with noise and a daily season, counts, rare
counts; a fiftieth changes at the deploy), 500 more are controls. A deploy of 65 minutes ago is posted, and the server
starts again, so that all points are in files. Then the verdict (all four looks) is asked for again and again, and the
fastest is reported, with the processor time that the server used and the growth of the server's memory.

    python3 benches/impact/speed.py --binary target/release/plumbago [--binary OTHER]

Several binaries judge the same files, one after the other.

Needs numpy.
"""
import argparse
import pathlib
import shutil
import socket
import tempfile
import time

import numpy as np

from run import Server

SERIES, CONTROLS, WEEK, STEP = 2_000, 500, 10_080, 60


def columns(n):
    """The values of series number `n`, oldest first; the last 65 are after the deploy."""
    random = np.random.default_rng(n)
    at = np.arange(WEEK)
    drift = np.convolve(random.normal(0, 1, WEEK), 0.9 ** np.arange(40), "same")
    level = 50 + 10 * np.sin(at / 1440 * 2 * np.pi) + 2 * drift
    if n % 50 == 1:
        level[-65:] += 30
    if n % 4 < 2:
        return level + random.random(WEEK)
    if n % 4 == 2:
        return np.round(level * (0.8 + 0.4 * random.random(WEEK)))
    return (random.random(WEEK) < 0.05).astype(float)


def load(server, end):
    host, port = server.lines.rsplit(":", 1)
    names = [f"stats.web.s{n:04}.value" for n in range(SERIES)] + [f"other.o{n:04}.value" for n in range(CONTROLS)]
    with socket.create_connection((host, int(port))) as stream:
        for n, name in enumerate(names):
            first = end - WEEK * STEP
            values = columns(n)
            stream.sendall("".join(f"{name} {value:.7g} {first + k * STEP}\n" for k, value in enumerate(values)).encode())
    deadline = time.time() + 600
    while server.received() < len(names) * WEEK:
        if time.time() > deadline:
            raise SystemExit("not all points were received")
        time.sleep(0.2)


def status(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return 0


def processor_seconds(pid):
    """Processor time of the server so far; it does little else meanwhile."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(server, event, rounds):
    """Asks for the verdict on `event` again and again."""
    pid = server.process.pid
    before = peak = status(pid, "RssAnon")
    report = server.get(f"/impact?event={event}").get("impact")
    last = report and report["updated"]
    times = []
    for _ in range(rounds):
        begun, cpu = time.time(), processor_seconds(pid)
        server.post(f"/impact?event={event}", {})
        while True:
            report = server.get(f"/impact?event={event}").get("impact")
            peak = max(peak, status(pid, "RssAnon"))
            if report and report["updated"] != last:
                break
            time.sleep(0.02)
        last = report["updated"]
        times.append((time.time() - begun, processor_seconds(pid) - cpu))
        print(f"verdict in {times[-1][0]:.2f} s, {times[-1][1]:.2f} s of processor time", flush=True)
    looks = ", ".join(f"{look['minutes']}: {look['found']}" for look in report["looks"])
    print(f"{report['verdict']}: {report['tested']} tested, {report['controls']} controls, {report['changed']} changed; found by look {looks}")
    print(f"fastest {min(times)[0]:.2f} s; anonymous memory {before:.0f} MiB, at most {peak - before:.0f} MiB more", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", action="append")
    parser.add_argument("--scratch", help="directory for the server's data")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    binaries = args.binary or ["target/release/plumbago"]
    directory = tempfile.mkdtemp(dir=args.scratch)
    server = Server(binaries[0], directory, SERIES)
    try:
        end = int(time.time()) // STEP * STEP
        begun = time.time()
        load(server, end)
        print(f"{(SERIES + CONTROLS) * WEEK} points loaded in {time.time() - begun:.0f} s", flush=True)
        event = {"what": "web 2", "tags": "deploy web", "when": end - 65 * STEP}
        event = server.post("/events/", event)["id"]
        for binary in binaries:
            server.stop()
            server = Server(binary, directory, SERIES)
            print(binary)
            measure(server, event, args.rounds)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Judges the deploys of worlds with known truth by a running server, and prints how well it does.

Each world is a directory with
  world.npz     X[series, point] (NaN for absent), names, service (of each series), step (seconds)
  deploys.json  [{"id", "when" (Unix seconds), "service", "evaluate"}], the world's first point being at "epoch" of
                world.npz
  truth.json    {deploy id: [{"series": index, "kind", "sign", "size", "sigma", "lasting"}]}

A server starts in a temporary directory for each world. The lines go to its TCP socket, moved in time so that
the world ends now; the deploys are posted to /events/; the verdicts are read from /impact.

    python3 benches/impact/run.py --binary target/release/plumbago WORLD...

Needs numpy. A planted change is clear if it is at least 1.5 times the 99th percentile of what its series does by
itself (differences of medians, every ten minutes).
"""
import argparse
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import warnings

import numpy as np

SCHEMA = "[minutes]\npattern = .*\nretentions = 60s:15d\n"


class Server:
    def __init__(self, binary, directory, series):
        self.directory = pathlib.Path(directory)
        (self.directory / "schemas.conf").write_text(SCHEMA)
        ready = self.directory / "ready.json"
        ready.unlink(missing_ok=True)
        keys = {
            "statsd.udp": "[]", "statsd.admin": "[]", "carbon.line_tcp": "127.0.0.1:0", "carbon.line_udp": "[]",
            "carbon.pickle": "[]", "render.http": "127.0.0.1:0", "carbon.infer_step": "false", "stats.self": "false",
            "carbon.schemas": str(self.directory / "schemas.conf"), "impact.max_series": str(4 * series),
        }
        command = [binary, "serve", "--data", str(self.directory / "data"), "--ready-file", str(ready)]
        for key, value in keys.items():
            command += ["--set", f"{key}={value}"]
        self.log = open(self.directory / "log", "w")
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log)
        deadline = time.time() + 30
        while not ready.exists():
            if self.process.poll() is not None or time.time() > deadline:
                raise SystemExit((self.directory / "log").read_text())
            time.sleep(0.05)
        addresses = json.loads(ready.read_text())
        self.lines = addresses["carbon.line_tcp"][0]
        self.url = "http://" + addresses["render.http"][0]

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"accept": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def post(self, path, body):
        headers = {"accept": "application/json", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def received(self):
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("plumbago_carbon_metrics_received"):
                    return float(line.split()[-1])
        return 0.0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


def load(server, world, shift):
    """Sends all points, oldest first, and waits until the server has them."""
    X, names, step, epoch = world["X"], world["names"], int(world["step"]), int(world["epoch"])
    host, port = server.lines.rsplit(":", 1)
    sent = 0
    with socket.create_connection((host, int(port))) as stream:
        for start in range(0, X.shape[1], 60):
            part = X[:, start:start + 60]
            lines = []
            for series, at in zip(*np.nonzero(np.isfinite(part))):
                lines.append(f"{names[series]} {part[series, at]:.9g} {epoch + shift + (start + at) * step}\n")
            sent += len(lines)
            stream.sendall("".join(lines).encode())
    deadline = time.time() + 300
    while server.received() < sent:
        if time.time() > deadline:
            raise SystemExit(f"only {server.received()} of {sent} points were received")
        time.sleep(0.2)
    return sent


def verdicts(server, deploys, shift):
    """Posts the deploys and waits for the final verdicts on those that are evaluated."""
    ids = {}
    for deploy in deploys:
        body = {"what": deploy["id"], "tags": f"deploy service:{deploy['service']}", "when": deploy["when"] + shift}
        ids[deploy["id"]] = server.post("/events/", body)["id"]
    reports = {}
    deadline = time.time() + 1800
    for deploy in deploys:
        if not deploy["evaluate"]:
            continue
        while True:
            report = server.get(f"/impact?event={ids[deploy['id']]}").get("impact")
            if report and report["complete"]:
                reports[deploy["id"]] = report
                break
            if time.time() > deadline:
                raise SystemExit(f"no verdict on {deploy['id']}")
            time.sleep(0.5)
    names = {number: name for name, number in ids.items()}
    for report in reports.values():
        report["joint"] = [names[number] for number in report["joint"]]
    return reports


def clear(X, at, step, effects):
    """Which of the planted effects are clear."""
    before, after, stride, week = 3600 // step, 3600 // step, max(1, 600 // step), 7 * 86400 // step
    found = set()
    for effect in effects:
        x = X[effect["series"], max(0, at - week):at].astype(float)
        kind = effect["kind"].replace("revert-", "")
        if kind == "spread":
            continue
        if kind == "stop":
            found.add(effect["series"])
            continue
        if kind == "newerr":
            if effect["size"] * after * step / 60 >= 10:
                found.add(effect["series"])
            continue
        starts = np.arange(before, len(x) - after, stride)
        with warnings.catch_warnings():
            # Series without values have no usual change.
            warnings.simplefilter("ignore")
            change = np.nanmedian(x[starts[:, None] + np.arange(after)], -1)
            change -= np.nanmedian(x[starts[:, None] - before + np.arange(before)], -1)
            usual = np.nanquantile(np.abs(change), 0.99)
            level = np.nanmedian(np.abs(x))
        size = effect["size"] * effect["sigma"]
        if size >= 1.5 * usual if usual > 0 else size > 0.02 * level:
            found.add(effect["series"])
    return found


def tally(world, deploys, truth, reports, totals):
    X, names, step, epoch = world["X"], list(world["names"]), int(world["step"]), int(world["epoch"])
    number = {name: n for n, name in enumerate(names)}
    effects = lambda deploy: [effect for effect in truth[deploy] if effect["lasting"]]
    for deploy in deploys:
        report = reports.get(deploy["id"])
        if not report:
            continue
        at = (deploy["when"] - epoch) // step
        lasting = {effect["series"]: effect for effect in effects(deploy["id"])}
        allowed = set(lasting)
        for other in report["joint"]:
            allowed |= {effect["series"] for effect in effects(other)}
        # With all looks taken, what the last look saw counts, too.
        found = {number[one["name"]]: one for one in report["series"] if one["state"] != "passing"}
        obvious = clear(X, at, step, lasting.values())
        totals["deploys"] += 1
        totals["planted"] += len(lasting)
        totals["recalled"] += len(set(found) & set(lasting))
        totals["clear"] += len(obvious)
        totals["clear recalled"] += len(set(found) & obvious)
        totals["found"] += len(found)
        totals["false"] += len(set(found) - allowed)
        if not lasting:
            totals["innocent"] += 1
            totals["accused"] += bool(set(found) - allowed)
        for series, one in found.items():
            effect = lasting.get(series)
            if effect and effect["kind"].replace("revert-", "") != "spread":
                totals["wrong direction"] += one["trend"] != 0 and one["trend"] != effect["sign"]
        totals["verdicts"].append(report["verdict"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/plumbago")
    parser.add_argument("--scratch", help="directory for the servers' data")
    parser.add_argument("worlds", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    totals = {key: 0 for key in ("deploys", "planted", "recalled", "clear", "clear recalled", "found", "false",
                                 "innocent", "accused", "wrong direction")}
    totals["verdicts"] = []
    for path in args.worlds:
        world = dict(np.load(path / "world.npz", allow_pickle=False))
        deploys = json.loads((path / "deploys.json").read_text())
        truth = json.loads((path / "truth.json").read_text())
        step, end = int(world["step"]), int(world["epoch"]) + world["X"].shape[1] * int(world["step"])
        directory = tempfile.mkdtemp(dir=args.scratch)
        begun = time.time()
        server = Server(args.binary, directory, len(world["names"]))
        try:
            shift = (int(time.time()) - 120 - end) // step * step
            sent = load(server, world, shift)
            loaded = time.time()
            reports = verdicts(server, deploys, shift)
        finally:
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)
        tally(world, deploys, truth, reports, totals)
        print(f"{path.name}: {len(world['names'])} series, {sent} points in {loaded - begun:.0f} s, "
              f"{len(reports)} verdicts in {time.time() - loaded:.0f} s", flush=True)
    share = lambda a, b: f"{totals[a]} of {totals[b]} = {totals[a] / max(1, totals[b]):.3f}"
    print(f"deploys               {totals['deploys']}")
    print(f"recall, all planted   {share('recalled', 'planted')}")
    print(f"recall, clear ones    {share('clear recalled', 'clear')}")
    print(f"false discoveries     {share('false', 'found')}")
    print(f"innocent accused      {share('accused', 'innocent')}")
    print(f"wrong direction       {totals['wrong direction']}")
    words = totals["verdicts"]
    print("verdicts              " + ", ".join(f"{word} {words.count(word)}" for word in sorted(set(words))))


if __name__ == "__main__":
    main()

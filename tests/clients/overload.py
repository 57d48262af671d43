"""Expensive requests, ten at a time, while metrics come in.

    overload.py [REQUESTS] [METRICS_PER_SECOND]

What must hold while requests ask for far more than a server can give: no metric is lost, the
memory stays within the budget of all requests, /healthz answers within half a second, and the
processor is idle within a second of the last answer. Standard library only.
"""

import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urlencode

from server import BINARY, Server, until

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
RATE = int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
BUDGET_MB = 1024
TIMEOUT_S = 5
# What the server needs itself is looked at while metrics come in, for a flush and more, before the
# first request.
FLUSH_S = 10


def render(target, **more):
    targets = [target] if isinstance(target, str) else target
    return "/render?" + urlencode([("target", t) for t in targets] + list(more.items()))


def json(target, span="-1d", **more):
    return render(target, format="json", **{"from": span}, **more)


def nested(shape, inner, levels):
    for _ in range(levels):
        inner = shape.replace("%", inner)
    return inner


def values():
    """Many values, or the same ones many times."""
    for form in ("json", "csv", "raw", "pickle", "msgpack", "dygraph", "rickshaw"):
        yield render(["a"] * 1000, format=form, **{"from": "-5y"})
        yield render(["old.*"] * 50, format=form, **{"from": "-5y"})
    yield json(["a"] * 4000, "-5y")
    yield json("group(" + ",".join(["scale(a,2)"] * 1500) + ")", "-5y")
    yield json("sumSeries(" + ",".join(["scale(old.*,2)"] * 50) + ")", "-5y")
    for name in ("randomWalk", "timeFunction"):
        yield render(f'{name}("a",1)', format="json", **{"from": "0", "until": "4294967295"})
    yield json([f'sinFunction("a{i}",1,1)' for i in range(100)], "-1y")
    for call in ('summarize(%,"1s")', 'smartSummarize(%,"1s")', 'hitcount(%,"1s")', "interpolate(%)"):
        yield json(call.replace("%", "old.*"), "-5y")
    yield render('linearRegression(old.*,"00:00 20000101","00:00 20300101")', format="json",
                 **{"from": "0", "until": "4294967295"})
    yield json(nested("movingMedian(%,10000)", "old.*", 10), "-2y")
    yield json("movingMax(old.*,52000)", "-1y")
    yield json("stdev(old.*,50000)", "-2y")
    yield json(nested("holtWintersAberration(%)", "old.*", 4), "-2y")
    yield json(nested('timeStack(%,"1d",0,20)', "old.s1", 8))
    yield json('timeStack(old.s1,"1d",0,100000)')
    yield json(nested("movingAverage(stacked(%),3)", "old.s1", 30))
    yield json("asPercent(fine.*.*,fine.*.*)")
    yield json('applyByNode(fine.*.*,2,"sumSeries(**.%)")')


def texts():
    """Names and texts that grow."""
    ten = "\\1" * 10
    for levels in (6, 8, 11):
        yield json(nested(f'aliasSub(%,"(.*)","{ten}")', "old.s1", levels))
    yield json(nested('aliasSub(%,"","\\g<0>' + "x" * 24 + '")', "old.s1", 8))
    yield json("template(h." + "$a" * 10 + ',a="' + "$b" * 1000 + '",b="' + "$c" * 1000
               + '",c="' + "$d" * 1000 + '",d="xxxxxxxxxxxxxxxx")')
    doubling = [(f"template[{'a' * i}]", ("$" + "a" * (i + 1)) * 4) for i in range(1, 25)]
    yield "/render?" + urlencode([("target", "template(a." + "$a" * 100 + ")"), ("format", "json")]
                                 + doubling)
    yield render('alias(fine.*.*,"' + "x" * 5000 + '")', format="svg", hideLegend="false")
    yield json(nested('legendValue(%,"avg","max","min","last","si")', "fine.*.*", 30))
    yield json('aliasSub(evil.*,"(a+)+$","x")')
    yield json('grep(wide.*,"(a*)*(a*)*(a*)*(a*)*\\1b")')
    yield json('exclude(wide.*,"^(?=(a+)+b)")')
    yield json('grep(wide.*,"((((a{1,100}){1,100}){1,100}){1,100})")')


def pictures():
    """Pictures that take long to draw."""
    large = {"width": "4000", "height": "4000", "from": "-5y"}
    yield render("dashed(old.*,0.001)", **large)
    yield render(["alpha(lineWidth(a,3000),0.01)"] * 500, **large)
    yield render(["lineWidth(a,4000)"] * 500, **large)
    yield render(["old.*"] * 25, areaMode="stacked", **large)
    yield render("old.*", format="svg", **large)
    yield render("fine.*.*", width="4000", height="4000")
    yield render("old.*", width="1000000000", height="1000000000")
    yield render("a", fontSize="1000000000")
    yield render("dashed(old.s1,0.0000001)", lineWidth="1e38")
    yield render([f"a:{i}" for i in range(2000)], graphType="pie")


def finds():
    """Patterns that match much, or look as if they did."""
    many = "&".join(["query=**"] * 4000)
    yield "/metrics/expand?leavesOnly=1&" + many
    yield "/metrics/expand?leavesOnly=1&groupByExpr=1&" + many
    for pattern in ("{a,b}" * 40, "wide." + "{a,aa}" * 60 + "*", "wide." + "*a" * 60 + "z",
                    ".".join(["**"] * 40), "a." + ".".join(["**", "a"] * 60) + ".zz",
                    "wide." + "[a-z]*" * 80 + "!", "{" * 2000 + "a" + "}" * 2000):
        yield "/metrics/find?query=" + quote(pattern)
    yield "/metrics/index.json"
    yield "/tags/findSeries?" + "&".join(["expr=" + quote("host!=~(a*)*b")] * 100)
    yield "/tags/findSeries?expr=" + quote(r"x=~(a*)*\1b")
    yield json('groupByTags(seriesByTag("name=disk.used"),"sum","host","dc")')


KINDS = [list(kind()) for kind in (values, texts, pictures, finds)]


def fill(server):
    """What the requests ask for: fine, old, wide, tagged and odd names."""
    now = int(time.time())
    with socket.create_connection(server.host_port("carbon.line_tcp")) as connection:
        def send(lines):
            connection.sendall("".join(line + "\n" for line in lines).encode())

        send([f"a 1 {now}"])
        for i in range(3000):
            send(f"fine.h{i % 100}.m{i // 100} {i + j} {now - 21000 + j * 60}" for j in range(0, 350, 5))
        for i in range(60):
            send(f"old.s{i} {j % 77} {now - j * 600}" for j in range(1, 105000, 30))
        send(f"wide.{'a' * 200}{i} {i} {now}" for i in range(20000))
        send(f"disk.used;host=h{i};dc=dc{i % 10} {i} {now}" for i in range(20000))
        send([f"evil.{'a' * 40}! 1 {now}", f"evil.{'ab' * 100} 1 {now}"])

    def written():
        cached = [line for line in server.ask_bytes("/metrics").decode().splitlines()
                  if line.startswith("plumbago_carbon_cache_size ")]
        return float(cached[0].split()[1]) == 0 and counter(server, "carbon_metrics_received") > 390_000
    until(written, "the series to be written", seconds=180)


def counter(server, name):
    text = server.ask_bytes("/metrics").decode()
    found = re.search(rf"^plumbago_{name}_total(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    return float(found.group(1)) if found else 0.0


def status(server, key):
    with open(f"/proc/{server.process.pid}/status", encoding="utf8") as file:
        return int(re.search(rf"{key}:\s+(\d+)", file.read()).group(1)) // 1024


def cpu_seconds(server):
    """Of each thread that computes answers: flushes and files go on without requests."""
    tasks, seconds = f"/proc/{server.process.pid}/task", {}
    for task in os.listdir(tasks):
        try:
            with open(f"{tasks}/{task}/stat", encoding="utf8") as file:
                name, fields = file.read().rsplit(") ", 1)
        except FileNotFoundError:
            # A thread that was started for a while has ended.
            continue
        if "(render" in name:
            fields = fields.split()
            seconds[task] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


class Watch(threading.Thread):
    """Looks at memory and health until it is stopped."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.ended = threading.Event()
        self.most_mb = 0
        self.slowest = 0.0
        self.failed = []

    def run(self):
        host, port = self.server.host_port("render.http")
        while not self.ended.wait(0.05):
            self.most_mb = max(self.most_mb, status(self.server, "RssAnon"))
            begun = time.monotonic()
            try:
                connection = HTTPConnection(host, port, timeout=30)
                connection.request("GET", "/healthz")
                if connection.getresponse().status != 200:
                    self.failed.append("healthz")
                connection.close()
            except OSError as error:
                self.failed.append(repr(error))
            self.slowest = max(self.slowest, time.monotonic() - begun)


def ask(server, path, answers):
    host, port = server.host_port("render.http")
    connection = HTTPConnection(host, port, timeout=10 * TIMEOUT_S)
    try:
        if len(path) > 60_000 and path.startswith("/render?"):
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/render", path.split("?", 1)[1], form)
        else:
            connection.request("GET", path)
        answer = connection.getresponse()
        # Some clients leave in the middle of an answer.
        if random.random() < 0.1:
            answer.read(1000)
        else:
            while answer.read(1 << 20):
                pass
        answers.append(answer.status)
    except (OSError, HTTPException) as error:
        # An answer that takes longer than the timeout to format is broken off.
        answers.append(type(error).__name__)
    finally:
        connection.close()


def main():
    random.seed(7)
    settings = {
        "render__timeout": f"{TIMEOUT_S}s",
        "render__max_memory": f"{BUDGET_MB}MiB",
        "statsd__flush_interval": f"{FLUSH_S}s",
        # After the load its idle counters are not work for the server any more.
        "statsd__delete_idle_stats": "true",
    }
    # The files are created at once, without a wait for the second point of each series.
    settings["carbon__infer_step"] = "false"
    with Server(**settings) as server:
        fill(server)
        base_mb = status(server, "RssAnon")
        seconds = max(20, REQUESTS // 4) + 2 * FLUSH_S
        statsd = "%s:%s" % server.host_port("statsd.udp")
        admin = "%s:%s" % server.host_port("statsd.admin")
        load = subprocess.Popen(
            [BINARY, "load", "--statsd", statsd, "--admin", admin, "--rate", str(RATE), "--names", "10000",
             "--duration", f"{seconds}s", "--max-loss", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        watch = Watch(server)
        watch.start()
        time.sleep(2 * FLUSH_S)
        own_mb = watch.most_mb
        todo = [random.choice(random.choice(KINDS)) for _ in range(REQUESTS)]
        answers = []
        lock = threading.Lock()

        def work():
            while True:
                with lock:
                    if not todo:
                        return
                    path = todo.pop()
                ask(server, path, answers)

        begun = time.monotonic()
        workers = [threading.Thread(target=work) for _ in range(10)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took = time.monotonic() - begun
        watch.ended.set()
        watch.join()
        load_text, _ = load.communicate(timeout=seconds + 60)
        # Work that goes on without a client would show here; memory goes back within two seconds.
        time.sleep(2)
        before = cpu_seconds(server)
        time.sleep(2)
        idle = sum(after - before.get(task, 0) for task, after in cpu_seconds(server).items()) / 2
        statuses = {str(s): [str(a) for a in answers].count(str(s)) for s in set(answers)}
        panicked = counter(server, "render_panicked")
        print(f"{REQUESTS} requests in {took:.0f} s, answers {dict(sorted(statuses.items()))}")
        after_mb = status(server, "RssAnon")
        print(f"anonymous memory {base_mb} MB before, {own_mb} MB with metrics, at most {watch.most_mb} MB with "
              f"requests of {BUDGET_MB} MB, {after_mb} MB after; slowest /healthz {watch.slowest:.2f} s; "
              f"{idle:.1%} of a processor afterwards")
        print(load_text.strip().splitlines()[-1] if load_text.strip() else "load said nothing")
        wrong = []
        if load.returncode != 0:
            wrong.append(f"metrics were lost:\n{load_text}")
        if watch.failed:
            wrong.append(f"/healthz failed {len(watch.failed)} times: {watch.failed[0]}")
        if watch.slowest > 0.5:
            wrong.append(f"/healthz took {watch.slowest:.2f} s")
        if watch.most_mb > BUDGET_MB + own_mb:
            wrong.append(f"{watch.most_mb} MB of memory, {own_mb} MB without requests")
        if after_mb > base_mb + 200:
            wrong.append(f"{after_mb} MB of memory kept after the last answer")
        if idle > 0.2:
            wrong.append(f"{idle:.0%} of a processor busy after the last answer")
        if panicked or any(a == 500 for a in answers):
            wrong.append(f"{panicked} panics, answers {statuses}")
        if wrong:
            sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()

"""Runs hot_shots.mjs against a server and compares what arrived."""

import json
import os
import subprocess

from server import Server, biggest, check, last, until

with Server(statsd__tcp="127.0.0.1:0") as server:
    host, port = server.host_port("statsd.udp")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hot_shots.mjs")
    command = ["node", script, host, str(port), str(server.host_port("statsd.tcp")[1])]
    sent = json.loads(subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE).stdout)
    server.expect("stats_counts.node.hits", 30)
    server.expect("seriesByTag('name=stats_counts.node.tagged', 'code=200', 'env=prod')", 3)
    server.expect("stats.timers.node.wait.sum", 60)
    server.expect("stats.timers.node.size.count", 1)
    server.expect("stats.gauges.node.heap", 64.5, last)
    server.expect("stats.sets.node.users.count", 2, biggest)
    server.expect("stats_counts.buffered", 300)
    deploys = lambda: server.ask("/events/get_data", {"tags": "deploy", "from": "-5min"})
    until(deploys, "the event")
    # The client puts its prefix before titles, too.
    check("the event's title", [event["what"] for event in deploys()], ["node.node 5 deployed"])

    unicode = lambda: server.ask("/events/get_data", {"tags": "unicode", "from": "-5min"})
    until(lambda: len(unicode()) == 2, "events beyond ASCII")
    texts = {(event["what"], event["data"]) for event in unicode()}
    check("their titles and texts", texts, {("node.Köln", "v1.2 für alle"), ("node.🚀 日本", "erst\ndann | 🎉🎉")})

    for at in ("dog", "tele", "tcp"):
        def tagged(name, *more):
            tags = "".join(f", '{tag}'" for tag in ("global=yes",) + more)
            return f"seriesByTag('name={name}'{tags})"

        counts = lambda name: f"stats_counts.{at}.{name}.end"
        timers = lambda name, stat: f"stats.timers.{at}.{name}.end.{stat}"
        server.expect(tagged(counts("up"), "env="), 7.5)
        server.expect(tagged(counts("also"), "env="), 2.5)
        server.expect(tagged(counts("down"), "env="), -1)
        server.expect(tagged(counts("down"), "env=prod"), -4)
        server.expect(f"round({tagged(counts('sampled'))})", 2)
        server.expect(tagged(timers("exact", "sum"), "env="), 1.5)
        server.expect(tagged(timers("exact", "sum"), "env=prod"), 2.25)
        server.expect(tagged(timers("histogram", "sum")), 7.5)
        server.expect(tagged(timers("distribution", "sum")), 5.5)
        server.expect(tagged(f"stats.gauges.{at}.gauge.end"), 12.5, last)
        server.expect(tagged(f"stats.sets.{at}.set.end.count"), 2, biggest)
        for name, tag in {"since": "env=", "timed": "env=prod", "awaited": "env=", "spread": "env="}.items():
            server.expect(tagged(timers(name, "count"), tag), 1)
            server.expect(tagged(timers(name, "sum"), tag), sent["measured"][f"{at}.{name}"])
        server.expect(tagged(f"stats_counts.child.{at}.born.end", "child=yes"), 6)
    for name in ("stats_counts.dog.then.end", "stats.gauges.dog.then.end"):
        wanted = 6 if "counts" in name else 7.25
        target = f"seriesByTag('name={name}', 'global=yes')"
        server.expect(target, wanted)
        points = server.ask("/render", {"target": target, "from": "-5min", "format": "json"})[0]["datapoints"]
        step = points[1][1] - points[0][1]
        at = [stamp for value, stamp in points if value == wanted]
        check("a value with its own time keeps it", at, [(sent["now"] - 60) // step * step])
    for status, name in enumerate(("OK", "WARNING", "CRITICAL", "UNKNOWN")):
        gauge = f"stats.gauges.service_checks.dog.{name}.end"
        server.expect(f"seriesByTag('name={gauge}', 'a=b', 'global=yes')", status, last)
    full = lambda: server.ask("/events/get_data", {"tags": "full", "from": "-5min"})
    until(full, "the event with every field")
    event = full()[0]
    check("its time is the sender's", (event["what"], event["when"]), ("dog.full.end", sent["now"] - 30))
    server.expect("seriesByTag('name=stats_counts.agg.count', 'global=yes')", 1275)
    server.expect("seriesByTag('name=stats.gauges.agg.gauge', 'global=yes')", 50, last)
    server.expect("seriesByTag('name=stats.sets.agg.set.count', 'global=yes')", 7, biggest)
    bad = server.ask("/render", {"target": "stats.statsd.bad_lines.by_reason.*", "from": "-5min", "format": "json"})
    check("no line was bad", [series["target"] for series in bad], [])

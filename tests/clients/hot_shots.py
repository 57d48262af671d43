"""Runs hot_shots.mjs against a server and compares what arrived."""

import os
import subprocess

from server import Server, biggest, check, last, until

with Server() as server:
    host, port = server.host_port("statsd.udp")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hot_shots.mjs")
    subprocess.run(["node", script, host, str(port)], check=True, timeout=60)
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

"""PyPI statsd: UDP, TCP and Unix stream clients, pipelines, sets, gauge deltas."""

import os
import tempfile

import statsd

from server import Server, biggest, last

stream = os.path.join(tempfile.mkdtemp(), "statsd.stream")
with Server(statsd__tcp="127.0.0.1:0", statsd__unix_stream=stream) as server:
    host, port = server.host_port("statsd.udp")
    client = statsd.StatsClient(host, port, prefix="web")
    for _ in range(25):
        client.incr("requests")
    client.decr("requests", 5)
    client.incr("bytes", 512.5)
    client.timing("page", 120)
    client.timing("page", 80.5)
    client.gauge("users", 70)
    for user in ("ann", "bob", "ann"):
        client.set("visitors", user)
    server.expect("stats_counts.web.requests", 20)
    server.expect("stats_counts.web.bytes", 512.5)
    server.expect("stats.timers.web.page.sum", 200.5)
    server.expect("stats.timers.web.page.upper", 120, biggest)
    server.expect("stats.gauges.web.users", 70, last)
    server.expect("stats.sets.web.visitors.count", 2, biggest)
    client.gauge("users", -10, delta=True)
    server.expect("stats.gauges.web.users", 60, last)

    with client.pipeline() as pipe:
        for n in range(100):
            pipe.incr("piped")
            pipe.timing("steps", n)
    server.expect("stats_counts.web.piped", 100)
    server.expect("stats.timers.web.steps.count", 100)

    host, port = server.host_port("statsd.tcp")
    tcp = statsd.TCPStatsClient(host, port, prefix="tcp")
    for _ in range(1000):
        tcp.incr("calls")
    tcp.close()
    server.expect("stats_counts.tcp.calls", 1000)

    unix = statsd.UnixSocketStatsClient(stream, prefix="unix")
    for _ in range(1000):
        unix.incr("calls")
    unix.close()
    server.expect("stats_counts.unix.calls", 1000)

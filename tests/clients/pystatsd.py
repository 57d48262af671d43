"""PyPI statsd: every method, over UDP, TCP and Unix streams, directly and in pipelines. What the
client measures itself is compared with what it says it sent."""

import asyncio
import datetime
import os
import tempfile

import statsd

from server import Server, biggest, last


def drive(server, client, at):
    """Everything that `client`, whose prefix is `at`, can send."""
    measured = {}
    timing = client.timing

    def recorded(stat, delta, rate=1):
        measured.setdefault(stat, []).append(delta)
        timing(stat, delta, rate)

    client.timing = recorded
    client.incr("up")
    client.incr("up", 4)
    client.incr("up", count=0.5)
    client.decr("down")
    client.decr("down", 2)
    # One in a million samples is not sent.
    client.incr("sampled", 3, rate=0.999999)
    client.decr("sampled", 1, rate=0.999999)
    client.timing("sampled", 12, rate=0.999999)
    client.gauge("sampled", 5, rate=0.999999)
    client.set("sampled", "x", rate=0.999999)
    client.timing("exact", 1.5)
    client.timing("exact", datetime.timedelta(seconds=2, microseconds=250))
    client.gauge("level", 10)
    client.gauge("level", 2.5, delta=True)
    client.gauge("level", -4, delta=True)
    client.gauge("below", -8)
    client.gauge("below", -9.5, rate=1)
    client.set("members", 1)
    client.set("members", "one")
    client.set("members", 1)
    with client.timer("block"):
        pass
    timer = client.timer("held").start()
    timer.stop(send=False)
    timer.send()

    @client.timer("wrapped")
    def wrapped():
        pass

    @client.timer("awaited")
    async def awaited():
        pass

    wrapped()
    wrapped()
    asyncio.run(awaited())
    with client.pipeline() as pipe:
        pipe.incr("piped", 2)
        pipe.decr("piped")
        pipe.gauge("piped", -3)
        pipe.timing("piped", 7)
        pipe.set("piped", "a")
        with pipe.timer("piped"):
            pass
        with pipe.pipeline() as inner:
            inner.incr("inner", 6)
    pipe = client.pipeline()
    pipe.incr("sent")
    pipe.send()
    client.close()

    for name, wanted in {"up": 5.5, "down": -3, "piped": 1, "inner": 6, "sent": 1}.items():
        server.expect(f"stats_counts.{at}.{name}", wanted)
    server.expect(f"round(stats_counts.{at}.sampled)", 2)
    server.expect(f"stats.timers.{at}.sampled.sum", 12)
    server.expect(f"round(stats.timers.{at}.sampled.count)", 1)
    server.expect(f"stats.timers.{at}.exact.sum", 1.5 + 2000.25)
    server.expect(f"stats.timers.{at}.exact.upper", 2000.25, biggest)
    for name, wanted in {"sampled": 5, "level": 8.5, "below": -9.5, "piped": -3}.items():
        server.expect(f"stats.gauges.{at}.{name}", wanted, last)
    for name, wanted in {"sampled": 1, "members": 2, "piped": 1}.items():
        server.expect(f"stats.sets.{at}.{name}.count", wanted, biggest)
    server.expect(f"stats.timers.{at}.piped.count", 2)
    for name, count in {"block": 1, "held": 1, "wrapped": 2, "awaited": 1}.items():
        server.expect(f"stats.timers.{at}.{name}.count", count)
        # The client sends six decimals.
        sent = sum(float("%0.6f" % ms) for ms in measured[name])
        server.expect(f"stats.timers.{at}.{name}.sum", sent)


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

    drive(server, statsd.StatsClient(*server.host_port("statsd.udp"), prefix="all.udp"), "all.udp")
    drive(server, statsd.TCPStatsClient(host, port, prefix="all.tcp"), "all.tcp")
    drive(server, statsd.UnixSocketStatsClient(stream, prefix="all.unix"), "all.unix")

"""PyPI datadog: every method, with tags, time stamps, sample rates and cardinality, over UDP and
over Unix sockets, datagrams and stream, directly, buffered and aggregated by the client. What the client
measures itself is compared with what it says it sent."""

import os
import tempfile
import time

from datadog.dogstatsd import DogStatsd

from server import Server, check, last, until

sockets = tempfile.mkdtemp()
datagrams, stream = os.path.join(sockets, "dsd.socket"), os.path.join(sockets, "dsd.stream")
with Server(statsd__unix=datagrams, statsd__unix_stream=stream) as server:
    host, port = server.host_port("statsd.udp")
    client = DogStatsd(host=host, port=port, disable_telemetry=True, disable_buffering=True)
    for code in (200, 200, 500):
        client.increment("api.hits", tags=[f"code:{code}", "env:prod"])
    client.gauge("api.load", 0.75, tags=["env:prod"])
    for ms in (5, 15):
        client.histogram("api.time", ms, tags=["env:prod"])
        client.distribution("api.size", ms * 100, tags=["env:prod"])
    client.set("api.users", "ann", tags=["env:prod"])
    client.increment("plain")
    client.flush()
    server.expect("seriesByTag('name=stats_counts.api.hits', 'code=200', 'env=prod')", 2)
    server.expect("seriesByTag('name=stats_counts.api.hits', 'code=500')", 1)
    server.expect("seriesByTag('name=stats.gauges.api.load', 'env=prod')", 0.75, last)
    server.expect("seriesByTag('name=stats.timers.api.time.sum', 'env=prod')", 20)
    server.expect("seriesByTag('name=stats.timers.api.size.count', 'env=prod')", 2)
    server.expect("stats_counts.plain", 1)

    client.event("api 3.1 deployed", "by the pipeline | with a bar\nand a line", tags=["deploy", "env:prod"])
    client.service_check("api.alive", DogStatsd.OK, tags=["env:prod"])

    def deploys():
        return server.ask("/events/get_data", {"tags": "deploy", "from": "-5min"})

    until(lambda: deploys(), "the event")
    check("the event's title", [event["what"] for event in deploys()], ["api 3.1 deployed"])
    assert "with a bar\nand a line" in deploys()[0]["data"], deploys()

    # A Unix socket queues few datagrams; with a timeout the client waits instead of dropping.
    unix = DogStatsd(socket_path=datagrams, socket_timeout=5, disable_telemetry=True, disable_buffering=True)
    for _ in range(50):
        unix.increment("local.calls")
    unix.flush()
    server.expect("stats_counts.local.calls", 50)

    # Over a stream the client writes the length of each packet before it: packets of every length,
    # one line in each, then many.
    framed = DogStatsd(socket_path="unixstream://" + stream, socket_timeout=5, disable_telemetry=True, disable_buffering=True)
    for length in range(5, 125):
        framed.increment("framed." + "x" * length)
    framed.event("framed événement", "v1.2 für\nalle 🎉", tags=["framed"])
    framed.service_check("framed.check", DogStatsd.WARNING, tags=["a:b"])
    framed.flush()
    many = DogStatsd(socket_path="unixstream://" + stream, socket_timeout=5, disable_telemetry=True, disable_buffering=False)
    for number in range(2_000):
        many.increment("streamed", tags=[f"part:{number % 7}"])
    many.flush()
    server.expect("seriesByTag('name=stats.gauges.service_checks.framed.check', 'a=b')", 1, last)
    server.expect("sumSeries(seriesByTag('name=stats_counts.streamed'))", 2_000)
    counts = lambda: server.ask("/render", {"target": "stats_counts.framed.*", "from": "-5min", "format": "json"})
    sums = lambda: {series["target"]: sum(value or 0 for value, _ in series["datapoints"]) for series in counts()}
    until(lambda: len(sums()) >= 120, "120 counters", sums)
    check("each counter", sums(), {"stats_counts.framed." + "x" * length: 1 for length in range(5, 125)})
    found = lambda: server.ask("/events/get_data", {"tags": "framed", "from": "-5min"})
    until(found, "the event of the stream")
    check("its text", [(event["what"], event["data"]) for event in found()], [("framed événement", "v1.2 für\nalle 🎉")])
    framed.close_socket()
    many.close_socket()

    buffered = DogStatsd(host=host, port=port, disable_telemetry=True, disable_buffering=False)
    for _ in range(500):
        buffered.increment("many")
    buffered.flush()
    server.expect("stats_counts.many", 500)

    # Everything once, with what a line can carry.
    every = DogStatsd(
        host=host,
        port=port,
        namespace="ns",
        constant_tags=["env:prod"],
        disable_telemetry=True,
        disable_buffering=True,
        container_id="abc123",
        cardinality="low",
    )
    measured = {}
    report = every._report

    def recorded(metric, metric_type, value, *rest, **more):
        measured.setdefault(metric, []).append(value)
        return report(metric, metric_type, value, *rest, **more)

    every._report = recorded
    now = int(time.time())
    every.count("count", 5)
    every.count("count", -2, tags=["env:prod"], sample_rate=1)
    every.increment("up", 3, cardinality="high")
    every.decrement("up", 1)
    every.increment("sampled", 2, sample_rate=0.999999)
    every.histogram("sampled", 4, sample_rate=0.999999)
    every.gauge("gauge", -7.5)
    every.gauge("gauge.minus", 1)
    every.histogram("histogram", 1.5)
    every.histogram("histogram", 2)
    every.distribution("distribution", 2.5)
    every.timing("timing", 3.5)
    every.set("set", "ann")
    every.set("set", 7)
    every.count_with_timestamp("count.then", 6, now - 60)
    every.gauge_with_timestamp("gauge.then", 7.25, now - 60)
    with every.timed("timed", use_ms=True):
        pass
    with every.distributed("distributed"):
        pass

    @every.timed("timed.function")
    def timed():
        pass

    @every.distributed("distributed.function", tags=["env:prod"])
    def distributed():
        pass

    timed()
    distributed()
    series = lambda name: f"seriesByTag('name={name}', 'env=prod')"
    for name, wanted in {
        "stats_counts.ns.count": 3,
        "stats_counts.ns.up": 2,
        "stats.timers.ns.histogram.sum": 3.5,
        "stats.timers.ns.histogram.count": 2,
        "stats.timers.ns.distribution.sum": 2.5,
        "stats.timers.ns.timing.sum": 3.5,
        "stats_counts.ns.count.then": 6,
        "stats.gauges.ns.gauge.then": 7.25,
    }.items():
        server.expect(series(name), wanted)
    server.expect(f"round({series('stats_counts.ns.sampled')})", 2)
    server.expect(f"round({series('stats.timers.ns.sampled.count')})", 1)
    server.expect(series("stats.timers.ns.sampled.sum"), 4)
    # DogStatsD's gauges know no differences, StatsD's do: what is sent is -7.5 from nothing.
    server.expect(series("stats.gauges.ns.gauge"), -7.5, last)
    server.expect(series("stats.sets.ns.set.count"), 2, lambda values: max(values))
    for name in ("timed", "distributed", "timed.function", "distributed.function"):
        server.expect(series(f"stats.timers.ns.{name}.count"), 1)
        server.expect(series(f"stats.timers.ns.{name}.sum"), sum(measured[name]))
    then = server.ask("/render", {"target": series("stats_counts.ns.count.then"), "from": "-5min", "format": "json"})
    points = then[0]["datapoints"]
    step = points[1][1] - points[0][1]
    at = [stamp for value, stamp in points if value == 6]
    check("a value with its own time keeps it", at, [(now - 60) // step * step])

    for status, name in enumerate(("OK", "WARNING", "CRITICAL", "UNKNOWN")):
        level = getattr(DogStatsd, name)
        every.service_check(f"check.{name}", level, timestamp=now, hostname="h1", message="so it is", tags=["a:b"])
        server.expect(f"seriesByTag('name=stats.gauges.service_checks.check.{name}', 'a=b', 'env=prod')", status, last)
    every.event(
        "every field",
        "of an event",
        alert_type="warning",
        aggregation_key="key",
        source_type_name="source",
        date_happened=now - 30,
        priority="low",
        hostname="h1",
        tags=["full"],
    )
    full = lambda: server.ask("/events/get_data", {"tags": "full", "from": "-5min"})
    until(full, "the event with every field")
    check("its time is the sender's", [(event["what"], event["when"]) for event in full()], [("every field", now - 30)])

    # What the client aggregates itself comes packed: many values in one line.
    packed = DogStatsd(host=host, port=port, disable_telemetry=True, disable_aggregation=False, max_metric_samples_per_context=100)
    for value in range(1, 51):
        packed.increment("packed.count", value)
        packed.gauge("packed.gauge", value)
        packed.set("packed.set", value % 7)
        packed.histogram("packed.histogram", value)
        packed.distribution("packed.distribution", value)
        packed.timing("packed.timing", value)
    packed.flush_aggregated_metrics()
    packed.flush()
    server.expect("stats_counts.packed.count", 1275)
    server.expect("stats.gauges.packed.gauge", 50, last)
    server.expect("stats.sets.packed.set.count", 7, lambda values: max(values))
    for kind in ("histogram", "distribution", "timing"):
        server.expect(f"stats.timers.packed.{kind}.sum", 1275)
        server.expect(f"stats.timers.packed.{kind}.count", 50)

    with DogStatsd(host=host, port=port, disable_telemetry=True) as batch:
        batch.increment("batch", 2)
        batch.gauge("batch", 3)
    server.expect("stats_counts.batch", 2)
    server.expect("stats.gauges.batch", 3, last)

    background = DogStatsd(host=host, port=port, disable_telemetry=True, disable_buffering=True)
    background.enable_background_sender()
    for _ in range(100):
        background.increment("background")
    background.wait_for_pending()
    background.stop()
    server.expect("stats_counts.background", 100)

    # The client's own metrics about itself.
    talkative = DogStatsd(host=host, port=port, disable_telemetry=False, disable_buffering=True, telemetry_min_flush_interval=0)
    talkative.increment("talk")
    talkative.increment("talk")
    talkative.flush()
    server.expect("stats_counts.talk", 2)
    server.expect("sumSeries(seriesByTag('name=stats_counts.datadog.dogstatsd.client.metrics'))", 2)

    bad = server.ask("/render", {"target": "stats.statsd.bad_lines.by_reason.*", "from": "-5min", "format": "json"})
    check("no line was bad", [series["target"] for series in bad], [])

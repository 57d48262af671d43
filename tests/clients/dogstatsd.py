"""PyPI datadog: tags, histograms, distributions, packed values, events, service checks, over UDP
and over a Unix datagram socket."""

import os
import tempfile

from datadog.dogstatsd import DogStatsd

from server import Server, check, last, until

datagrams = os.path.join(tempfile.mkdtemp(), "dsd.socket")
with Server(statsd__unix=datagrams) as server:
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

    buffered = DogStatsd(host=host, port=port, disable_telemetry=True, disable_buffering=False)
    for _ in range(500):
        buffered.increment("many")
    buffered.flush()
    server.expect("stats_counts.many", 500)

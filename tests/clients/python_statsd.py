"""PyPI python-statsd: Counter, Gauge, Timer, Average and Raw, every method of theirs, the way its
documentation does it. What the client measures itself is compared with what it says it sent."""

import decimal
import time

import statsd

from server import Server, biggest, check, last, until

with Server() as server:
    host, port = server.host_port("statsd.udp")
    statsd.Connection.set_defaults(host=host, port=port)

    sent = {}
    send = statsd.Connection.send

    def recorded(self, data, *rest):
        for name, text in data.items():
            sent.setdefault(name, []).append(text)
        return send(self, data, *rest)

    statsd.Connection.send = recorded

    def milliseconds(name):
        return sum(float(text.partition("|")[0]) for text in sent[name])

    counter = statsd.Counter("app")
    for _ in range(10):
        counter.increment("logins")
    counter.increment("logins", 5)
    counter.decrement("logins", 3)
    counter += 2
    server.expect("stats_counts.app.logins", 12)
    server.expect("stats_counts.app", 2)

    counter -= 1
    counter.increment(delta=4.9)
    counter.decrement()
    statsd.increment("app.direct", 7)
    statsd.decrement("app.direct", 2.5)
    statsd.increment("app.direct")
    server.expect("stats_counts.app", 2 - 1 + 4 - 1)
    server.expect("stats_counts.app.direct", 7 - 2 + 1)

    # One in a million samples is not sent.
    rare = statsd.Connection(sample_rate=0.999999)
    sampled = statsd.Counter("sampled", rare)
    for _ in range(20):
        sampled.increment("hits")
    server.expect("round(stats_counts.sampled.hits)", 20)
    statsd.Gauge("sampled", rare).send("level", 3)
    statsd.Timer("sampled", rare).send("time", 0.25)
    statsd.Average("sampled", rare).send("mean", 8)
    statsd.Raw("sampled", rare).send("raw", 9, int(time.time()) - 20)
    server.expect("stats.gauges.sampled.level", 3, last)
    server.expect("stats.timers.sampled.time.sum", 250)
    server.expect("round(stats.timers.sampled.time.count)", 1)
    server.expect("stats.averages.sampled.mean", 8)
    server.expect("sampled.raw", 9)

    gauge = statsd.Gauge("app")
    gauge.send("queue", 42)
    server.expect("stats.gauges.app.queue", 42, last)
    gauge.increment("queue", 8)
    server.expect("stats.gauges.app.queue", 50, last)

    gauge.decrement("queue", 60)
    server.expect("stats.gauges.app.queue", -10, last)
    gauge.set("queue", -7)
    server.expect("stats.gauges.app.queue", -7, last)
    gauge.set("queue", decimal.Decimal("2.25"))
    server.expect("stats.gauges.app.queue", 2.25, last)
    # The client itself sends a negative number as a difference.
    gauge.send("queue", -0.5)
    server.expect("stats.gauges.app.queue", 1.75, last)
    gauge += 5
    gauge -= 2
    gauge.increment()
    server.expect("stats.gauges.app", 4, last)

    timer = statsd.Timer("app")
    for ms in (10, 20, 30, 40):
        timer.send("login", ms / 1000)
    server.expect("stats.timers.app.login.count", 4)
    server.expect("stats.timers.app.login.sum", 100)
    server.expect("stats.timers.app.login.upper", 40, biggest)
    running = statsd.Timer("app").start()
    running.intermediate("step")
    running.stop()
    with statsd.Timer("block"):
        pass
    timed = statsd.Timer("timed")

    @timed.decorate
    def plain():
        pass

    @timed.decorate("named")
    def other():
        pass

    for _ in range(3):
        plain()
        other()
    with timed.time("part"):
        pass
    with timed.time():
        pass
    for name, count in {
        "app.total": 1,
        "app.step": 1,
        "block.total": 1,
        "timed.plain": 3,
        "timed.named": 3,
        "timed.part": 1,
        "timed": 1,
    }.items():
        server.expect(f"stats.timers.{name}.count", count)
        server.expect(f"stats.timers.{name}.sum", milliseconds(name))
    quick = statsd.Timer("quick", min_send_threshold=1000)
    quick.send("dropped", 0.5)
    quick.send("kept", 1.5)
    server.expect("stats.timers.quick.kept.sum", 1500)
    check("what is below the threshold is not sent", "quick.dropped" in sent, False)

    client = statsd.Client("made")
    client.get_counter("counter").increment(delta=3)
    client.get_gauge("gauge").send(None, 4)
    client.get_timer("timer").send("x", 0.005)
    client.get_average("average").send(None, 6)
    client.get_raw("raw").send(None, 7.5)
    client.get_client("sub", statsd.Counter).increment("counter")
    server.expect("stats_counts.made.counter", 3)
    server.expect("stats.gauges.made.gauge", 4, last)
    server.expect("stats.timers.made.timer.x.sum", 5)
    server.expect("stats.averages.made.average", 6)
    server.expect("made.raw", 7.5)
    server.expect("stats_counts.made.sub.counter", 1)

    average = statsd.Average("app")
    try:
        average.send("load", "somekey:%d".format(5))
    except ValueError as error:
        print(f"ok   the documentation's own example fails in the client: {error}")
    # The client cuts what it is given to an integer: 5.7 is sent as 5.
    average.send("load", 5.7)
    server.expect("stats.averages.app.load", 5, last)

    raw = statsd.Raw("app")
    now = int(time.time())
    raw.send("measured", 12.5, now - 60)
    raw.send("measured", 13.5, now - 30.25)
    server.expect("app.measured", 26)
    datapoints = server.ask("/render", {"target": "app.measured", "from": "-5min", "format": "json"})[0]["datapoints"]
    at = {value: stamp for value, stamp in datapoints if value is not None}
    step = datapoints[1][1] - datapoints[0][1]
    check("raw values keep their time", at[12.5], (now - 60) // step * step)

    server.ask_bytes("/events/", body={"what": "app 2.0", "tags": "deploy", "data": "by hand"})
    events = server.ask("/events/get_data", {"tags": "deploy", "from": "-5min"})
    check("the deploy is kept", [event["what"] for event in events], ["app 2.0"])
    query = {"target": "stats_counts.app.logins", "from": "-2min", "width": 586, "height": 308}
    svg = lambda **more: server.ask_bytes("/render", dict(query, format="svg", **more)).decode()
    # A picture reaches up to the present second, in which the deploy was posted.
    until(lambda: "app 2.0" in svg(events="deploy"), "the line")
    assert "app 2.0" not in svg()
    png = server.ask_bytes("/render", dict(query, format="png", events="deploy"))
    check("the picture is a PNG", png[:8], b"\x89PNG\r\n\x1a\n")
    assert png != server.ask_bytes("/render", dict(query, format="png"))
    print("ok   the deploy is on the pictures")

    server.stop()
    server.start()
    server.expect("stats_counts.app.logins", 12)
    server.expect("stats.gauges.app.queue", 1.75, last)
    events = server.ask("/events/get_data", {"tags": "deploy", "from": "-5min"})
    check("the deploy survives a restart", [event["what"] for event in events], ["app 2.0"])

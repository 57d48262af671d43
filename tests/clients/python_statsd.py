"""PyPI python-statsd: Counter, Gauge, Timer, Average and Raw, the way its documentation does it."""

import time

import statsd

from server import Server, biggest, check, last, until

with Server() as server:
    host, port = server.host_port("statsd.udp")
    statsd.Connection.set_defaults(host=host, port=port)

    counter = statsd.Counter("app")
    for _ in range(10):
        counter.increment("logins")
    counter.increment("logins", 5)
    counter.decrement("logins", 3)
    counter += 2
    server.expect("stats_counts.app.logins", 12)
    server.expect("stats_counts.app", 2)

    sampled = statsd.Counter("sampled", statsd.Connection(sample_rate=0.999999))
    for _ in range(20):
        sampled.increment("hits")
    server.expect("round(stats_counts.sampled.hits)", 20)

    gauge = statsd.Gauge("app")
    gauge.send("queue", 42)
    server.expect("stats.gauges.app.queue", 42, last)
    gauge.increment("queue", 8)
    server.expect("stats.gauges.app.queue", 50, last)

    timer = statsd.Timer("app")
    for ms in (10, 20, 30, 40):
        timer.send("login", ms / 1000)
    server.expect("stats.timers.app.login.count", 4)
    server.expect("stats.timers.app.login.sum", 100)
    server.expect("stats.timers.app.login.upper", 40, biggest)
    running = statsd.Timer("app").start()
    running.intermediate("step")
    running.stop()
    server.expect("stats.timers.app.total.count", 1)
    server.expect("stats.timers.app.step.count", 1)

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
    server.expect("stats.gauges.app.queue", 50, last)
    events = server.ask("/events/get_data", {"tags": "deploy", "from": "-5min"})
    check("the deploy survives a restart", [event["what"] for event in events], ["app 2.0"])

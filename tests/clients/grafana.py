"""The requests that Grafana's Graphite data source sends, and what it needs of the answers."""

import json
import time
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from server import Server, check, until

with Server() as server:
    host, port = server.host_port("render.http")
    base = f"http://{host}:{port}"

    def post(path, **fields):
        body = urlencode(fields, doseq=True).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Dashboard-Id": "1"}
        with urlopen(Request(base + path, body, headers), timeout=20) as answer:
            return json.loads(answer.read())

    # Save and test, on an empty server.
    now = int(time.time())
    health = post("/render", target="constantLine(100)", **{"from": now - 3600, "until": now}, format="json", maxDataPoints=300)
    check("the health check", health[0]["datapoints"][0][0], 100)
    # The server's own series have the tag name.
    tags = server.ask("/tags/autoComplete/tags", {"tagPrefix": "", "limit": 5000})
    check("an empty server has no other tags", [tag for tag in tags if tag != "name"], [])

    server.lines([f"web.{name}.hits {value} {now - 60 * n}" for n in range(30) for name, value in (("a", 1), ("b", 2))])
    server.lines([f"hits;dc=eu;host=a 5 {now - 60}"])
    until(lambda: len(server.values("web.b.hits", "-1h")) == 30, "the data")

    wrapped = 'aliasSub(sumSeries(web.*.hits), "(^.*$)", "\\1 A")'
    series = post("/render", target=[wrapped], **{"from": now - 3600, "until": now}, format="json", maxDataPoints=1236)
    check("the wrapped name ends with the query's letter", series[0]["target"], "sumSeries(web.*.hits) A")
    check("the sum", max(value for value, _ in series[0]["datapoints"] if value is not None), 3)

    found = post("/metrics/find", query="web.*")
    check("the tree", [(node["text"], node["expandable"]) for node in found], [("a", 1), ("b", 1)])
    check("a variable", server.ask("/metrics/expand", {"query": "web.*"})["results"], ["web.a", "web.b"])
    until(lambda: "dc" in server.ask("/tags/autoComplete/tags", {"tagPrefix": "d"}), "the tag")
    check("tag values", server.ask("/tags/autoComplete/values", {"expr": "dc=eu", "tag": "host"}), ["a"])
    functions = server.ask("/functions")
    check("the function list", functions["sumSeries"]["group"], "Combine")
    version = server.ask_bytes("/version").decode()
    check("a version that parses", len(version.split(".")), 3)

    server.ask_bytes("/events/", body={"what": "web 2", "tags": ["deploy", "web"], "data": "by ann"})
    events = server.ask("/events/get_data", {"from": now - 60, "until": now + 60, "tags": "deploy web"})
    check("annotations", [(event["what"], event["data"]) for event in events], [("web 2", "by ann")])
    assert isinstance(events[0]["when"], (int, float))

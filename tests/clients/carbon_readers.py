"""graphite-web in front of the server, as an operator would keep it: once with CLUSTER_SERVERS, where it
asks for everything over HTTP, and once over the same whisper files with CARBONLINK_HOSTS, where it sees
datapoints that are not in their files yet. Its answers are the server's own."""

import json
import os
import sys
import time
from urllib.parse import quote, unquote

import whisper

from graphite_web import Graphite
from server import Server, check, until


def normal(answer):
    """Series and nodes without an order."""
    if answer and isinstance(answer, list):
        return sorted(answer, key=lambda one: one["target"] if "target" in one else json.dumps(one, sort_keys=True))
    return answer


def compare(what, server, graphite, path):
    ours, theirs = server.ask(path), graphite.get(path)
    if not ours:
        sys.exit(f"{what}: {path}: the server's own answer is empty")
    check(f"{what}: {unquote(path)}", normal(theirs), normal(ours))


def render(target, start, end):
    return f"/render?format=json&from={start}&until={end}&target={quote(target)}"


def cluster(server, tree, start, end):
    with Graphite(server.path("cluster"), tree, cluster=["%s:%d" % server.host_port("render.http")]) as graphite:
        for query in ("query=*", "query=web.*", "query=web.*.*", "query=web.{a,h1}.h*", "query=web.&format=completer"):
            compare("CLUSTER_SERVERS", server, graphite, f"/metrics/find?{query}")
        compare("CLUSTER_SERVERS", server, graphite, "/metrics/expand?query=web.*.hits&leavesOnly=1")
        for target in (
            "web.h1.hits", "web.h{1,2,3}.hits", "sumSeries(web.*.hits)", "aliasByNode(highestMax(web.*.hits,3),1)",
            "movingAverage(web.h2.hits,5)", "summarize(web.h3.hits,'10s','sum')", "timeShift(web.h4.hits,'10s')",
            'seriesByTag("name=hits","dc=eu")', 'groupByTags(seriesByTag("name=hits"),"sum","dc")',
        ):
            compare("CLUSTER_SERVERS", server, graphite, render(target, start, end))


def in_files(tree, start, end):
    """How many datapoints of the range are in the files of web.*."""
    count = 0
    for number in range(SERIES):
        _, values = whisper.fetch(os.path.join(tree, "web", f"h{number}", "hits.wsp"), start, end)
        count += sum(value is not None for value in values)
    return count


def carbonlink(server, tree, start, end):
    host, port = server.host_port("carbon.carbonlink")
    with Graphite(server.path("carbonlink"), tree, carbonlink=[f"{host}:{port}"]) as graphite:
        for target in ("web.*.hits", "sumSeries(web.*.hits)", "web.h7.hits"):
            compare("CARBONLINK_HOSTS", server, graphite, render(target, start, end))
        compare("CARBONLINK_HOSTS", server, graphite, "/metrics/find?query=web.*")
        answer = graphite.get(render("web.*.hits", start, end))
        seen = sum(value is not None for series in answer for value, _ in series["datapoints"])
        stored = in_files(tree, start, end)
        check("CARBONLINK_HOSTS: all datapoints are seen", seen, 30 * SERIES)
        check(f"CARBONLINK_HOSTS: {stored} of them are in files", 0 < stored < seen, True)


SERIES = 300
plumbago = Server(stats__self="false", carbon__max_updates_per_second="2", carbon__drain_timeout="1s")
plumbago.settings["carbon.carbonlink"] = "127.0.0.1:0"
whisper_dir = plumbago.settings["carbon.whisper_dir"] = plumbago.path("whisper")
now = int(time.time())
for n in range(SERIES):
    # Each file has one of the datapoints.
    file = plumbago.path("whisper", "web", f"h{n}", "hits.wsp")
    os.makedirs(os.path.dirname(file))
    whisper.create(file, [(1, 3600), (60, 10080)], xFilesFactor=0.0)
    whisper.update(file, n + 30.0, now - 30)
with plumbago:
    plumbago.lines([f"web.h{n}.hits {n + age} {now - age}" for n in range(SERIES) for age in range(1, 30)])
    plumbago.lines([f"hits;dc={dc};host=h{n} {n} {now - n}" for dc in ("eu", "us") for n in range(30)])
    until(lambda: len(plumbago.values("web.h299.hits")) == 30, "the plain series")
    until(lambda: len(plumbago.ask("/tags/findSeries", {"expr": "name=hits"})) == 60, "the tagged series")
    carbonlink(plumbago, whisper_dir, now - 31, now)
    cluster(plumbago, whisper_dir, now - 31, now)

"""carbonapi in front: the requests that its back ends get, in carbonapi_v2_pb and carbonapi_v3_pb,
decoded by the protobuf package. Where CARBONAPI names the program, it is started in front of the
server with each protocol and its answers are compared with the server's own."""

import json
import math
import os
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from server import Server, check, until

VERSION_3 = "application/x-carbonapi-v3-pb"
VERSION_2 = "application/x-protobuf"


def messages(package, shapes):
    """Message classes by name, from `field:number:type` lists; a type in capitals is a message,
    one that ends in * is repeated."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            field, number, kind = field.split(":")
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            entry = message.field.add(name=field, number=int(number), label=3 if repeated else 1)
            if kind[0].isupper():
                entry.type, entry.type_name = 11, f".{package}.{kind}"
            else:
                entry.type = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in shapes}


V2 = messages("v2", {
    "FetchResponse": "name:1:string startTime:2:int32 stopTime:3:int32 stepTime:4:int32 values:5:double* isAbsent:6:bool*",
    "MultiFetchResponse": "metrics:1:FetchResponse*",
    "GlobMatch": "path:1:string isLeaf:2:bool",
    "GlobResponse": "name:1:string matches:2:GlobMatch*",
    "Retention": "secondsPerPoint:1:int32 numberOfPoints:2:int32",
    "InfoResponse": "name:1:string aggregationMethod:2:string maxRetention:3:int32 xFilesFactor:4:float retentions:5:Retention*",
})
V3 = messages("v3", {
    "CapabilityResponse": "supportedProtocols:1:string* name:2:string highPrecisionTimestamps:3:bool supportFilteringFunctions:4:bool likeSplittedRequests:5:bool supportStreaming:6:bool",
    "FetchRequest": "name:1:string startTime:2:int64 stopTime:3:int64 highPrecisionTimestamps:4:bool pathExpression:5:string maxDataPoints:7:int64",
    "MultiFetchRequest": "metrics:1:FetchRequest*",
    "FetchResponse": "name:1:string pathExpression:2:string consolidationFunc:3:string startTime:4:int64 stopTime:5:int64 stepTime:6:int64 xFilesFactor:7:float highPrecisionTimestamps:8:bool values:9:double* appliedFunctions:10:string* requestStartTime:11:int64 requestStopTime:12:int64",
    "MultiFetchResponse": "metrics:1:FetchResponse*",
    "MultiGlobRequest": "metrics:1:string* startTime:2:int64 stopTime:3:int64",
    "GlobMatch": "path:1:string isLeaf:2:bool",
    "GlobResponse": "name:1:string matches:2:GlobMatch*",
    "MultiGlobResponse": "metrics:1:GlobResponse*",
    "Retention": "secondsPerPoint:1:int64 numberOfPoints:2:int64",
    "MetricsInfoResponse": "name:1:string consolidationFunc:2:string maxRetention:3:int64 xFilesFactor:4:float retentions:5:Retention*",
    "MultiMetricsInfoResponse": "metrics:1:MetricsInfoResponse*",
})


def ask(url, accept, body=None):
    """The status, type and body of the answer to a GET, with a body as carbonapi sends it."""
    request = Request(url, body, {"Accept": accept, "Content-Type": ""}, method="GET")
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def decoded(kind, answer, content_type):
    status, found, body = answer
    assert (status, found) == (200, content_type), answer
    message = kind()
    message.ParseFromString(body)
    return message


def own(server, target, start, end):
    """The series of /render in JSON, by name: times and values."""
    query = {"target": target, "from": start, "until": end, "format": "json"}
    return {series["target"]: series["datapoints"] for series in server.ask("/render", query)}


def points(metric, absent):
    """A message's values as the datapoints of JSON."""
    times = range(metric.startTime, metric.stopTime, metric.stepTime)
    return [[None if absent(index) else value, at] for index, (value, at) in enumerate(zip(metric.values, times))]


def version_2(server, base, start, end):
    for target in ("web.*.hits", "web.a.hits", 'seriesByTag("name=hits")'):
        query = urlencode({"target": target, "format": "protobuf", "from": start, "until": end})
        answer = decoded(V2["MultiFetchResponse"], ask(f"{base}/render/?{query}", VERSION_2), VERSION_2)
        got = {metric.name: points(metric, lambda index: metric.isAbsent[index]) for metric in answer.metrics}
        check(f"version 2: the values of {target}", got, own(server, target, start, end))
    found = decoded(V2["GlobResponse"], ask(f"{base}/metrics/find/?query=web.*&format=protobuf", VERSION_2), VERSION_2)
    check("version 2: find", [(match.path, match.isLeaf) for match in found.matches], [("web.a", False), ("web.b", False)])
    info = decoded(V2["InfoResponse"], ask(f"{base}/info/?target=web.a.hits&format=protobuf", VERSION_2), VERSION_2)
    check("version 2: info", (info.aggregationMethod, info.retentions[0].secondsPerPoint), ("Average", 1))
    check("version 2: nothing is a 404", ask(f"{base}/render/?target=no.*&format=protobuf&from={start}&until={end}", VERSION_2)[0], 404)


def version_3(server, base, start, end):
    capabilities = decoded(V3["CapabilityResponse"], ask(f"{base}/_internal/capabilities/", VERSION_3, b""), VERSION_3)
    check("auto takes version 3", capabilities.supportedProtocols[0], "carbonapi_v3_pb")
    request = V3["MultiFetchRequest"]()
    targets = ["web.*.hits", "web.a.hits", 'seriesByTag("name=hits")', "no.*"]
    for target in targets:
        request.metrics.add(name=target, startTime=start, stopTime=end, pathExpression=target, maxDataPoints=9)
    answer = decoded(
        V3["MultiFetchResponse"],
        ask(f"{base}/render/?format=carbonapi_v3_pb", VERSION_3, request.SerializeToString()),
        VERSION_3,
    )
    for target in targets:
        metrics = [metric for metric in answer.metrics if metric.pathExpression == target]
        got = {metric.name: points(metric, lambda index: math.isnan(metric.values[index])) for metric in metrics}
        check(f"version 3: the values of {target}", got, own(server, target, start, end))
    first = answer.metrics[0]
    check("version 3: the request's range comes back", (first.requestStartTime, first.requestStopTime), (start, end))
    request = V3["MultiGlobRequest"](metrics=["web.*.hits", "web.*"])
    found = decoded(V3["MultiGlobResponse"], ask(f"{base}/metrics/find/?format=carbonapi_v3_pb", VERSION_3, request.SerializeToString()), VERSION_3)
    check("version 3: find", [[match.path for match in glob.matches] for glob in found.metrics], [["web.a.hits", "web.b.hits"], ["web.a", "web.b"]])
    request = V3["MultiGlobRequest"](metrics=["web.a.hits"])
    info = decoded(V3["MultiMetricsInfoResponse"], ask(f"{base}/info/", VERSION_3, request.SerializeToString()), VERSION_3)
    check("version 3: info", info.metrics[0].name, "web.a.hits")
    tags = json.loads(ask(f"{base}/tags/autoComplete/values?tag=dc&expr=name%3Dhits", VERSION_3)[2])
    check("version 3: tags are JSON", tags, ["eu", "us"])


CONFIG = """
listeners: [{{address: "127.0.0.1:{port}"}}]
cache: {{type: "null"}}
backendCache: {{type: "null"}}
cpus: 1
concurency: 100
notFoundStatusCode: 200
truncateTime: {{"0s": "1s"}}
graphite: {{host: "", interval: "60s"}}
upstreams:
  timeouts: {{find: "10s", render: "10s", connect: "2s"}}
  backendsv2:
    backends:
      - {{groupName: g, protocol: "{protocol}", lbMethod: broadcast, maxBatchSize: 0, concurrencyLimit: 100, servers: ["{base}"]}}
"""


def normal(answer):
    """Series by name and nodes sorted, numbers as both programs print them."""
    if answer and isinstance(answer[0], dict) and "target" in answer[0]:
        return {series["target"]: [[value and float(value), at] for value, at in series["datapoints"]] for series in answer}
    # carbonapi adds an empty context to each node.
    return sorted(node if isinstance(node, str) else json.dumps({**node, "context": {}}, sort_keys=True) for node in answer)


def info(front, protocol):
    """What carbonapi says of a file. In version 3 it asks the wrong address and learns the name only."""
    answer = json.loads(ask(f"{front}/info?target=web.a.hits", "*/*")[2])
    (files,) = [group["metrics"] for group in answer["info"].values()]
    check(f"carbonapi, {protocol}: info", [file["name"] for file in files], ["web.a.hits"])
    if protocol == "carbonapi_v2_pb":
        got = (files[0]["consolidationFunc"], files[0]["retentions"][0]["secondsPerPoint"])
        check(f"carbonapi, {protocol}: method and step", got, ("Average", 1))


def program(server, base, protocol, start, end):
    """carbonapi itself, on a port that was free just before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = server.path(f"{protocol}.yaml")
    with open(config, "w", encoding="utf8") as file:
        file.write(CONFIG.format(port=port, protocol=protocol, base=base))
    log = open(server.path(f"{protocol}.log"), "ab")
    carbonapi = subprocess.Popen([os.environ["CARBONAPI"], "-config", config], stdout=log, stderr=log)
    front = f"http://127.0.0.1:{port}"

    def answers():
        if carbonapi.poll() is not None:
            sys.exit(f"carbonapi ended: {open(log.name, encoding='utf8').read()}")
        try:
            return ask(f"{front}/lb_check", "*/*")[0] == 200
        except OSError:
            return False

    try:
        until(answers, "carbonapi")
        for path in (
            *(f"/render?format=json&from={start}&until={end}&target={quote(target)}" for target in (
                "web.*.hits", "sumSeries(web.*.hits)", "movingAverage(web.a.hits, 5)", 'seriesByTag("name=hits")',
                'aliasByTags(seriesByTag("name=hits"), "dc")', 'alias(timeShift(web.a.hits, "-10s"), "x")', "no.*")),
            "/metrics/find?format=treejson&query=web.*",
            # In msgpack, carbonapi does not read which nodes are leaves.
            *(["/metrics/find?format=treejson&query=web.*.*"] if protocol != "msgpack" else []),
            "/tags/autoComplete/tags?tagPrefix=d", "/tags/autoComplete/values?tag=dc&expr=name%3Dhits",
        ):
            theirs, ours = (json.loads(ask(side + path, "*/*")[2]) for side in (front, base))
            check(f"carbonapi, {protocol}: {path.split('&')[-1]}", normal(theirs), normal(ours))
        found = json.loads(ask(f"{front}/metrics/expand?query=web.*.hits", "*/*")[2])
        check(f"carbonapi, {protocol}: expand", found, {"results": ["web.a.hits", "web.b.hits"]})
        if protocol != "msgpack":
            info(front, protocol)
    finally:
        carbonapi.terminate()
        carbonapi.wait(timeout=20)


with Server() as server:
    host, port = server.host_port("render.http")
    base = f"http://{host}:{port}"
    now = int(time.time())
    lines = [f"web.{name}.hits {value + n} {now - n}" for n in range(0, 120, 2) for name, value in (("a", 1), ("b", 2))]
    lines += [f"hits;dc={dc};host={host} 5 {now - n}" for n in range(60) for dc, host in (("eu", "a"), ("us", "b"))]
    server.lines(lines)
    until(lambda: len(server.values("web.b.hits", "-5min")) == 60, "the plain series")
    until(lambda: len(server.values('seriesByTag("dc=us")', "-5min")) == 60, "the tagged series")
    version_2(server, base, now - 100, now)
    version_3(server, base, now - 100, now)
    if "CARBONAPI" in os.environ:
        for protocol in ("auto", "carbonapi_v3_pb", "carbonapi_v2_pb", "msgpack"):
            program(server, base, protocol, now - 100, now)

"""Programs and libraries that send to carbon, each with the settings an operator would have: collectd,
carbon-c-relay, carbon-relay and carbon-aggregator with their default protocol (pickle), statsd of npm,
graphyte, graphitesend, and dropwizard's PickledGraphite. Every value that was sent is read by /render.

The environment variable STATSD names the directory that npm installed statsd in."""

import csv
import glob
import os
import socket
import struct
import sys
import time

import graphitesend
import graphyte

from programs import Program, find, free_port, write
from server import Server, biggest, check, last, until

SCHEMAS = "[all]\npattern = .*\nretentions = 1s:1h,1m:7d\n"
TOOLS = os.path.dirname(sys.executable)


def send_lines(port, lines):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall("".join(line + "\n" for line in lines).encode())


def stored(server, target):
    """Timestamps and values of one series."""
    answer = server.ask("/render", {"target": target, "from": "-10min", "format": "json"})
    return {at: value for series in answer for value, at in series["datapoints"] if value is not None}


def names(server, query):
    return server.ask("/metrics/expand", {"query": query, "leavesOnly": "1"})["results"]


COLLECTD = """
BaseDir "{home}"
PIDFile "{home}/pid"
PluginDir "{plugins}"
TypesDB "/usr/share/collectd/types.db"
Hostname "box.example.com"
FQDNLookup false
Interval 1
LoadPlugin load
LoadPlugin memory
LoadPlugin uptime
LoadPlugin csv
LoadPlugin write_graphite
<Plugin csv>
  DataDir "{home}/csv"
  StoreRates true
</Plugin>
<Plugin write_graphite>
  <Node "plain">
    Host "127.0.0.1"
    Port "{port}"
    Protocol "tcp"
    Prefix "collectd."
    EscapeCharacter "_"
    StoreRates true
  </Node>
  <Node "tags">
    Host "127.0.0.1"
    Port "{port}"
    Protocol "tcp"
    Prefix "collectdt."
    UseTags true
  </Node>
</Plugin>
"""


def collectd(server):
    """What collectd's csv plugin writes into files is what its write_graphite plugin sent."""
    program = find("collectd")
    places = ("/usr/lib/collectd", "/usr/lib64/collectd", "/usr/lib/*/collectd")
    plugins = [path for place in places for path in glob.glob(place + "/write_graphite.so")]
    if not plugins:
        sys.exit("collectd's plugin write_graphite is not installed: package collectd-core has it")
    home = server.path("collectd")
    settings = {"home": home, "plugins": os.path.dirname(plugins[0]), "port": server.host_port("carbon.line_tcp")[1]}
    config = write(os.path.join(home, "collectd.conf"), COLLECTD.format(**settings))

    def measured(pattern):
        """The lines of a file of csv: seconds and values by column."""
        rows = []
        for path in glob.glob(os.path.join(home, "csv", "box.example.com", pattern + "-20*")):
            with open(path, encoding="utf8", newline="") as file:
                rows += list(csv.DictReader(file))
        return rows

    with Program("collectd", [program, "-f", "-C", config], os.path.join(home, "log")) as running:
        until(lambda: len(measured("load/load")) >= 4, "four measurements of collectd", running.log)
    # collectd sends what is left when it ends.
    series = {
        "collectd.box_example_com.load.load.shortterm": ("load/load", "shortterm"),
        "collectd.box_example_com.load.load.longterm": ("load/load", "longterm"),
        "collectd.box_example_com.memory.memory-free": ("memory/memory-free", "value"),
        "collectd.box_example_com.uptime.uptime": ("uptime/uptime", "value"),
    }
    for name, (pattern, column) in series.items():
        wanted = [float(record[column]) for record in measured(pattern) if record[column] != "nan"]

        def equal():
            got = list(stored(server, name).values())
            return len(got) == len(wanted) > 0 and all(abs(a - b) <= 1e-5 * max(1, abs(b)) for a, b in zip(got, wanted))

        until(equal, f"{name} to be {wanted}", lambda: f"{stored(server, name)}\n{running.log()}")
        print(f"ok   collectd: {name} has the {len(wanted)} values of collectd's own files")
    tagged = 'seriesByTag("host=box.example.com","plugin=load")'
    until(lambda: stored(server, tagged), "the tagged series")
    found = server.ask("/tags/findSeries", {"expr": "host=box.example.com"})
    check("collectd: tagged series", any("plugin=memory" in name for name in found), True)


C_RELAY = """
listen type linemode {listen} proto tcp;
statistics submit every 1 seconds prefix with ccr.self;
cluster any any_of 127.0.0.1:{port};
cluster ring carbon_ch replication 1 127.0.0.1:{port};
match ^ccr\\.ring\\. send to ring stop;
aggregate ^ccr\\.in\\.(.+)\\.[0-9]+$
  every 1 seconds expire after 2 seconds timestamp at start of bucket
  compute sum write to ccr.sum.\\1
  send to any stop;
match * send to any;
"""


def carbon_c_relay(server):
    home = server.path("ccr")
    listen, port = free_port(), server.host_port("carbon.line_tcp")[1]
    config = write(os.path.join(home, "relay.conf"), C_RELAY.format(listen=listen, port=port))
    command = [find("carbon-c-relay"), "-f", config, "-w", "1", "-H", "relay"]
    with Program("carbon-c-relay", command, os.path.join(home, "log"), listen):
        now = int(time.time())
        lines = [f"ccr.{cluster}.m{n} {n} {now}" for cluster in ("any", "ring") for n in range(500)]
        lines += [f"ccr.tagged;host=h{n};dc=eu {n} {now}" for n in range(100)]
        lines += [f"ccr.in.hits.{n} {n} {now}" for n in range(100)]
        send_lines(listen, lines)
        for cluster in ("any", "ring"):
            server.expect(f"sumSeries(ccr.{cluster}.*)", sum(range(500)))
        server.expect('sumSeries(seriesByTag("name=ccr.tagged","dc=eu"))', sum(range(100)))
        check("carbon-c-relay: 500 series of each cluster", [len(names(server, f"ccr.{c}.*")) for c in ("any", "ring")], [500, 500])
        server.expect("ccr.sum.hits", sum(range(100)))
        until(lambda: names(server, "ccr.self.*"), "its own statistics")
        print(f"ok   carbon-c-relay: {len(names(server, 'ccr.self.*'))} statistics of its own")


# The queue is as long as in the file that carbon ships; without a line it holds 1000 and drops the rest.
CARBON = """
[{kind}]
STORAGE_DIR = {home}
CONF_DIR = {home}
LOG_DIR = {home}
PID_DIR = {home}
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {line}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {pickle}
RELAY_METHOD = consistent-hashing
REPLICATION_FACTOR = 1
MAX_QUEUE_SIZE = 10000
DESTINATIONS = 127.0.0.1:{port}:a
CARBON_METRIC_INTERVAL = 1
"""


def carbon(server, kind, rules=None):
    """carbon-relay or carbon-aggregator in front, and the port for its lines."""
    home = server.path(kind)
    settings = {"kind": kind, "home": home, "line": free_port(), "pickle": free_port()}
    text = CARBON.format(**settings, port=server.host_port("carbon.pickle")[1])
    config = write(os.path.join(home, "carbon.conf"), text)
    # carbon reads this file in every one of its programs.
    write(os.path.join(home, "storage-schemas.conf"), SCHEMAS)
    if rules:
        write(os.path.join(home, "aggregation-rules.conf"), rules)
    command = [sys.executable, os.path.join(TOOLS, f"carbon-{kind}.py"), "--nodaemon", "--config", config, "start"]
    log, environment = os.path.join(home, "log"), {"GRAPHITE_ROOT": home}
    return Program(f"carbon-{kind}", command, log, settings["line"], environment)


def carbon_relay(server):
    with carbon(server, "relay") as relay:
        now = int(time.time())
        lines = [f"relay.m{n} {n}.5 {now}" for n in range(1000)]
        lines += [f"relay.tagged;host=h{n} {n} {now}" for n in range(100)] + [f"relay.ünï.é 7 {now}"]
        send_lines(relay.port, lines)
        server.expect("sumSeries(relay.m*)", sum(range(1000)) + 500)
        check("carbon-relay: 1000 series", len(names(server, "relay.m*")), 1000)
        server.expect('sumSeries(seriesByTag("name=relay.tagged"))', sum(range(100)))
        server.expect("relay.ünï.é", 7)
        until(lambda: names(server, "carbon.relays.*.metricsReceived"), "its own statistics")
        print(f"ok   carbon-relay: {len(names(server, 'carbon.relays.*.*'))} statistics of its own")


def carbon_aggregator(server):
    rules = "aggregator.<env>.all.requests (1) = sum aggregator.<env>.*.requests\n"
    with carbon(server, "aggregator", rules) as aggregator:
        now = int(time.time())
        send_lines(aggregator.port, [f"aggregator.prod.h{n}.requests {n} {now}" for n in range(100)])
        server.expect("aggregator.prod.all.requests", sum(range(100)), last)
        server.expect("aggregator.prod.h7.requests", 7)


def statsd(server, protocol):
    """npm's statsd in front, with each protocol of its graphite backend."""
    home, port, admin = server.path("statsd-" + protocol), free_port(), free_port()
    settings = f"""{{
      port: {port}, address: "127.0.0.1", mgmt_port: {admin}, mgmt_address: "127.0.0.1", flushInterval: 1000,
      backends: ["./backends/graphite"], graphiteHost: "127.0.0.1", deleteIdleStats: true,
      graphitePort: {server.host_port("carbon.line_tcp")[1]}, graphiteProtocol: "{protocol}",
      graphitePicklePort: {server.host_port("carbon.pickle")[1]},
      graphite: {{ legacyNamespace: false, globalPrefix: "npm-{protocol}" }},
    }}"""
    config = write(os.path.join(home, "config.js"), settings)
    command = ["node", os.path.join(os.environ["STATSD"], "node_modules/statsd/stats.js"), config]
    with Program("statsd", command, os.path.join(home, "log"), admin):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect(("127.0.0.1", port))
            for n in range(1, 11):
                udp.send(f"hits:{n}|c\nwait:{n * 10}|ms\nlevel:{n}|g\nusers:u{n}|s".encode())
        server.expect(f"npm-{protocol}.counters.hits.count", 55)
        server.expect(f"npm-{protocol}.timers.wait.count", 10)
        server.expect(f"npm-{protocol}.timers.wait.upper", 100, biggest)
        server.expect(f"npm-{protocol}.gauges.level", 10, last)
        server.expect(f"npm-{protocol}.sets.users.count", 10)


def libraries(server):
    lines, pickles = server.host_port("carbon.line_tcp")[1], server.host_port("carbon.pickle")[1]
    sender = graphyte.Sender("127.0.0.1", port=lines, prefix="graphyte", raise_send_errors=True)
    sender.send("plain", 42)
    sender.send("tagged", 3, tags={"env": "prod", "host": "x"})
    queue = graphyte.Sender("127.0.0.1", port=lines, prefix="graphyte", interval=0.1)
    for n in range(5):
        queue.send(f"queued.m{n}", n)
    queue.stop()
    udp = graphyte.Sender("127.0.0.1", port=server.host_port("carbon.line_udp")[1], prefix="graphyte", protocol="udp")
    udp.send("udp", 8)
    server.expect("graphyte.plain", 42)
    server.expect('seriesByTag("name=graphyte.tagged","env=prod")', 3)
    server.expect("sumSeries(graphyte.queued.*)", 10)
    server.expect("graphyte.udp", 8)

    for kind, port in (("plaintext_tcp", lines), ("pickle_tcp", pickles)):
        graphitesend.reset()
        settings = {"graphite_server": "127.0.0.1", "graphite_port": port, "system_name": "host", "prefix": kind}
        client = graphitesend.init(init_type=kind, **settings)
        client.send("one", 45)
        client.send_dict({"a": 1, "b": 2.5})
        client.send_list([("x", 6), ("y", 7)])
        graphitesend.reset()
        server.expect(f"{kind}.host.one", 45)
        server.expect(f"sumSeries({kind}.host.?)", 16.5)


def dropwizard(server):
    """The bytes of dropwizard's PickledGraphite: opcodes of protocol 0, values as strings."""
    now = int(time.time())
    points = [(f"dropwizard.m{n}", now, f"{n}.25") for n in range(100)]
    body = "(l" + "".join(f"(S'{name}'\n(L{at}L\nS'{value}'\ntta" for name, at, value in points) + "."
    with socket.create_connection(server.host_port("carbon.pickle")) as connection:
        connection.sendall(struct.pack("!L", len(body)) + body.encode())
        server.expect("sumSeries(dropwizard.*)", sum(range(100)) + 25)


plumbago = Server()
plumbago.settings["carbon.schemas"] = write(plumbago.path("storage-schemas.conf"), SCHEMAS)
with plumbago:
    for part in (libraries, dropwizard, carbon_relay, carbon_aggregator, carbon_c_relay, collectd):
        part(plumbago)
    for graphite_protocol in ("text", "pickle"):
        statsd(plumbago, graphite_protocol)
    counters = plumbago.ask_bytes("/metrics").decode().splitlines()
    refused = [line for line in counters if line.startswith("plumbago_carbon_rejects_") and not line.endswith(" 0")]
    check("the server refused nothing", refused, [])

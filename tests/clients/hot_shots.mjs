// npm hot-shots: every method, with the tags of DogStatsD and of Telegraf, over UDP and TCP.
// Usage: node hot_shots.mjs HOST UDP_PORT TCP_PORT, with the server run by hot_shots.py, which
// compares. Prints as JSON what the client measured itself.

import { createRequire } from "node:module";

const require = createRequire(process.env.HOT_SHOTS + "/");
const StatsD = require("hot-shots");

const [host, port, tcpPort] = process.argv.slice(2);
const failed = (error) => {
  console.error("hot-shots: " + error);
  process.exitCode = 1;
};
const client = new StatsD({ host, port: Number(port), prefix: "node.", errorHandler: failed });
for (let n = 0; n < 40; n++) client.increment("hits");
client.increment("tagged", 3, ["code:200", "env:prod"]);
client.decrement("hits", 10);
client.timing("wait", 25);
client.timing("wait", 35);
client.histogram("size", 512);
client.gauge("heap", 64.5);
client.set("users", "ann");
client.unique("users", "bob");
client.event("node 5 deployed", "from the client", { alert_type: "info" }, ["deploy"]);

// The client counts UTF-16 units, not bytes.
client.event("Köln", "v1.2 für alle", {}, ["unicode"]);
client.event("🚀 日本", "erst\ndann | 🎉🎉", { alert_type: "info" }, ["unicode"]);

const buffered = new StatsD({ host, port: Number(port), maxBufferSize: 1000, errorHandler: failed });
for (let n = 0; n < 300; n++) buffered.increment("buffered");

const close = (statsd) => new Promise((done) => statsd.close(done));
await close(buffered);
await close(client);

// Every method, and every way to pass rates and tags, below a name of its own.
const measured = {};
async function everything(statsd, at) {
  const note = (kind) => {
    const send = statsd[kind].bind(statsd);
    statsd[kind] = (stat, value, ...rest) => {
      measured[at + stat] = (measured[at + stat] ?? 0) + value;
      send(stat, value, ...rest);
    };
  };
  const rare = 0.999999; // one in a million samples is not sent
  statsd.increment("up");
  statsd.increment("up", 4);
  statsd.increment(["up", "also"], 2.5);
  statsd.decrement("down");
  statsd.decrement("down", 3, ["env:prod"]);
  statsd.decrement("down", 1, 1, { env: "prod" });
  statsd.increment("sampled", 2, rare);
  statsd.timing("exact", 1.5);
  statsd.timing("exact", 2.25, { tags: ["env:prod"] });
  statsd.histogram("histogram", 3.5);
  statsd.histogram("histogram", 4, rare);
  statsd.distribution("distribution", 5.5);
  statsd.gauge("gauge", 10);
  statsd.gaugeDelta("gauge", 5);
  statsd.gaugeDelta("gauge", -2.5);
  statsd.set("set", "ann");
  statsd.set("set", 7);
  statsd.unique("set", "ann");
  note("timing");
  note("distribution");
  statsd.timing("since", new Date() - new Date(0));
  statsd.timer((n, context) => context.addTags({ env: "prod" }), "timed")(1);
  await statsd.asyncTimer(async () => {}, "awaited")();
  await statsd.asyncDistTimer(async () => {}, "spread")();
  const child = statsd.childClient({ prefix: "child.", globalTags: { child: "yes" } });
  child.increment("born", 6);
  await new Promise((done) => statsd.flush(done));
}
const options = { host, port: Number(port), globalTags: ["global:yes"], errorHandler: failed };
const dog = new StatsD({ ...options, prefix: "dog.", suffix: ".end", cardinality: "low", containerID: "abc" });
await everything(dog, "dog.");
const now = Math.floor(Date.now() / 1000);
dog.gauge("then", 7.25, { timestamp: now - 60 });
dog.increment("then", 6, { timestamp: new Date((now - 60) * 1000) });
["OK", "WARNING", "CRITICAL", "UNKNOWN"].forEach((name) => {
  const options = { date_happened: new Date(), hostname: "h1", message: "so it is" };
  dog.check(name, dog.CHECKS[name], options, ["a:b"]);
});
const fields = { hostname: "h1", aggregation_key: "key", priority: "low", source_type_name: "source" };
dog.event("full", "of fields", { ...fields, alert_type: "error", date_happened: new Date((now - 30) * 1000) }, ["full"]);
await close(dog);
const telegraf = new StatsD({ ...options, prefix: "tele.", suffix: ".end", telegraf: true });
await everything(telegraf, "tele.");
await close(telegraf);
const tcp = new StatsD({ ...options, port: Number(tcpPort), protocol: "tcp", prefix: "tcp.", suffix: ".end" });
await everything(tcp, "tcp.");
await close(tcp);
const summed = new StatsD({ ...options, prefix: "agg.", aggregation: true });
for (let n = 1; n <= 50; n++) {
  summed.increment("count", n);
  summed.gauge("gauge", n);
  summed.set("set", n % 7);
}
await close(summed);
console.log(JSON.stringify({ now, measured }));

// npm hot-shots: counters with sample rates, timers, gauges, sets, tags, events.
// Usage: node hot_shots.mjs HOST PORT, with the server run by hot_shots.py, which compares.

import { createRequire } from "node:module";

const require = createRequire(process.env.HOT_SHOTS + "/");
const StatsD = require("hot-shots");

const [host, port] = process.argv.slice(2);
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

const buffered = new StatsD({ host, port: Number(port), maxBufferSize: 1000, errorHandler: failed });
for (let n = 0; n < 300; n++) buffered.increment("buffered");

const close = (statsd) => new Promise((done) => statsd.close(done));
await close(buffered);
await close(client);

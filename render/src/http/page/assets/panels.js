// The graphs of a page: fetched at the width they have, refreshed with what is new, with one
// crosshair over all of them, drag to zoom, legends that isolate, and tags that can be hidden.

import * as live from "./live.js";
import { card, hideCard } from "./card.js";
import { draw, isShown, readable, valueAt } from "./scene.js";

const WHOLE_EVERY_MS = 300_000; // values that came late are seen then
const OVERLAP_S = 60; // values that are asked for again
const LEGEND_MOST = 40;
// What the server leaves out if it is what the page has.
const LAYOUT = ["width", "height", "plot", "mode", "stacked", "alpha", "zero", "gap", "binary", "axes", "lines", "levels", "shown", "events"];
const root = document.documentElement;
const body = document.body;
const board = document.querySelector(".board");
/** All graphs of the page. */
export const panels = [];

/** Whether the page is dark. */
export const dark = () =>
  root.dataset.theme === "dark" ||
  (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);

const view = () => new URLSearchParams(location.search);
// What the server refused (and says so on the page) is not asked of it again.
if (body.dataset.refused) {
  const query = view();
  for (const name of body.dataset.refused.split(" ")) query.delete(name);
  history.replaceState(history.state, "", `?${query}`);
}
const hidden = new Set((view().get("hide") ?? "").split(",").filter(Boolean));

class Panel {
  constructor(figure) {
    this.figure = figure;
    this.place = figure.querySelector(".picture");
    this.unit = figure.dataset.unit ?? "";
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.place.after(this.legend);
    this.only = undefined; // the name of the one series that is shown
    this.whole = 0;
    this.asked = 0;
  }

  url(since) {
    const query = new URLSearchParams(this.figure.dataset.query);
    if (view().get("events")) query.set("events", view().get("events"));
    const asked = view();
    query.set("from", asked.get("from") ?? board.dataset.from);
    const until = asked.get("until") ?? (asked.get("from") ? undefined : board.dataset.until);
    if (until) query.set("until", until);
    if (asked.get("tz")) query.set("tz", asked.get("tz"));
    const width = Math.max(160, Math.floor(this.place.clientWidth));
    query.set("width", width);
    query.set("height", Math.round(Math.min(Math.max(width * 0.42, 190), root.dataset.wall ? 420 : 250)));
    query.set("fontSize", "12");
    query.set("bgcolor", dark() ? "181e25" : "ffffff");
    query.set("format", "graph");
    if (since !== undefined) {
      query.set("since", since);
      query.set("layout", this.graph.layout);
    }
    return `${body.dataset.up}render?${query}`;
  }

  /** Fetches the graph; `part`: only what is newer than what is here. */
  async load(part) {
    if (!new URLSearchParams(this.figure.dataset.query).has("target")) return;
    const number = ++this.asked;
    const old = this.graph;
    const now = Date.now();
    const isPart = part && old && now - this.whole < WHOLE_EVERY_MS && old.width === Math.floor(this.place.clientWidth);
    const since = isPart ? newest(old) - OVERLAP_S : undefined;
    try {
      const answer = await fetch(this.url(since));
      const graph = await answer.json();
      if (number !== this.asked) return;
      live.heardNow();
      this.wrong = answer.ok ? undefined : graph;
      if (!answer.ok) return this.say(graph.error ?? "the server cannot draw this");
      if (!graph.lines) for (const name of LAYOUT) graph[name] = old[name];
      graph.events ??= {};
      graph.series = graph.series.map((one, i) => ({ ...graph.lines[i], ...one }));
      if (isPart && !merge(old, graph, since)) return this.load(false);
      if (!isPart) this.whole = now;
      this.graph = graph;
      this.figure.graph = graph;
      this.draw();
    } catch (error) {
      if (number === this.asked && !old) this.say("The server does not answer.");
    }
  }

  say(sentence) {
    const words = document.createElement("p");
    words.className = "problem";
    words.textContent = sentence;
    this.place.replaceChildren(words);
    this.legend.replaceChildren();
    this.legendKey = undefined;
    this.graph = this.figure.graph = undefined;
  }

  draw() {
    const { graph } = this;
    for (const one of graph.series) one.off = this.only !== undefined && one.name !== this.only;
    if (graph.series.every((one) => one.off)) for (const one of graph.series) one.off = false;
    const heading = this.figure.querySelector("h2");
    if (graph.title) heading.textContent = graph.title;
    this.judge();
    const [target] = new URLSearchParams(this.figure.dataset.query).getAll("target");
    graph.none = pattern(target);
    const drawn = draw(this.place, graph, hidden, describe(heading.textContent, graph, this.unit));
    Object.assign(this, drawn);
    this.writeLegend();
    this.crossed = undefined;
    if (cross.at !== undefined) this.cross(cross.at);
  }

  /** Colours the panel if the newest value of its first series is beyond a threshold. */
  judge() {
    const { warn, critical, good } = this.figure.dataset;
    const last = this.graph.series[0]?.last;
    const beyond = (limit) =>
      limit !== undefined && last !== undefined && (good === "up" ? last < Number(limit) : last > Number(limit));
    this.figure.dataset.level = beyond(critical) ? "critical" : beyond(warn) ? "warn" : "";
    this.graph.limits = [["warn", warn], ["critical", critical]].filter(([, limit]) => limit !== undefined);
  }

  writeLegend() {
    const { graph } = this;
    const named = graph.series.filter((one) => !one.unnamed).slice(0, LEGEND_MOST);
    const key = named.map((one) => one.name + one.color).join("\n");
    if (this.legendKey !== key) {
      this.legendKey = key;
      this.entries = named.map((one) => {
        const button = document.createElement("button");
        button.type = "button";
        button.title = `${one.name}: show only this`;
        const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        swatch.setAttribute("viewBox", "0 0 10 10");
        const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [name, value] of [["width", 10], ["height", 10], ["rx", 2], ["fill", one.color]]) square.setAttribute(name, value);
        swatch.append(square);
        const name = document.createElement("span");
        name.textContent = one.name;
        const value = document.createElement("b");
        button.append(swatch, name, value);
        button.onclick = () => {
          this.only = this.only === one.name ? undefined : one.name;
          this.draw();
        };
        const entry = document.createElement("li");
        entry.append(button);
        return { entry, button, value, name: one.name };
      });
      this.legend.replaceChildren(...this.entries.map(({ entry }) => entry));
    }
    for (const { button, name } of this.entries) button.setAttribute("aria-pressed", this.only === name);
    this.values();
  }

  /** The values in the legend: at the crosshair, else the newest. */
  values(at) {
    const named = this.graph.series.filter((one) => !one.unnamed);
    this.entries.forEach(({ value }, i) => {
      const one = named[i];
      const shown = at === undefined ? one.last : valueAt(one, at);
      const words = readable(shown ?? null, this.unit, this.graph.binary);
      if (value.textContent !== words) value.textContent = words;
    });
  }

  /** Moves the crosshair; returns whether it is within the graph. */
  moveHair(at) {
    const inside = this.hair && at !== undefined && at >= this.graph.from && at <= this.graph.until;
    if (this.hair) this.hair.style.display = inside ? "" : "none";
    if (inside) this.hair.style.transform = `translateX(${Math.round(this.scale.left + this.scale.x(at))}px)`;
    return inside;
  }

  cross(at) {
    this.values(this.moveHair(at) ? at : undefined);
    this.crossed = at;
    this.turn = turns += 1;
  }
}

/** Draws another query in `figure`; returns the refusal of the server, if it refuses. */
export async function redraw(figure, hasTargets) {
  const panel = panels.find((one) => one.figure === figure);
  if (!hasTargets) {
    panel.asked += 1;
    panel.graph = figure.graph = undefined;
    panel.place.replaceChildren();
    panel.legend.replaceChildren();
    panel.legendKey = undefined;
    return undefined;
  }
  await panel.load(false);
  writeTags();
  return panel.wrong;
}

/** The newest timestamp of a graph. */
const newest = (graph) =>
  Math.floor(Math.max(graph.from, ...graph.series.map((one) => one.start + (one.count - 1) * one.step)));

/** The first name or glob in a target. */
function pattern(target) {
  const words = target.match(/(?:\{[^}]*\}|[^\s(){},'"|])+/g) ?? [];
  return words.find((word) => word.includes(".") && Number.isNaN(Number(word))) ?? target;
}

/** What a screen reader says of a graph. */
function describe(title, graph, unit) {
  const last = graph.series.slice(0, 5).map((one) =>
    `${one.name} ${readable(one.last ?? null, unit, graph.binary)}`);
  return `${title}: ${last.join(", ") || "no data"}`;
}

/** Puts the values of `old` before those of `graph`; false if they do not fit together. */
function merge(old, graph, since) {
  if (old.series.length !== graph.series.length) return false;
  const kept = (at) => at >= graph.from && at < since;
  for (const name of ["major", "minor"]) graph[name] = [...old[name].filter(kept), ...graph[name]];
  graph.labels = [...old.labels.filter(([at]) => kept(at)), ...graph.labels];
  return graph.series.every((one, i) => {
    const before = old.series[i];
    if (before.name !== one.name || before.step !== one.step) return false;
    if (one.values.length === one.count) return true;
    const shift = (one.start - before.start) / one.step;
    const missing = one.count - one.values.length;
    if (!Number.isInteger(shift) || shift < 0 || shift + missing > before.values.length) return false;
    one.values = [...before.values.slice(shift, shift + missing), ...one.values];
    return true;
  });
}

// ---- The crosshair, the pointer, the zoom.

const LEGENDS_A_FRAME = 2; // their text takes the browser longer than all lines
const cross = { at: undefined };
let frame;
let turns = 0;
let pointed;

/** The graph that the pointer was on last. */
export const pointedAt = () => (pointed?.graph ? pointed : undefined);

/** Moves the crosshair of all graphs; `undefined` takes it away. */
export function crossAll(at) {
  cross.at = at;
  frame ??= requestAnimationFrame(moveCross);
}

// The line of every graph moves with every frame; the values in the legends follow in turn, those of the graph under
// the pointer at once, those of graphs out of sight when all others are right.
function moveCross() {
  frame = undefined;
  const { at } = cross;
  clock.textContent = at === undefined ? "" : when(at);
  clock.hidden = at === undefined;
  const drawn = panels.filter((panel) => panel.graph);
  for (const panel of drawn) if (panel.isSeen !== false) panel.moveHair(at);
  const rank = (panel) => (panel === pointed ? 0 : panel.isSeen === false ? 2 : 1);
  const late = drawn.filter((panel) => panel.crossed !== at);
  late.sort((a, b) => rank(a) - rank(b) || (a.turn ?? 0) - (b.turn ?? 0));
  for (const panel of late.slice(0, LEGENDS_A_FRAME)) panel.cross(at);
  if (late.length > LEGENDS_A_FRAME) frame = requestAnimationFrame(moveCross);
}

/** Asks what happened to the series of `panel` around `at`. */
export function happened(panel, at) {
  const query = new URLSearchParams({ at: Math.round(at) });
  for (const target of new URLSearchParams(panel.figure.dataset.query).getAll("target")) query.append("target", target);
  location.href = `${body.dataset.up}changes?${query}`;
}

/** Where the crosshair is, in Unix seconds. */
export const crossed = () => cross.at;

const clock = document.createElement("p");
clock.className = "clock";
clock.hidden = true;

let format; // making one takes longer than using it

/** A timestamp in the zone of the page. */
export function when(at) {
  const zone = view().get("tz") || body.dataset.tz || "UTC";
  if (format?.zone !== zone) {
    const options = { dateStyle: "medium", timeStyle: "medium", timeZone: zone };
    format = { zone, dates: new Intl.DateTimeFormat("en-GB", options) };
  }
  return `${format.dates.format(at * 1000)} ${zone}`;
}

function pointer(panel) {
  const { place } = panel;
  let start;
  const x = (event) => {
    const box = panel.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * panel.graph.width;
    return Math.max(panel.scale.left, Math.min(panel.scale.right, at));
  };
  const near = (event) => {
    const reach = event.pointerType === "touch" ? 16 : 6;
    const at = x(event);
    const distance = (shown) => {
      const from = panel.scale.left + Math.max(0, panel.scale.x(shown.from));
      const end = shown.until === undefined ? from : panel.scale.left + panel.scale.x(shown.until);
      return at < from ? from - at : at > end ? Math.min(at - end, at - from) : Math.min(at - from, 3);
    };
    const seen = panel.graph.shown.filter((shown) => isShown(panel.graph, shown, hidden));
    const sorted = seen.map((shown) => [distance(shown), shown]).sort((a, b) => a[0] - b[0]);
    return sorted[0]?.[0] <= reach ? sorted[0][1] : undefined;
  };
  const look = (event) => {
    if (!panel.graph) return;
    crossAll(panel.scale.at(x(event)));
    const shown = near(event);
    if (shown) card(panel, shown, event);
    else hideCard();
  };
  place.addEventListener("pointermove", (event) => {
    if (!panel.graph) return;
    pointed = panel;
    look(event);
    if (start === undefined) return;
    const box = panel.svg.querySelector(".selection");
    const [from, to] = [start, x(event)].sort((a, b) => a - b);
    box.style.display = "";
    box.setAttribute("x", from);
    box.setAttribute("width", to - from);
  });
  place.addEventListener("pointerdown", (event) => {
    if (!panel.graph || event.button !== 0) return;
    if (event.shiftKey) {
      happened(panel, panel.scale.at(x(event)));
      return;
    }
    start = x(event);
    if (event.pointerType !== "touch") place.setPointerCapture(event.pointerId);
    look(event);
  });
  const end = (event) => {
    if (start === undefined || !panel.graph) return;
    const from = start;
    start = undefined;
    panel.svg.querySelector(".selection").style.display = "none";
    const to = x(event);
    if (event.type === "pointerup" && Math.abs(to - from) > 8) {
      const [a, b] = [from, to].sort((x1, x2) => x1 - x2).map(panel.scale.at);
      zoom(Math.floor(a), Math.ceil(b));
    }
  };
  place.addEventListener("pointerup", end);
  place.addEventListener("pointercancel", end);
  place.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "touch") return;
    crossAll(undefined);
    hideCard();
  });
  place.addEventListener("dblclick", back);
}

/** Shows another range on all graphs. The browser's "back" leads to the one before. */
export function zoom(from, until) {
  const query = view();
  query.set("from", from);
  query.set("until", Math.max(until, from + 10));
  history.pushState({ zoomed: true }, "", `?${query}`);
  moved();
}

/** Back to the range before the zoom. */
export function back() {
  if (history.state?.zoomed) history.back();
}

function moved() {
  crossAll(undefined);
  hideCard();
  const query = view();
  const chip = document.getElementById("zoomed");
  if (chip) {
    const isAbsolute = /^\d+$/.test(query.get("from") ?? "");
    chip.hidden = !isAbsolute;
    if (isAbsolute) chip.querySelector("span").textContent = `${when(Number(query.get("from")))} to ${when(Number(query.get("until")))}`;
  }
  reload();
  dispatchEvent(new Event("range"));
}

/** Fetches all graphs again. */
export const reload = () => panels.forEach((panel) => panel.load(false));

// ---- Tags that can be hidden.

function writeTags() {
  const bar = document.getElementById("tags");
  if (!bar) return;
  const colors = new Map();
  for (const { graph } of panels) {
    for (const { tags, color } of Object.values(graph?.events ?? {})) if (tags[0]) colors.set(tags[0], color);
  }
  for (const tag of hidden) if (!colors.has(tag)) colors.set(tag, "#888888");
  const key = JSON.stringify([...colors].sort());
  if (bar.dataset.key === key) return;
  bar.dataset.key = key;
  const boxes = [...colors].sort().map(([tag, color]) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !hidden.has(tag);
    box.name = tag;
    box.onchange = () => {
      if (box.checked) hidden.delete(tag);
      else hidden.add(tag);
      const query = view();
      if (hidden.size) query.set("hide", [...hidden].join(","));
      else query.delete("hide");
      history.replaceState(history.state, "", `?${query}`);
      for (const panel of panels) if (panel.graph) panel.draw();
    };
    const name = document.createElement("span");
    name.textContent = tag;
    name.style.borderBottomColor = color;
    label.append(box, name);
    return label;
  });
  bar.replaceChildren(...boxes);
}

// ---- Start and refresh.

export function start() {
  for (const figure of document.querySelectorAll("figure[data-query]")) {
    const panel = new Panel(figure);
    panels.push(panel);
    pointer(panel);
  }
  if (!panels.length) return;
  body.append(clock);
  document.getElementById("zoomed")?.querySelector("button").addEventListener("click", () => {
    if (history.state?.zoomed) history.back();
    else location.search = "";
  });
  // A graph that is scrolled out of sight is brought up to date when it is seen again.
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const panel = panels.find((one) => one.figure === target);
      panel.isSeen = isIntersecting;
      if (isIntersecting && panel.isOld) panel.load(true);
      if (isIntersecting) panel.isOld = false;
    }
  });
  for (const panel of panels) sight.observe(panel.figure);
  const loaded = panels.map((panel) => panel.load(false));
  Promise.allSettled(loaded).then(() => {
    writeTags();
    body.dataset.drawn = Math.round(performance.now());
  });
  addEventListener("popstate", moved);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", reload);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(resized);
    resized = setTimeout(reload, 200);
  });
  const refresh = async (part) => {
    const seen = panels.filter((panel) => panel.isSeen);
    for (const panel of panels) panel.isOld = !panel.isSeen;
    await Promise.allSettled(seen.map((panel) => panel.load(part)));
    writeTags();
  };
  live.on("events", () => refresh(true));
  live.on("back", () => refresh(false));
  const every = Number(body.dataset.refresh || 0) * 1000;
  if (!every) return;
  let last = Date.now();
  setInterval(() => {
    if (document.hidden || Date.now() - last < every || view().get("until")) return;
    last = Date.now();
    refresh(true);
  }, 1000);
}

let resized;

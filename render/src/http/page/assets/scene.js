// A graph as SVG, from the numbers that the server lays out (`format=graph`): axes, ticks, colours
// and the places of event labels are the server's; lines, areas and lines of events are drawn here.

const NS = "http://www.w3.org/2000/svg";

export function make(name, attributes = {}, parent) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

const text = (parent, content, attributes) => {
  make("text", attributes, parent).textContent = content;
};

/** The mapping between times, values and pixels of a graph. */
export function scales(graph) {
  const [left, top, right, bottom] = graph.plot;
  const width = right - left;
  const height = bottom - top;
  const span = graph.until - graph.from;
  const share = (axis, value) => {
    if (!axis.log) return (value - axis.low) / (axis.high - axis.low);
    if (value <= 0) return undefined;
    return Math.log(value / axis.low) / Math.log(axis.high / axis.low);
  };
  return {
    left, top, right, bottom, width, height,
    x: (at) => ((at - graph.from) / span) * width,
    at: (x) => graph.from + ((x - left) / width) * span,
    y: (axis, value) => {
      const part = share(axis, value);
      // Far outside of the plot is outside: SVG has no room for any number.
      return part === undefined ? undefined : height * (1 - Math.max(-9, Math.min(9, part)));
    },
  };
}

/** The values that are drawn: sums of the series below on a stacked graph. */
function drawn(graph) {
  const zero = (value) => (value === null && graph.zero ? 0 : value);
  if (!graph.stacked) return graph.series.map((one) => one.values.map(zero));
  const totals = [];
  return graph.series.map((one) =>
    one.infinite ? one.values : one.values.map((value, i) => {
      if (zero(value) === null) return null;
      totals[i] = (totals[i] ?? 0) + zero(value);
      return totals[i];
    }));
}

/** The runs of connected points of a series, in pixels of the plot. */
function runs(graph, one, values, scale) {
  const axis = graph.axes[one.right ? 1 : 0] ?? graph.axes[0];
  const found = [];
  let run = [];
  let absent = 0;
  const end = () => {
    if (run.length) found.push(run);
    run = [];
  };
  values.forEach((value, i) => {
    const y = value === null ? undefined : scale.y(axis, value);
    if (y === undefined) {
      absent += 1;
      return graph.mode === "connected" && absent <= (graph.gap ?? Infinity) ? undefined : end();
    }
    absent = 0;
    const x = scale.x(one.start + i * one.step);
    if (graph.mode === "staircase") {
      run.push([x, y], [scale.x(one.start + (i + 1) * one.step), y]);
    } else {
      run.push([x, y]);
    }
  });
  end();
  return found;
}

const number = (value) => Math.round(value * 10) / 10;
const path = (points) => "M" + points.map(([x, y]) => `${number(x)} ${number(y)}`).join("L");

function grid(graph, scale, svg) {
  const { left, top, right, bottom } = scale;
  const vertical = (times) => times
    .map((at) => `M${Math.round(left + scale.x(at)) + 0.5} ${top}V${bottom}`)
    .join("");
  const majors = new Set(graph.major);
  make("path", { class: "minor", d: vertical(graph.minor.filter((at) => !majors.has(at))) || "M0 0" }, svg);
  let lines = vertical(graph.major);
  for (const axis of graph.axes) {
    let free = Infinity;
    for (const [value, label] of axis.ticks) {
      const y = Math.round(top + scale.y(axis, value)) + 0.5;
      if (!axis.right) lines += `M${left} ${y}H${right}`;
      if (y + 4 > free) continue;
      free = y - 10;
      text(svg, label, axis.right
        ? { class: "axis", x: right + 5, y: y + 4 }
        : { class: "axis end", x: left - 5, y: y + 4 });
    }
  }
  make("path", { class: "major", d: lines || "M0 0" }, svg);
  let free = -Infinity;
  for (const [at, label] of graph.labels) {
    const width = label.length * 6.6;
    const start = Math.max(1, Math.min(left + scale.x(at) - width / 2, graph.width - width - 1));
    if (start < free) continue;
    free = start + width + 6;
    text(svg, label, { class: "axis", x: start, y: bottom + 17 });
  }
}

/** `words` in `most` characters: their beginning and their end. */
function cut(words, most) {
  if (words.length <= most) return words;
  const half = Math.max(1, Math.floor((most - 1) / 2));
  return `${words.slice(0, half)}…${words.slice(-half)}`;
}

function areas(graph, shapes, scale, plot) {
  const base = (one) => {
    const axis = graph.axes[one.right ? 1 : 0] ?? graph.axes[0];
    return Math.max(0, Math.min(scale.height, scale.y(axis, 0) ?? scale.height));
  };
  // The last first: on a stack, each shape covers those of the series above it.
  graph.series.map((one, i) => [one, i]).reverse().forEach(([one, i]) => {
    if (!one.area || one.off) return;
    const group = make("g", { class: "area", "data-series": i }, plot);
    for (const run of shapes[i]) {
      const floor = base(one);
      const d = `${path(run)}L${number(run.at(-1)[0])} ${floor}L${number(run[0][0])} ${floor}Z`;
      if (graph.stacked) make("path", { d, class: "ground" }, group);
      make("path", { d, fill: one.color, "fill-opacity": graph.alpha ?? 1 }, group);
    }
  });
}

function lines(graph, shapes, scale, plot) {
  graph.series.forEach((one, i) => {
    if (one.off || (one.area && graph.alpha === undefined)) return;
    const group = make("g", { class: "line", "data-series": i, stroke: one.color }, plot);
    if (one.infinite) {
      const d = one.values
        .map((value, n) => (value > 0 ? `M${number(scale.x(one.start + n * one.step))} 0V${scale.height}` : ""))
        .join("");
      if (d) make("path", { d, "stroke-width": one.width }, group);
      return;
    }
    const whole = shapes[i].filter((run) => run.length > 1);
    if (whole.length) {
      const line = make("path", { d: whole.map(path).join(""), "stroke-width": one.width }, group);
      if (one.dash) line.setAttribute("stroke-dasharray", `${one.dash} ${one.dash}`);
    }
    for (const [[x, y]] of shapes[i].filter((run) => run.length === 1)) {
      make("circle", { cx: number(x), cy: number(y), r: 2, fill: one.color, stroke: "none" }, group);
    }
  });
}

// What an axis leaves out so that the rest can be seen: a mark where it is, and a sentence.
function outside(graph, scale, svg) {
  const beyond = graph.axes.find((axis) => axis.beyond);
  if (!beyond) return;
  const layer = make("g", { class: "beyond" }, svg);
  for (const one of graph.series) {
    const axis = graph.axes[one.right ? 1 : 0] ?? graph.axes[0];
    if (one.off || one.infinite) continue;
    one.values.forEach((value, i) => {
      if (value === null || (value <= axis.high && value >= axis.low)) return;
      const x = scale.left + scale.x(one.start + i * one.step);
      const d = value > axis.high ? `M${number(x - 5)} ${scale.top + 9}h10l-5 -8z` : `M${number(x - 5)} ${scale.bottom - 9}h10l-5 8z`;
      make("path", { d, fill: one.color }, layer);
    });
  }
  text(layer, beyond.beyond, { class: "end", x: scale.right - 4, y: scale.top + 22 });
}

/** Whether an event line is to be seen: one of its events has no hidden tag in front. */
export const isShown = (graph, shown, hidden) =>
  shown.ids.some((id) => !hidden.has(graph.events[id]?.tags[0] ?? ""));

function events(graph, scale, svg, hidden) {
  const { left, top, bottom } = scale;
  const layer = make("g", { class: "events" }, svg);
  graph.shown.forEach((shown, n) => {
    if (!isShown(graph, shown, hidden)) return;
    const x = left + Math.max(0, scale.x(shown.from));
    const group = make("g", { class: "event", "data-shown": n, stroke: shown.color }, layer);
    const dash = shown.undone ? { "stroke-dasharray": "4 3" } : {};
    const labelled = shown.label ? top - 4 - shown.label[1] * graph.levels[1] - 6 : top;
    if (shown.until !== undefined) {
      const end = Math.max(left + Math.min(scale.width, scale.x(shown.until)), x + 2);
      const fill = shown.failed ? "url(#failed)" : shown.color;
      make("rect", { x, y: top, width: end - x, height: bottom - top, fill, stroke: "none", "fill-opacity": shown.failed ? 0.5 : 0.13 }, group);
      make("path", { d: `M${x} ${labelled}V${bottom}M${x} ${top + 1}H${end}` + (shown.open ? "" : `M${end} ${top}V${bottom}`), ...dash }, group);
    } else {
      make("path", { d: `M${Math.round(x) + 0.5} ${labelled}V${bottom}`, "stroke-width": shown.ids.length > 1 ? 2 : 1.3, ...dash }, group);
    }
    if (shown.failed) {
      make("path", { class: "cross", d: `M${x - 4} ${top + 3}l8 8m0 -8l-8 8` }, group);
    }
    if (shown.undone) {
      make("path", { d: `M${x - 1} ${top + 16}h-8m3 -3l-3 3l3 3`, fill: "none" }, group);
    }
    if (shown.verdict === "worse") {
      make("path", { class: "verdict worse", d: `M${x - 5} ${bottom - 1}l5 -9l5 9z`, stroke: "none" }, group);
    } else if (shown.verdict) {
      make("circle", { class: "verdict better", cx: x, cy: bottom - 5.5, r: 4, stroke: "none" }, group);
    }
    if (shown.label) {
      const [beside, level, words] = shown.label;
      const label = make("text", { class: "label", x: number(x + beside), y: top - 4 - level * graph.levels[1], stroke: "none" }, group);
      label.textContent = words;
      label.style.fill = shown.ink;
    }
  });
  ties(graph, scale, layer, hidden);
}

// A dotted line from each rollback to what it undoes.
function ties(graph, scale, layer, hidden) {
  const lineOf = new Map();
  for (const shown of graph.shown) {
    if (isShown(graph, shown, hidden)) for (const id of shown.ids) lineOf.set(id, shown);
  }
  for (const [id, shown] of lineOf) {
    const undone = lineOf.get(graph.events[id]?.rollback_of);
    if (!undone || undone === shown) continue;
    const [from, to] = [shown, undone].map((one) => scale.left + Math.max(0, scale.x(one.from)));
    const y = scale.top + 16;
    make("path", { class: "tie", d: `M${from} ${y}H${to}`, stroke: shown.color }, layer);
  }
}

/** Draws `graph` into `place`, in the place of what is there, without the events of `hidden` tags. */
export function draw(place, graph, hidden, name) {
  const scale = scales(graph);
  const svg = make("svg", { viewBox: `0 0 ${graph.width} ${graph.height}`, width: graph.width, height: graph.height, role: "img", "aria-label": name });
  const defs = make("defs", {}, svg);
  const hatch = make("pattern", { id: "failed", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, defs);
  make("rect", { class: "hatch", width: 3, height: 7 }, hatch);
  grid(graph, scale, svg);
  const values = drawn(graph);
  const shapes = graph.series.map((one, i) => (one.infinite || one.off ? [] : runs(graph, one, values[i], scale)));
  const inside = { x: scale.left, y: scale.top, width: scale.width, height: scale.height, class: "plot" };
  areas(graph, shapes, scale, make("svg", inside, svg));
  events(graph, scale, svg, hidden);
  lines(graph, shapes, scale, make("svg", inside, svg));
  for (const [level, limit] of graph.limits ?? []) {
    const y = graph.axes[0] && scale.y(graph.axes[0], Number(limit));
    if (y >= 0 && y <= scale.height) {
      make("path", { class: `limit ${level}`, d: `M${scale.left} ${scale.top + y}H${scale.right}` }, svg);
    }
  }
  if (!graph.series.some((one) => one.values.some((value) => value !== null))) {
    const words = graph.series.length ? ["No data in this range"] : ["No series matches", cut(graph.none, scale.width / 8.5)];
    words.forEach((line, i) =>
      text(svg, line, { class: "empty", x: scale.left + scale.width / 2, y: scale.top + scale.height / 2 + i * 18 }));
  }
  outside(graph, scale, svg);
  make("rect", { class: "selection", y: scale.top, height: scale.height, width: 0, x: 0 }, svg).style.display = "none";
  // Not a part of the SVG: it moves with every frame, and the SVG would be painted again.
  const hair = document.createElement("i");
  hair.className = "cross-hair";
  hair.style.display = "none";
  hair.style.top = `${scale.top}px`;
  hair.style.height = `${scale.height}px`;
  place.replaceChildren(svg, hair);
  return { svg, scale, hair };
}

/** The value of a series at a time, as it was sent: of the step that the time is in. */
export function valueAt(one, at) {
  const i = Math.floor((at - one.start) / one.step + 0.5);
  return one.values[i] ?? null;
}

/** A number as people read it: `1.23 k`, `0.0042`, `1.5e+30`; seconds as `3 h`. */
export function readable(value, unit = "", isBinary = false) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (unit === "%") return `${trim(value)} %`;
  if (unit === "s" && size < 1e18) {
    for (const [least, name] of [[86_400, "d"], [3_600, "h"], [60, "min"]]) {
      if (size >= 2 * least) return `${trim(value / least)} ${name}`;
    }
  }
  const after = unit ? ` ${unit}` : "";
  if (size !== 0 && (size >= 1e18 || size < 1e-4)) return value.toExponential(2) + after;
  if (isBinary) {
    const power = [5, 4, 3, 2, 1].find((one) => size >= 1024 ** one);
    return power ? `${trim(value / 1024 ** power)} ${" KMGTP"[power]}i${unit}` : trim(value) + after;
  }
  for (const [least, prefix] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= least) return `${trim(value / (prefix === "k" ? 1e3 : least))} ${prefix}${unit}`;
  }
  return trim(value) + after;
}

function trim(value) {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(size < 0.01 ? 5 : digits)));
}

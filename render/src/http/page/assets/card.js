// The card of an event: what, who, when, for how long, how it went, and the values of the graph
// before and after it.

import { length } from "./live.js";
import { when } from "./panels.js";
import { readable } from "./scene.js";

const SPAN_S = 600; // how far before and after an event values are averaged
const box = document.createElement("div");
box.className = "card";
box.id = "card";
box.setAttribute("role", "tooltip");
box.hidden = true;
document.body.append(box);

let current;

export function hideCard() {
  box.hidden = true;
  current = undefined;
}

function line(parent, name, className, words) {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = words;
  parent.append(element);
  return element;
}

const STATUS = { started: "under way", succeeded: "succeeded", failed: "failed", rolled_back: "rolled back" };

function write(parent, event) {
  const head = line(parent, "strong", "what", event.what);
  if (event.rollback_of !== undefined) line(head, "span", "badge rollback", "rollback");
  if (event.status) line(head, "span", `badge ${event.status}`, STATUS[event.status] ?? event.status);
  const impact = event.impact;
  if (impact) {
    const verdict = impact.verdict.replaceAll("_", " ");
    const starts = impact.sentence.startsWith(verdict);
    line(parent, "p", "impact", starts ? impact.sentence : `${verdict}: ${impact.sentence}`);
  }
  if (event.data) line(parent, "p", "data", event.data.slice(0, 500));
  let time = when(event.when);
  if (event.until) time += `, took ${length(event.until - event.when)}`;
  line(parent, "p", "quiet", time);
  if (event.tags.length) line(parent, "p", "quiet", event.tags.join(" "));
  const links = document.createElement("p");
  const own = document.createElement("a");
  own.href = `${document.body.dataset.up}events/${event.id}/`;
  own.textContent = "Details";
  links.append(own);
  if (impact) {
    const page = document.createElement("a");
    page.href = `${document.body.dataset.up}deploy/${event.id}`;
    page.textContent = "What it changed";
    links.append(" ", page);
  }
  if (/^https?:/.test(event.link ?? "")) {
    const out = document.createElement("a");
    out.href = event.link;
    out.rel = "noopener noreferrer";
    out.textContent = "Link";
    links.append(" ", out);
  }
  parent.append(links);
}

function mean(one, from, until) {
  const first = Math.max(0, Math.ceil((from - one.start) / one.step));
  const last = Math.min(one.values.length, Math.ceil((until - one.start) / one.step));
  const values = one.values.slice(first, Math.max(first, last)).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function changes(parent, panel, shown) {
  const table = document.createElement("table");
  const head = table.insertRow();
  for (const words of ["10 min", "before", "after", ""]) line(head, "th", "", words);
  const end = shown.until ?? shown.from;
  for (const one of panel.graph.series.filter((s) => !s.infinite && !s.unnamed && !s.off).slice(0, 6)) {
    const before = mean(one, shown.from - SPAN_S, shown.from);
    const after = mean(one, end, end + SPAN_S);
    const row = table.insertRow();
    const change = before && after !== null ? Math.round((after / before - 1) * 100) : undefined;
    row.insertCell().textContent = one.name;
    row.insertCell().textContent = readable(before, panel.unit, panel.graph.binary);
    row.insertCell().textContent = readable(after, panel.unit, panel.graph.binary);
    const cell = row.insertCell();
    cell.textContent = change === undefined ? "" : `${change > 0 ? "+" : ""}${change} %`;
    const { good } = panel.figure.dataset;
    if (good && Math.abs(change) >= 10) cell.className = change > 0 === (good === "up") ? "succeeded" : "failed";
  }
  if (table.rows.length > 1) parent.append(table);
}

/** Shows the card of `shown`, a line on the graph of `panel`, beside the pointer. */
export function card(panel, shown, pointer) {
  if (current === shown) return;
  current = shown;
  box.replaceChildren();
  if (shown.ids.length > 1) line(box, "p", "quiet", `${shown.ids.length} events`);
  for (const id of shown.ids.slice(0, 4)) {
    const event = panel.graph.events[id];
    if (event) write(box, event);
  }
  changes(box, panel, shown);
  box.hidden = false;
  const room = document.documentElement.clientWidth;
  const { width, height } = box.getBoundingClientRect();
  const left = pointer.clientX + 14 + width > room ? pointer.clientX - width - 14 : pointer.clientX + 14;
  const top = Math.min(pointer.clientY + 14, innerHeight - height - 8);
  box.style.left = `${Math.max(6, Math.min(left, room - width - 6))}px`;
  box.style.top = `${Math.max(6, top)}px`;
}

// On a phone the card is opened with a tap; a tap beside it closes it.
document.addEventListener("pointerdown", (event) => {
  if (!box.contains(event.target) && !event.target.closest?.(".picture")) hideCard();
});

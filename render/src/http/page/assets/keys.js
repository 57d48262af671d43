// The keyboard: one key for each thing that the pointer does. "?" lists them.

import { card, hideCard } from "./card.js";
import { back, crossAll, crossed, happened, panels, pointedAt, reload, zoom } from "./panels.js";

const up = document.body.dataset.up;
const here = () => panels.find((panel) => panel.graph);

function go(path) {
  location.href = up + path;
}

function shift(share) {
  const graph = here()?.graph;
  if (!graph) return;
  const by = Math.round((graph.until - graph.from) * share);
  zoom(graph.from + by, graph.until + by);
}

function scale(factor) {
  const graph = here()?.graph;
  if (!graph) return;
  const middle = crossed() ?? (graph.from + graph.until) / 2;
  const half = ((graph.until - graph.from) * factor) / 2;
  zoom(Math.round(middle - half), Math.round(middle + half));
}

/** Moves the crosshair by a share of the range, from the right edge at first. */
function cross(share) {
  const graph = here()?.graph;
  if (!graph) return;
  const at = (crossed() ?? graph.until) + (graph.until - graph.from) * share;
  crossAll(Math.max(graph.from, Math.min(graph.until, at)));
}

/** Opens the card of the next event to the right or left of the crosshair. */
function event(step) {
  const panel = here();
  if (!panel) return;
  const at = crossed() ?? (step > 0 ? panel.graph.from - 1 : panel.graph.until + 1);
  const all = panel.graph.shown.filter((shown) => (shown.from - at) * step > 0.5);
  all.sort((a, b) => (a.from - b.from) * step);
  if (!all.length) return hideCard();
  crossAll(all[0].from);
  const box = panel.svg.getBoundingClientRect();
  const x = box.left + panel.scale.left + panel.scale.x(all[0].from);
  panel.place.scrollIntoView({ block: "nearest" });
  card(panel, all[0], { clientX: x, clientY: panel.svg.getBoundingClientRect().top + 40 });
}

/** "What happened here?", at the crosshair of the graph under the pointer. */
function ask() {
  const panel = pointedAt() ?? here();
  if (panel && crossed() !== undefined) happened(panel, crossed());
}

function theme() {
  const links = [...document.querySelectorAll("[data-theme-link]")];
  const current = links.findIndex((link) => link.hasAttribute("aria-current"));
  links[(current + 1) % links.length]?.click();
}

function wall() {
  const query = new URLSearchParams(location.search);
  if (query.get("wall")) query.delete("wall");
  else query.set("wall", "1");
  location.search = query;
}

function search(press) {
  const box = document.getElementById("q");
  if (!box) return go("explore");
  press.preventDefault();
  box.focus();
  box.select();
}

const KEYS = [
  ["/", "search names", search],
  ["e", "explorer", () => go("explore")],
  ["d", "front dashboard", () => go("./")],
  ["v", "events", () => go("events/")],
  ["n", "next event", () => event(1)],
  ["p", "previous event", () => event(-1)],
  ["ArrowLeft", "earlier", () => shift(-0.5)],
  ["ArrowRight", "later", () => shift(0.5)],
  [",", "crosshair to the left", () => cross(-0.02)],
  [".", "crosshair to the right", () => cross(0.02)],
  ["h", "what happened at the crosshair? (or shift and click)", ask],
  ["+", "zoom in", () => scale(0.5)],
  ["-", "zoom out", () => scale(2)],
  ["b", "back to the range before", back],
  ["r", "refresh", reload],
  ["t", "colours: system, light, dark", theme],
  ["w", "wall display", wall],
  ["Escape", "close", close],
  ["?", "this list", help],
];

function close() {
  hideCard();
  crossAll(undefined);
}

const dialog = document.createElement("dialog");
dialog.id = "keys";
dialog.setAttribute("aria-labelledby", "keys-title");

function help() {
  if (!dialog.childElementCount) {
    const title = document.createElement("h2");
    title.id = "keys-title";
    title.textContent = "Keyboard";
    const list = document.createElement("dl");
    for (const [key, words] of KEYS) {
      const term = document.createElement("dt");
      const name = document.createElement("kbd");
      name.textContent = { ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" }[key] ?? key;
      term.append(name);
      const meaning = document.createElement("dd");
      meaning.textContent = words;
      list.append(term, meaning);
    }
    const button = document.createElement("button");
    button.textContent = "Close";
    button.onclick = () => dialog.close();
    dialog.append(title, list, button);
  }
  dialog.showModal();
}

export function start() {
  document.body.append(dialog);
  document.getElementById("help")?.addEventListener("click", help);
  document.addEventListener("keydown", (press) => {
    if (press.ctrlKey || press.metaKey || press.altKey || dialog.open) return;
    if (press.target.closest?.("input, textarea, select") && press.key !== "Escape") return;
    // Arrow keys scroll what can be scrolled.
    if (press.key.startsWith("Arrow") && press.target.closest?.("summary, [role=listbox]")) return;
    const entry = KEYS.find(([key]) => key === press.key);
    if (!entry) return;
    if (press.key.startsWith("Arrow")) press.preventDefault();
    entry[2](press);
  });
}

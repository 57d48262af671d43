// The explorer: names as they are typed, the tree, a graph for the name under the cursor, and an
// editor that completes functions, their parameters and names.

import * as live from "./live.js";
import { redraw } from "./panels.js";

const up = document.body.dataset.up;
const $ = (id) => document.getElementById(id);
const query = () => new URLSearchParams(location.search);

async function json(url) {
  const answer = await fetch(up + url);
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 300));
  live.heardNow();
  return answer.json();
}

function item(parent, name, text, className) {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

// ---- The graph of the targets, or of the name under the cursor.

const figure = document.querySelector(".explore figure");
const editor = $("target");
const targets = () => editor.value.split("\n").map((line) => line.trim()).filter(Boolean);
let previewed;

async function show(list, isPreview) {
  const base = new URLSearchParams(figure.dataset.query);
  base.delete("target");
  for (const target of list) base.append("target", target);
  figure.dataset.query = base;
  figure.classList.toggle("is-preview", isPreview);
  figure.querySelector("h2").textContent = list.length ? list.join(", ").slice(0, 200) : "Choose a name";
  links(list);
  $("share").hidden = list.length === 0;
  const wrong = await redraw(figure, list.length > 0);
  if (!isPreview) refuse(wrong);
}

function refuse(wrong) {
  const box = $("refused");
  box.hidden = !wrong;
  if (!wrong) return;
  const { error, target, position } = wrong;
  const hasPlace = target !== undefined && position !== undefined;
  // The position counts bytes; the caret stands below the character.
  const before = hasPlace ? new TextDecoder().decode(new TextEncoder().encode(target).slice(0, position)) : "";
  box.textContent = hasPlace ? `${target}\n${" ".repeat([...before].length)}^ ${error}` : error;
}

function links(list) {
  const address = (format) => {
    const own = new URLSearchParams();
    for (const target of list) own.append("target", target);
    own.set("from", query().get("from") ?? "-1h");
    for (const name of ["until", "tz"]) if (query().get(name)) own.set(name, query().get(name));
    own.set("events", query().get("events") ?? "*");
    own.set("format", format);
    return `${up}render?${own}`;
  };
  const bar = figure.querySelector(".links");
  bar.replaceChildren();
  if (!list.length) return;
  for (const format of ["svg", "png", "json", "csv"]) {
    const link = item(bar, "a", format.toUpperCase());
    link.href = address(format);
    bar.append(" ");
  }
}

function commit() {
  const own = query();
  own.delete("target");
  for (const target of targets()) own.append("target", target);
  history.replaceState(history.state, "", `?${own}`);
  previewed = undefined;
  show(targets(), false);
}

function preview(name) {
  if (previewed === name) return;
  previewed = name;
  show([name], true);
}

// ---- Names and the tree.

let asked = 0;
async function searchNames() {
  const number = ++asked;
  const words = $("q").value;
  const own = query();
  if (words) own.set("q", words);
  else own.delete("q");
  history.replaceState(history.state, "", `?${own}`);
  if (!words.trim()) return tree();
  try {
    const found = await json(`page/search?q=${encodeURIComponent(words)}`);
    if (number !== asked) return;
    const how = found.fuzzy ? ", by their letters in order" : "";
    $("hits").textContent = `${found.hits.toLocaleString("en")}${found.more ? " and more" : ""} of ${found.of.toLocaleString("en")} names${how}`;
    const list = $("names");
    list.replaceChildren();
    for (const name of found.names) leaf(item(list, "li", ""), name, name);
  } catch (error) {
    if (number === asked) $("hits").textContent = error.message;
  }
}

function leaf(parent, name, text) {
  const link = item(parent, "a", text);
  const own = query();
  own.delete("target");
  own.append("target", name);
  link.href = `?${own}`;
  link.dataset.name = name;
}

async function tree() {
  const number = ++asked;
  const list = $("names");
  $("hits").textContent = "All names as a tree. Type to search.";
  const nodes = await json("metrics/find?query=*").catch(() => []);
  if (number === asked) branches(list, nodes);
}

function branches(list, nodes) {
  list.replaceChildren();
  const leaves = new Set(nodes.filter((node) => node.leaf).map((node) => node.id));
  for (const node of nodes) {
    const entry = item(list, "li", "");
    if (node.leaf) {
      leaf(entry, node.id, node.text);
    } else {
      const button = item(entry, "button", node.text, "branch");
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      button.dataset.branch = node.id;
    }
  }
  return leaves;
}

async function toggle(button) {
  const entry = button.parentElement;
  const inner = entry.querySelector("ul");
  if (inner) {
    inner.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const nodes = await json(`metrics/find?query=${encodeURIComponent(`${button.dataset.branch}.*`)}`).catch(() => []);
  button.setAttribute("aria-expanded", "true");
  branches(item(entry, "ul", ""), nodes);
}

// ---- The editor.

let functions = {};
let choice = -1;

/** The word before the cursor, and where it begins. */
function word() {
  const before = editor.value.slice(0, editor.selectionStart);
  const text = /[\w.*?\-{}[\]:;=]*$/.exec(before)[0];
  return { text, from: before.length - text.length };
}

async function complete() {
  const { text } = word();
  showSignature();
  if (text.length < 2) return closeCompletions();
  const lower = text.toLowerCase();
  const named = Object.keys(functions).filter((name) => name.toLowerCase().startsWith(lower)).slice(0, 8);
  let names = [];
  if (!/^\d/.test(text)) {
    const found = await json(`page/search?q=${encodeURIComponent(text)}`).catch(() => ({ names: [] }));
    if (word().text !== text) return;
    names = found.names.slice(0, 12);
  }
  const list = $("completions");
  list.replaceChildren();
  const all = [...named.map((name) => [`${name}(`, signature(name)]), ...names.map((name) => [name, ""])];
  all.forEach(([insert, help], i) => {
    const entry = item(list, "li", insert);
    entry.setAttribute("role", "option");
    entry.id = `completion-${i}`;
    entry.dataset.insert = insert;
    item(entry, "span", help, "quiet");
  });
  choice = -1;
  list.hidden = all.length === 0 || (all.length === 1 && all[0][0] === text);
}

const signature = (name) => {
  const { params = [] } = functions[name] ?? {};
  return params.map((one) => one.name + (one.required ? "" : "?")).join(", ");
};

/** Shows the parameters of the function around the cursor. */
function showSignature() {
  let depth = 0;
  const before = editor.value.slice(0, editor.selectionStart);
  for (let i = before.length - 1; i >= 0; i -= 1) {
    if (before[i] === ")") depth += 1;
    else if (before[i] === "(" && depth > 0) depth -= 1;
    else if (before[i] === "(") {
      const name = /\w+$/.exec(before.slice(0, i))?.[0];
      if (functions[name]) {
        $("signature").textContent = `${name}(${signature(name)}): ${(functions[name].description ?? "").split("\n")[0]}`;
        return;
      }
    }
  }
  $("signature").textContent = "";
}

function closeCompletions() {
  $("completions").hidden = true;
  choice = -1;
}

function take(entry) {
  const { from } = word();
  editor.setRangeText(entry.dataset.insert, from, editor.selectionStart, "end");
  closeCompletions();
  editor.focus();
  showSignature();
  changed();
}

function choose(step) {
  const entries = [...$("completions").children];
  choice = (choice + step + entries.length) % entries.length;
  entries.forEach((entry, i) => entry.setAttribute("aria-selected", i === choice));
  editor.setAttribute("aria-activedescendant", entries[choice].id);
  entries[choice].scrollIntoView({ block: "nearest" });
}

let timer;
function changed() {
  clearTimeout(timer);
  timer = setTimeout(commit, 350);
}

// ---- Copies.

async function copy(kind) {
  const range = figure.graph ?? { from: Math.floor(live.now()) - 3600, until: Math.floor(live.now()) };
  const base = new URL(up || "./", location.href).href;
  const absolute = new URLSearchParams();
  for (const target of targets()) absolute.append("target", target);
  absolute.set("from", range.from);
  absolute.set("until", range.until);
  const render = (format) => `${base}render?${absolute}&format=${format}`;
  const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  const texts = {
    link: () => `${base}explore?${absolute}`,
    curl: () => `curl '${render("json").replaceAll("'", "%27")}'`,
    markdown: () => `![graph](${render("png").replaceAll(")", "%29").replaceAll("(", "%28")}&events=*&width=800&height=300)`,
    grafana: () => targets().join("\n"),
    panel: () => `[[panels]]\ntitle = ${quoted(targets()[0] ?? "")}\ntargets = [${targets().map(quoted).join(", ")}]\n`,
    csv: () => render("csv"),
  };
  const text = texts[kind]();
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = "copied";
  } catch {
    // Without https the clipboard is closed to pages: the text is shown instead.
    $("copied").textContent = text;
  }
}

export function start() {
  if (!figure) return;
  let typed;
  $("q").addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(searchNames, 60);
  });
  // The server makes its list of names before the first letter is typed.
  $("q").addEventListener("focus", () => json("page/search?q=").catch(() => undefined));
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const first = $("names").querySelector("[data-name]");
    if (first) first.click();
  });
  $("editor").addEventListener("submit", (event) => event.preventDefault());
  const list = $("names");
  list.addEventListener("click", (event) => {
    const branch = event.target.closest("[data-branch]");
    if (branch) return toggle(branch);
    const link = event.target.closest("[data-name]");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const { name } = link.dataset;
    editor.value = event.shiftKey ? [...targets(), name].join("\n") : name;
    commit();
  });
  let wait;
  list.addEventListener("pointerover", (event) => {
    const link = event.target.closest("[data-name]");
    clearTimeout(wait);
    if (link && event.pointerType === "mouse") wait = setTimeout(preview, 150, link.dataset.name);
  });
  list.addEventListener("pointerleave", () => {
    clearTimeout(wait);
    if (previewed !== undefined) commit();
  });
  list.addEventListener("focusin", (event) => {
    const { name } = event.target.dataset;
    if (name && event.target.matches(":focus-visible")) preview(name);
  });
  editor.addEventListener("input", () => {
    complete();
    changed();
  });
  editor.addEventListener("keydown", (event) => {
    if ($("completions").hidden) return;
    const keys = { ArrowDown: () => choose(1), ArrowUp: () => choose(-1), Escape: closeCompletions };
    if (event.key === "Tab" || (event.key === "Enter" && choice >= 0)) {
      event.preventDefault();
      take($("completions").children[Math.max(choice, 0)]);
    } else if (keys[event.key]) {
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    }
  });
  editor.addEventListener("blur", () => setTimeout(closeCompletions, 200));
  $("completions").addEventListener("pointerdown", (event) => {
    const entry = event.target.closest("[data-insert]");
    if (!entry) return;
    event.preventDefault();
    take(entry);
  });
  $("share").addEventListener("click", (event) => {
    if (event.target.dataset.copy) copy(event.target.dataset.copy);
  });
  json("functions").then((all) => (functions = all)).catch(() => {});
  show(targets(), false);
  if (!$("q").value) tree();
  addEventListener("range", () => links(targets()));
}

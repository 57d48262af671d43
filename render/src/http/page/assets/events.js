// The events page: post, edit, end, roll back and delete. Each is a request of the events API; if
// the server wants a token, the page asks for it.

import * as live from "./live.js";

const up = document.body.dataset.up;
let token = "";

async function send(method, path, body) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(up + path, { method, headers, body: body && JSON.stringify(body) });
  if (answer.ok) return live.heardNow();
  if (answer.status === 401) document.getElementById("token")?.closest("label").removeAttribute("hidden");
  let words = await answer.text();
  try {
    words = JSON.parse(words).error ?? words;
  } catch {
    // Plain text.
  }
  throw new Error(words);
}

function say(words) {
  const box = document.getElementById("said");
  box.textContent = words;
  box.hidden = !words;
}

/** The fields of the form as a draft; `isEdit`: empty ones are said, too. */
function draft(form, isEdit) {
  const fields = new FormData(form);
  const event = {};
  for (const name of ["what", "tags", "data", "link", "status"]) {
    const value = fields.get(name).trim();
    if (value || (isEdit && name !== "what" && name !== "status")) event[name] = value || (name === "link" ? null : "");
  }
  const time = (name) => {
    const text = fields.get(name).trim();
    if (!text) return undefined;
    if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
    const at = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(text) ? text : `${text.replace(" ", "T")}Z`);
    if (Number.isNaN(at)) throw new Error(`"${text}" is not a time: write 2026-01-31 14:30 (UTC) or Unix seconds`);
    return at / 1000;
  };
  for (const name of ["when", "until"]) {
    const at = time(name);
    if (at !== undefined) event[name] = at;
  }
  return event;
}

async function attempt(work) {
  say("");
  try {
    await work();
  } catch (error) {
    say(error.message);
  }
}

function fill(form, event) {
  const time = (at) => (at ? new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ") : "");
  form.elements.what.value = event.what;
  form.elements.tags.value = event.tags.join(" ");
  form.elements.data.value = event.data;
  form.elements.link.value = event.link ?? "";
  form.elements.status.value = event.status ?? "";
  form.elements.when.value = time(event.when);
  form.elements.until.value = time(event.until);
}

export function start() {
  const form = document.getElementById("post");
  if (!form) return;
  let editing;
  const box = form.closest("details");
  document.getElementById("token").addEventListener("input", (event) => (token = event.target.value));
  const reset = () => {
    editing = undefined;
    form.reset();
    form.querySelector("button").textContent = "Post";
    box.open = false;
  };
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    attempt(async () => {
      if (editing === undefined) await send("POST", "events/", draft(form, false));
      else await send("PATCH", `events/${editing}/`, draft(form, true));
      reset();
    });
  });
  document.addEventListener("click", (click) => {
    const { act, id } = click.target.dataset ?? {};
    if (!act) return;
    attempt(async () => {
      const answer = await fetch(`${up}events/${id}/`, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error("The event is gone.");
      const event = await answer.json();
      for (const name of ["when", "until"]) if (event[name]) event[name] = Date.parse(event[name]) / 1000;
      if (act === "edit") {
        editing = id;
        fill(form, event);
        form.querySelector("button").textContent = "Save";
        box.open = true;
        form.elements.what.focus();
      } else if (act === "end") {
        await send("PATCH", `events/${id}/`, { status: "succeeded" });
      } else if (act === "rollback") {
        const what = prompt("The deploy that undoes it:", `rollback of ${event.what}`);
        if (what) await send("POST", "events/", { what, tags: [...new Set([...event.tags, "rollback"])].join(" "), rollback_of: Number(id) });
      } else if (act === "delete" && confirm(`Delete "${event.what}"?`)) {
        await send("DELETE", `events/${id}/`);
        if (document.body.dataset.event) location.href = `${up}events/`;
      }
    });
  });
}

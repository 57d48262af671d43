// The connection to the server: one stream of short messages. The first has the whole state, the others what
// changed. If nothing is heard for a while, the page says so, greys its contents, and goes on trying.

const BEAT_LOST_MS = 10_000; // three messages missing
const STALE_DATA_S = 60; // as in strip.rs
const up = document.body.dataset.up;
const banner = document.getElementById("stale");
const listeners = { events: [], dashboards: [], beat: [], back: [] };

let offset = 0; // the server's clock less this one's, in ms
let heard = Date.now();
let state;
let stream;
let retry = 0;

/** The server's Unix seconds. */
export const now = () => (Date.now() + offset) / 1000;

/** Calls `listener` when `what` changes: "events", "dashboards", "beat", or "back" after a silence. */
export const on = (what, listener) => listeners[what].push(listener);

/** Any answer of the server proves that it is there. */
export function heardNow() {
  const wasStale = !banner.hidden;
  heard = Date.now();
  if (wasStale) {
    banner.hidden = true;
    document.body.classList.remove("is-stale");
    for (const listener of listeners.back) listener();
  }
}

function take(changes) {
  const before = state;
  const message = { ...state, ...changes };
  state = message;
  offset = message.now * 1000 - Date.now();
  heardNow();
  if (before && before.version !== message.version) location.reload();
  if (before && before.run !== message.run) for (const listener of listeners.back) listener();
  for (const what of ["events", "dashboards"]) {
    if (before && before[what] !== message[what]) for (const listener of listeners[what]) listener();
  }
  for (const listener of listeners.beat) listener(message);
  ages();
}

function connect() {
  if (stream || document.hidden) return;
  stream = new EventSource(up + "page/live");
  stream.onmessage = (event) => {
    retry = 0;
    take(JSON.parse(event.data));
  };
  stream.onerror = () => {
    disconnect();
    retry = Math.min(retry + 1, 5);
    setTimeout(connect, retry * 1000);
    // A server with too many pages refuses the stream and still answers this.
    ask();
  };
}

function disconnect() {
  stream?.close();
  stream = undefined;
}

async function ask() {
  try {
    const answer = await fetch(up + "page/live?once=1", { signal: AbortSignal.timeout(4000) });
    if (answer.ok) take(await answer.json());
  } catch {
    // The banner says so when it has lasted.
  }
}

/** A duration as the server writes it: `45 s`, `12 min`, `3 h`, `6 d`. */
export function length(seconds) {
  for (const [unit, name] of [[86_400, "d"], [3_600, "h"], [60, "min"]]) {
    if (seconds >= 2 * unit) return `${Math.floor(seconds / unit)} ${name}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

const ago = (seconds) => (seconds < 1 ? "just now" : `${length(seconds)} ago`);

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// All ages on the page are true to the second, the strip's age of the newest data included.
function ages() {
  const data = document.querySelector("[data-data]");
  if (data && state) {
    const last = state.data;
    data.className = "item data" + (last === null ? " quiet" : now() - last > STALE_DATA_S ? " loud" : "");
    write(data, last === null
      ? `No data received since the start ${ago(now() - state.since)}`
      : `Last data ${ago(now() - last)}`);
  }
  for (const time of document.querySelectorAll("time[data-ago]")) {
    write(time, ago(now() - Number(time.dataset.ago)));
  }
}

function check() {
  if (document.hidden) return;
  const silent = Date.now() - heard;
  if (silent > BEAT_LOST_MS) {
    const at = new Date(heard).toLocaleTimeString();
    write(banner, `The server does not answer: everything below is as of ${at}, ${length(silent / 1000)} ago.`);
    banner.hidden = false;
    document.body.classList.add("is-stale");
  } else {
    ages();
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return disconnect();
  // The time asleep says nothing about the server.
  heard = Math.max(heard, Date.now() - BEAT_LOST_MS / 2);
  for (const listener of listeners.back) listener();
  connect();
});
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);
setInterval(check, 1000);
// A stream that hangs is opened again.
setInterval(() => {
  if (!document.hidden && Date.now() - heard > BEAT_LOST_MS) {
    disconnect();
    connect();
  }
}, BEAT_LOST_MS);
connect();

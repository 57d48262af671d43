// The start of every page. Without JavaScript the page shows the same pictures and reloads itself;
// everything here is an addition.

import * as events from "./events.js";
import * as explore from "./explore.js";
import * as keys from "./keys.js";
import * as live from "./live.js";
import * as panels from "./panels.js";

// What the graphs of a verdict show.
const judged = (page) => [...page.querySelectorAll(".board.whole figure")].map((figure) => figure.dataset.query).join();

// The parts of this page as the server writes them now. A part with the focus in a field stays.
async function refreshParts() {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    live.heardNow();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // A new verdict is about other series.
    if (judged(page) !== judged(document)) return location.reload();
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = page.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      const focused = part.contains(document.activeElement) ? document.activeElement : undefined;
      if (!next || next.innerHTML === part.innerHTML || focused?.matches("input, textarea, select")) continue;
      const fresh = document.importNode(next, true);
      part.replaceWith(fresh);
      // The focus stays on the same link or button.
      const { act, id } = focused?.dataset ?? {};
      const href = focused?.getAttribute("href");
      const same = act
        ? `[data-act="${CSS.escape(act)}"][data-id="${CSS.escape(id)}"]`
        : href && `a[href="${CSS.escape(href)}"]`;
      if (same) fresh.querySelector(same)?.focus({ preventScroll: true });
    }
  } catch {
    // The next change, or the banner.
  }
}
live.on("events", refreshParts);
live.on("back", refreshParts);
addEventListener("range", refreshParts);
live.on("dashboards", () => location.reload());

panels.start();
explore.start();
events.start();
keys.start();
document.body.classList.add("has-script");

// On a narrow screen the links are a strip that scrolls: the current one is in sight.
for (const link of document.querySelectorAll("nav [aria-current], .ranges [aria-current]")) {
  const strip = link.parentElement;
  strip.scrollLeft = link.offsetLeft - strip.offsetLeft - (strip.clientWidth - link.offsetWidth) / 2;
}

// The number of received metrics. The start page reloads as soon as the store has a series to draw.
const count = document.querySelector("[data-received]");
if (count) {
  live.on("beat", async (beat) => {
    count.querySelector("strong").textContent = beat.received;
    if (count.dataset.start === undefined) return;
    const answer = await (await fetch(count.dataset.received)).json();
    if (answer.graphs) location.reload();
  });
}

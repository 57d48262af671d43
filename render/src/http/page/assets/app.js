// The start of every page. Without JavaScript the page shows the same pictures and reloads itself;
// everything here is an addition.

import * as live from "./live.js";
import * as panels from "./panels.js";

// The parts of this page as the server writes them now. Parts that somebody works in stay.
async function refreshParts() {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    live.heardNow();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = page.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      if (next && next.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) {
        part.replaceWith(document.importNode(next, true));
      }
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

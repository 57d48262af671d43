// Hover texts, refresh without flicker, a live count. Everything here is an addition: without
// JavaScript the page shows the same pictures and reloads itself.

const root = document.documentElement;
const dark = () =>
  root.dataset.theme === "dark" ||
  (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);

// The server's sentence about a picture that it refuses to draw.
async function reason(url) {
  try {
    const answer = await fetch(url);
    return answer.ok ? "reload the page" : (await answer.text()).trim().slice(0, 500);
  } catch {
    return "the server does not answer";
  }
}

// A picture as an SVG document of its own, so that its titles show on hover. The new document
// replaces the old one only after it has loaded.
function draw(place) {
  const next = document.createElement("object");
  next.type = "image/svg+xml";
  next.className = "next";
  next.setAttribute("aria-label", place.dataset.label);
  next.data = (dark() ? place.dataset.dark : place.dataset.light) + "&_t=" + Date.now();
  next.onload = () => {
    next.className = "";
    for (const old of [...place.children]) if (old !== next) old.remove();
  };
  next.onerror = async () => {
    next.remove();
    if (place.querySelector("object")) return;
    const why = await reason(next.data);
    if (!place.querySelector("object")) place.textContent = "This picture cannot be drawn: " + why;
  };
  for (const late of place.querySelectorAll("object.next")) late.remove();
  place.append(next);
}

const places = [...document.querySelectorAll(".picture")];
const drawAll = () => places.forEach(draw);
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

const every = Number(document.body.dataset.refresh || 0) * 1000;
if (every > 0) {
  let last = Date.now();
  const due = () => {
    if (document.hidden || Date.now() - last < every) return;
    last = Date.now();
    drawAll();
  };
  setInterval(due, 1000);
  document.addEventListener("visibilitychange", due);
}

// The number of received metrics. The start page reloads as soon as the store has a series to draw.
const count = document.querySelector("[data-received]");
if (count) {
  const ask = async () => {
    if (!document.hidden) {
      try {
        const answer = await (await fetch(count.dataset.received)).json();
        count.querySelector("strong").textContent = answer.text;
        if (count.dataset.start !== undefined && answer.graphs) location.reload();
      } catch {
        count.querySelector("strong").textContent = "the server does not answer";
      }
    }
    setTimeout(ask, count.dataset.start !== undefined ? 1000 : 5000);
  };
  ask();
}

// What the page can do beyond pictures: hover texts, refresh without flicker, a live count.
// Everything here is an addition: without it the page shows the same pictures and reloads itself.

const root = document.documentElement;
const dark = () =>
  root.dataset.theme === "dark" ||
  (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);

// A picture as an SVG document of its own, so that its titles show on hover. The new one takes
// the place of the old only once it is there.
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
  next.onerror = () => {
    next.remove();
    if (!place.querySelector("object")) place.textContent = "This picture could not be drawn; its SVG link says why.";
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

// The count of what has arrived; the start page gives way to graphs as soon as there is one.
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

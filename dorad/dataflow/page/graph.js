"use strict";
// Shows the drawing of a dataflow: zooms, moves, highlights, finds.

const SVG = "http://www.w3.org/2000/svg";
const FAR = 0.55;  // below this scale there is room for titles alone

const byId = id => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const round = number => Math.round(number * 10) / 10;

// -- The page

const main = document.querySelector("main");
const view = {x: 0, y: 0, scale: 1};
let svg, bounds;
let boxes = new Map();  // key → {element, placed, title, mark, y}
let edges = [];
let chosen = null;
let fitted = true;
const listeners = {choose: () => {}};

function show() {
  const {x, y, scale} = view;
  svg.setAttribute("viewBox", [-x, -y, svg.clientWidth, svg.clientHeight].map(each => each / scale).join(" "));
  const far = scale < FAR;
  svg.classList.toggle("far", far);
  for (const {placed, title, mark, y} of boxes.values()) {
    // As large as there is room for: a title is to be read before anything else.
    const room = Math.min(15 / scale, placed.height - 10, (placed.width - 10) / (title.textContent.length * 0.62));
    title.style.fontSize = far ? `${round(Math.max(room, 12))}px` : "";
    title.setAttribute("y", far ? placed.y : y);
    if (!mark) continue;
    const size = Math.min(26 / scale, 90);
    mark.style.fontSize = `${round(size)}px`;
    mark.setAttribute("x", placed.x - placed.width / 2);
    mark.setAttribute("y", placed.y - placed.height / 2);
  }
}

function fit() {
  const {clientWidth, clientHeight} = svg;
  view.scale = Math.max(0.004, Math.min(1.25, (clientWidth - 32) / bounds.width, (clientHeight - 32) / bounds.height));
  view.x = (clientWidth - bounds.width * view.scale) / 2 - bounds.left * view.scale;
  view.y = (clientHeight - bounds.height * view.scale) / 2 - bounds.top * view.scale;
  fitted = true;
  show();
}

function zoom(factor, x = svg.clientWidth / 2, y = svg.clientHeight / 2) {
  const scale = Math.max(0.004, Math.min(4, view.scale * factor));
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  fitted = false;
  show();
}

function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  fitted = false;
  show();
}

// Brings a box to the middle, large enough to be read.
function reveal(key) {
  const placed = boxes.get(key)?.placed;
  if (!placed) return;
  view.scale = Math.max(view.scale, 0.9);
  view.x = svg.clientWidth / 2 - placed.x * view.scale;
  view.y = svg.clientHeight / 2 - placed.y * view.scale;
  fitted = false;
  show();
}

// Takes the drawing that is in the page.
function adopt() {
  svg = byId("graph");
  const [left, top, width, height] = (svg.getAttribute("viewBox") ?? "0 0 1 1").split(" ").map(Number);
  bounds = {left, top, width, height};
  boxes = new Map([...svg.querySelectorAll(".box")].map(element => {
    const outer = element.querySelector(".outer"), title = element.querySelector(".title");
    const [x, y, width, height] = ["x", "y", "width", "height"].map(name => Number(outer.getAttribute(name)));
    return [element.dataset.box, {element, title, mark: element.querySelector(".mark"), y: title.getAttribute("y"),
      placed: {x: x + width / 2, y: y + height / 2, width, height}}];
  }));
  edges = [...svg.querySelectorAll(".edge")];
  const kept = chosen?.dataset;
  chosen = kept === undefined ? null : [...edges, ...svg.querySelectorAll(".box")].find(({dataset}) =>
    dataset.box === kept.box && dataset.source === kept.source && dataset.target === kept.target) ?? null;
  highlight(chosen);
  search();
  if (fitted) fit(); else show();
}

// Highlights a box with its edges, or an edge with its boxes.
function highlight(part) {
  svg.classList.toggle("focus", part !== null);
  const ends = new Set(), key = part?.dataset.box;
  for (const edge of edges) {
    const {source, target} = edge.dataset;
    const hot = edge === part || (key !== undefined && (source === key || target === key));
    edge.classList.toggle("hot", hot);
    if (hot) ends.add(source).add(target);
  }
  for (const [name, {element}] of boxes) {
    element.classList.toggle("chosen", element === part);
    element.classList.toggle("hot", element === part || ends.has(name));
  }
}

function choose(part) {
  chosen = part;
  highlight(part);
  listeners.choose(part?.dataset ?? null);
  // The details take some of its room.
  if (part?.dataset.box && !visible(part)) reveal(part.dataset.box);
}

function visible(part) {
  const inner = part.getBoundingClientRect(), outer = svg.getBoundingClientRect();
  return inner.left >= outer.left && inner.right <= outer.right && inner.top >= outer.top && inner.bottom <= outer.bottom;
}

let matches = [], match = -1;
function search() {
  const wanted = byId("search").value.trim().toLowerCase();
  matches = wanted ? [...boxes].filter(([key, {title}]) =>
    key.toLowerCase().includes(wanted) || title.textContent.toLowerCase().includes(wanted)).map(([key]) => key) : [];
  match = -1;
  svg.classList.toggle("searching", wanted !== "");
  const found = new Set(matches);
  for (const [key, {element}] of boxes) element.classList.toggle("match", found.has(key));
  byId("matches").textContent = wanted ? `${matches.length} found` : "";
}

const partOf = event => event.target.closest?.(".box, .edge") ?? null;
main.addEventListener("pointerover", event => { if (!pointers.size) highlight(partOf(event) ?? chosen); });
main.addEventListener("pointerleave", () => highlight(chosen));
main.addEventListener("focusin", event => {
  const part = partOf(event);
  highlight(part ?? chosen);
  if (part?.matches(":focus-visible") && part.dataset.box && !visible(part)) reveal(part.dataset.box);
});
main.addEventListener("focusout", () => highlight(chosen));

const pointers = new Map();
let moved = false;
main.addEventListener("pointerdown", event => {
  if (event.button !== 0 || !svg.contains(event.target)) return;
  if (!pointers.size) moved = false;
  pointers.set(event.pointerId, {x: event.clientX, y: event.clientY});
});
window.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const dx = event.clientX - before.x, dy = event.clientY - before.y;
  if (!moved && Math.hypot(dx, dy) < 4) return;
  moved = true;
  svg.classList.add("dragged");
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const frame = svg.getBoundingClientRect();
    zoom(Math.hypot(event.clientX - other.x, event.clientY - other.y) /
      Math.max(1, Math.hypot(before.x - other.x, before.y - other.y)),
      (event.clientX + other.x) / 2 - frame.left, (event.clientY + other.y) / 2 - frame.top);
  } else pan(dx, dy);
  pointers.set(event.pointerId, {x: event.clientX, y: event.clientY});
});
for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, event => {
  pointers.delete(event.pointerId);
  if (!pointers.size) svg.classList.remove("dragged");
});
main.addEventListener("click", event => {
  if (moved || !svg.contains(event.target)) return;
  const part = partOf(event);
  choose(part === chosen ? null : part);
});
main.addEventListener("wheel", event => {
  if (!svg.contains(event.target)) return;
  event.preventDefault();
  const frame = svg.getBoundingClientRect();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
  zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) / 500),
    event.clientX - frame.left, event.clientY - frame.top);
}, {passive: false});

// The nearest box in a direction: (0, 1) is down.
function neighbour(from, dx, dy) {
  const start = boxes.get(from).placed;
  let nearest = null, least = Infinity;
  for (const [key, {placed}] of boxes) {
    const along = (placed.x - start.x) * dx + (placed.y - start.y) * dy;
    const across = Math.abs((placed.x - start.x) * dy) + Math.abs((placed.y - start.y) * dx);
    if (key !== from && along > 1 && along + 2 * across < least) { nearest = key; least = along + 2 * across; }
  }
  return nearest;
}

const ARROWS = {ArrowDown: [0, 1], ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowLeft: [-1, 0]};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input");
  if (event.key === "Escape") {
    byId("search").value = "";
    search();
    choose(null);
    event.target.blur?.();
  } else if (typing) {
    return;
  } else if (event.key === "/") byId("search").focus();
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") fit();
  else if (event.key in ARROWS && !event.target.closest?.("aside")) {
    const [dx, dy] = ARROWS[event.key], from = event.target.dataset?.box;
    if (from === undefined) pan(-80 * dx, -80 * dy);
    else boxes.get(neighbour(from, dx, dy))?.element.focus();
  } else if ((event.key === "Enter" || event.key === " ") && event.target.closest?.("#graph")) {
    choose(partOf(event));
  } else return;
  event.preventDefault();
});
byId("search").addEventListener("input", search);
byId("tools").addEventListener("submit", event => {
  event.preventDefault();
  if (!matches.length) return;
  match = (match + 1) % matches.length;
  byId("matches").textContent = `${match + 1} of ${matches.length}`;
  reveal(matches[match]);
});
byId("out").addEventListener("click", () => zoom(0.8));
byId("in").addEventListener("click", () => zoom(1.25));
byId("fit").addEventListener("click", fit);
new ResizeObserver(() => { if (fitted) fit(); else show(); }).observe(main);
adopt();

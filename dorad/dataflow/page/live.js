"use strict";
// Follows a running dataflow over a WebSocket: figures on its boxes and edges, details of a chosen one.
// Without fresh figures it shows none: old ones must not look like those of now.

const LOST_MS = 6000;  // without figures, they are of the past
const AGAIN_MS = 1000;
const HISTORY_MS = 5000;
const SYMBOLS = {running: "●", starting: "◐", pending: "?", degraded: "▲", restarting: "↻", failed: "✗", stopped: "○"};
const LOOKS = {failed: "bad", degraded: "warn", restarting: "warn", pending: "warn", running: "running", stopped: "stopped"};
const WRONG_TOKEN = 4401;

let socket = null;
let drawing = null;
let figures = null;  // null: there are none of now
let lastFigures = null;  // when they came
let state = {state: "connecting", text: "connecting"};
let refused = false;
let opened = null;  // what the details show: the dataset of a box or edge, or "problems"
let problem = -1;
let number_ = 0;
const answers = new Map();  // id of a request → function of its answer

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  try {
    socket = new WebSocket(`${scheme}://${location.host}/live`, ["dora.graph", `token.${location.hash.slice(1)}`]);
  } catch {
    refuse();  // a token with characters that none has
    return;
  }
  socket.onmessage = event => receive(JSON.parse(event.data));
  socket.onclose = event => {
    if (event.code === WRONG_TOKEN) return refuse();
    answers.clear();
    const why = event.code === 4429 ? "it has as many viewers as it serves" : "trying again";
    lose("connection", `the connection to \`dora graph --live\` is lost; ${why}`);
    setTimeout(connect, AGAIN_MS);
  };
}

function refuse() {
  refused = true;
  lose("refused", "this address lacks the right token: open the one that `dora graph --live` has printed");
}

function lose(name, text) {
  const since = lastFigures === null ? "" : ` (last figures: ${lastFigures.toLocaleTimeString()})`;
  state = {state: name, text: text + since};
  figures = null;
  update();
}

function receive(message) {
  if (message.type === "graph") {
    drawing = message;
    figures = null;
    draw(message);
  } else if (message.type === "figures") {
    figures = message;
    lastFigures = new Date();
    state = {state: "live", text: "live"};
  } else if (message.type === "state") {
    state = message;
    figures = null;
  } else {
    const answer = answers.get(message.id);
    answers.delete(message.id);
    answer?.(message);
    return;
  }
  update();
}

// The server has placed everything, and made all names and texts harmless.
function draw({name, summary, legend, drawing}) {
  document.title = byId("name").textContent = name;
  byId("summary").textContent = summary;
  byId("legend").innerHTML = legend;
  byId("legend").append(element("li", {}, "messages a second, latency p50/p99, q waiting, ▼ dropped"));
  svg.outerHTML = drawing;
  adopt();
}

// Asks the server; the answer comes as one message, with `error` if there is none.
function ask(what, request, answer) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const id = ++number_;
  answers.set(id, answer);
  socket.send(JSON.stringify({ask: what, id, ...request}));
}

setInterval(() => {
  if (state.state === "live" && Date.now() - lastFigures > LOST_MS)
    lose("silent", `no figures have come for ${Math.round((Date.now() - lastFigures) / 1000)} s`);
}, 1000);

// -- What is shown

function update() {
  const live = state.state === "live", waiting = ["connecting", "waiting", "ended"].includes(state.state);
  const pill = byId("state");
  pill.hidden = false;
  pill.className = live ? "" : waiting ? "quiet" : "lost";
  pill.textContent = live ? `live, ${clock(figures.at)}` : waiting ? state.text : "not live";
  const missing = live ? Object.entries(figures.missing).map(([machine, why]) => `${machine} does not answer: ${why}`) : [];
  byId("alert").hidden = (live && !missing.length) || waiting;
  byId("alert").textContent = live ? missing.join("; ") : state.text;
  svg.classList.toggle("stale", !live);
  const nodes = new Map((figures?.nodes ?? []).map(node => [node.node, node]));
  const inputs = new Map((figures?.edges ?? []).map(edge => [edge.target, edge]));
  for (const [key, box] of boxes) showNode(box, nodes.get(key), state.state);
  for (const part of edges) showEdge(part, inputs);
  showProblems();
  showDetails();
}

function showNode({element, mark, title}, node, now) {
  const look = node ? LOOKS[node.status] ?? "" : "";
  element.classList.remove("bad", "warn", "running", "stopped");
  if (look) element.classList.add(look);
  const line = element.querySelector(".status");
  if (!line) return;
  const use = node?.status === "running" && node.pid !== null ? ` ${number(node.cpu)} %` : "";
  line.textContent = node ? `${SYMBOLS[node.status] ?? "?"} ${node.status}${use}` : now === "live" ? "? no figures" : "–";
  mark.textContent = look === "bad" || look === "warn" ? SYMBOLS[node.status] : "";
  element.setAttribute("aria-label", `${title.textContent}: ${node ? node.status : "unknown"}`);
}

function latencies(edge) {
  if (edge.p99 === null) return "";
  const [unit, size] = unitOf(edge.p99);
  return `${number(edge.p50 / size)}/${number(edge.p99 / size)} ${unit}`;
}

function edgeText(edge) {
  const queue = edge.queued ? ` q${edge.queued}` : "";
  if (edge.broken) return "✗ timed out";
  if (edge.drop_rate > 0) return `▼${number(edge.drop_rate)}/s of ${number(edge.rate)}/s${queue}`;
  return `${number(edge.rate)}/s ${latencies(edge)}${queue}`;
}

function showEdge(part, inputs) {
  let bad = false;
  for (const text of part.querySelectorAll(".figures")) {
    const edge = inputs.get(text.dataset.wire);
    const sick = edge !== undefined && (edge.broken || edge.drop_rate > 0);
    text.textContent = edge ? edgeText(edge) : "–";
    text.classList.toggle("bad", sick);
    bad ||= sick;
  }
  part.classList.toggle("dropping", bad);
}

function showProblems() {
  const count = (figures?.problems.length ?? 0) + (figures?.problems_left_out ?? 0), button = byId("problems");
  button.hidden = !count;
  button.textContent = `✗ ${count} ${count === 1 ? "problem" : "problems"}`;
  button.title = "list them; n goes to the next";
  button.setAttribute("aria-expanded", String(opened === "problems"));
}

function goTo(index) {
  const found = figures?.problems[index];
  if (!found) return;
  problem = index;
  reveal(found.node);
  const part = boxes.get(found.node)?.element;
  if (part) highlight(part);
}

// -- Details

const details = byId("details");
const live = element("div"), past = element("div");

function open(what) {
  opened = what;
  details.hidden = what === null;
  if (what === null) return;
  const close = element("button", {type: "button", class: "close", "aria-label": "close (Escape)"}, "×");
  close.addEventListener("click", () => what === "problems" ? open(null) : choose(null));
  live.replaceChildren();
  past.replaceChildren();
  details.replaceChildren(close, live, past);
  details.scrollTop = 0;
  if (what !== "problems") { showPast(what); }
  showDetails();
}

listeners.choose = part => open(part && (part.box === undefined || boxes.get(part.box)) ? part : null);

function table(rows) {
  return element("table", {}, ...rows.filter(row => row[1] !== "" && row[1] !== null).map(([name, value, bad]) =>
    element("tr", {}, element("th", {scope: "row"}, name), element("td", bad ? {class: "bad"} : {}, String(value)))));
}

const edgesOf = ({source, target}) => (drawing?.bundles ?? [])
  .filter(bundle => bundle.source === source && bundle.target === target).flatMap(bundle => bundle.wires);

function edgeRows(edge) {
  return [["rate", `${number(edge.rate)}/s`], ["dropped now", `${number(edge.drop_rate)}/s`, edge.drop_rate > 0],
    ["queue", `${edge.queued} of ${edge.queue_size}`, edge.queue_size > 0 && edge.queued >= edge.queue_size],
    ["latency p50 / p99", `${duration(edge.p50)} / ${duration(edge.p99)}`], ["slowest", duration(edge.worst)],
    ["data", `${bytes(edge.bandwidth)}/s`], ["sent", edge.sent], ["received", edge.received],
    ["dropped", edge.dropped, edge.dropped > 0], ["lost on the way", edge.lost || "", true],
    ["unreadable", edge.unreadable || "", true], ["state", edge.broken ? "timed out" : "", true]];
}

function nodeParts(key) {
  const box = drawing.boxes.find(each => each.key === key), node = figures?.nodes.find(each => each.node === key);
  const parts = [element("h2", {}, box.title), element("p", {class: "quiet"}, box.tooltip)];
  if (node) {
    parts.push(table([["state", `${SYMBOLS[node.status] ?? ""} ${node.status}`, node.sick], ["CPU", `${number(node.cpu)} %`],
      ["memory", bytes(node.memory)], ["restarts", node.restarts, node.restarts > 0], ["waiting messages", node.queued],
      ["process", node.pid], ["machine", node.machine], ["missed ticks", node.missed, node.missed > 0],
      ["late after a tick", node.tick_delay === null ? "" : duration(node.tick_delay)],
      ["since", node.started_at === null ? "" : clock(node.started_at)]]));
    if (node.why) parts.push(element("pre", {}, node.why));
  }
  for (const edge of figures?.edges ?? []) {
    const [from, to] = [edge.source, edge.target].map(end => end.slice(0, end.indexOf("/")));
    if (to !== key && from !== key) continue;
    parts.push(element("p", edge.drop_rate > 0 || edge.broken ? {class: "bad"} : {},
      `${edge.source} → ${edge.target}: ${edgeText(edge)}`));
  }
  return parts;
}

function showDetails() {
  if (opened === null || drawing === null) return;
  let parts;
  if (opened === "problems") {
    parts = [element("h2", {}, "Problems"), problemList()];
  } else if (opened.box !== undefined) {
    if (!drawing.boxes.some(box => box.key === opened.box)) return open(null);
    parts = nodeParts(opened.box);
  } else {
    parts = [element("h2", {}, `${opened.source} → ${opened.target}`)];
    for (const wire of edgesOf(opened)) {
      const edge = figures?.edges.find(each => each.target === wire.target);
      parts.push(element("h3", {}, `${wire.source} → ${wire.target}`));
      if (edge) parts.push(table(edgeRows(edge)));
    }
  }
  if (figures === null) parts.push(element("p", {class: "bad"}, `no figures of now: ${state.text}`));
  const focused = [...live.querySelectorAll("button")].indexOf(document.activeElement);
  live.replaceChildren(...parts);
  if (focused >= 0) live.querySelectorAll("button")[focused]?.focus();
}

function problemList() {
  const list = element("ol");
  (figures?.problems ?? []).forEach((each, index) => {
    const button = element("button", {type: "button"}, `✗ ${each.text}`);
    button.addEventListener("click", () => goTo(index));
    list.append(element("li", {}, button));
  });
  if (figures?.problems_left_out) list.append(element("li", {}, `${figures.problems_left_out} more`));
  return list;
}

// Curves and waterfalls, as long as the details show the same.
function showPast(what) {
  const key = what.box ?? what.target;
  if (key.includes("/")) return;  // a timer, or log lines: nothing is measured
  const curves = element("div"), traces = element("div");
  past.replaceChildren(curves, traces);
  const wires = what.box === undefined ? edgesOf(what) : null;
  const again = () => {
    if (opened !== what) return;
    ask("history", {node: key}, answer => { if (opened === what) curves.replaceChildren(...curveParts(answer, key, wires)); });
    setTimeout(again, HISTORY_MS);
  };
  again();
  const load = () => {
    traces.replaceChildren(element("h3", {}, "Slowest messages"), element("p", {class: "quiet"}, "reading …"));
    const through = wires === null ? [key] : [wires[0].source, key];
    ask("traces", {through}, answer => { if (opened === what) traces.replaceChildren(...traceParts(answer, load)); });
  };
  load();
}

function curveParts(history, key, wires) {
  if (history.error) return [element("p", {class: "bad"}, `no history: ${history.error}`)];
  const parts = [];
  const named = (name, machine) => machine ? `${name} (${machine})` : name;
  for (const node of history.nodes.filter(each => wires === null && each.node === key)) {
    parts.push(...curveChart(named("CPU", node.machine), [{name: "", values: node.cpu}], history, value => `${number(value)} %`),
      ...curveChart(named("Memory", node.machine), [{name: "", values: node.memory}], history, value => value === null ? "–" : bytes(value)));
  }
  const targets = wires?.map(wire => wire.target);
  for (const edge of history.edges) {
    if (targets ? !targets.includes(edge.target) : !edge.target.startsWith(`${key}/`)) continue;
    parts.push(...curveChart(named(`${edge.target}, messages a second`, edge.machine), [{name: "sent", values: edge.rate},
      {name: "dropped", values: edge.drop_rate}], history, value => number(value)),
    ...curveChart(named(`${edge.target}, latency`, edge.machine), [{name: "p50", values: edge.p50}, {name: "p99", values: edge.p99}],
      history, duration));
  }
  if (history.left_out) parts.push(element("p", {class: "quiet"}, `${history.left_out} curves are left out`));
  return parts;
}

function traceParts(answer, load) {
  const button = element("button", {type: "button"}, "read again");
  button.addEventListener("click", load);
  const parts = [element("h3", {}, "Slowest messages "), button];
  if (answer.error) return [...parts, element("p", {class: "bad"}, `no traces: ${answer.error}`)];
  if (!answer.traces.length) parts.push(element("p", {class: "quiet"}, "no trace is kept"));
  return [...parts, ...answer.traces.map(waterfallChart)];
}

byId("problems").addEventListener("click", () => open(opened === "problems" ? null : "problems"));
document.addEventListener("keydown", event => {
  if (event.target.matches?.("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n" && figures?.problems.length) goTo((problem + 1) % figures.problems.length);
  else if (event.key === "Escape" && opened === "problems") open(null);
});
window.addEventListener("hashchange", () => { if (refused) location.reload(); });

update();
connect();

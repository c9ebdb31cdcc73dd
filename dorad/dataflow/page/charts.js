"use strict";
// Charts of the details: curves of the last minutes, and waterfalls of traces.

const CHART = {width: 400, height: 74, left: 0, top: 14, bottom: 14};
const ROW = {height: 17, label: 132, number: 58};

function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value >= 9999.5) return `${Number((value / 1000).toPrecision(3))}k`;
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)));
}

function unitOf(seconds) {
  return seconds < 0.001 ? ["µs", 1e-6] : seconds < 10 ? ["ms", 1e-3] : ["s", 1];
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const [name, size] = unitOf(seconds);
  return `${number(seconds / size)} ${name}`;
}

function bytes(count) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
    if (count >= size) return `${number(count / size)} ${unit}`;
  return `${number(count)} B`;
}

const clock = seconds => new Date(seconds * 1000).toLocaleTimeString();

// Curves over the same time: [{name, values}], the second one dashed. Gaps are times without a measurement.
function curveChart(title, curves, history, text) {
  const known = curves.flatMap(({values}) => values.filter(value => value !== null));
  const head = element("h3", {}, title);
  if (!known.length) return [head, element("p", {class: "quiet"}, "nothing was measured yet")];
  const most = Math.max(...known, 1e-12), {width, height, top, bottom} = CHART;
  const count = curves[0].values.length;
  const x = index => index / Math.max(1, count - 1) * width;
  const y = value => top + (1 - value / most) * (height - top - bottom);
  const minutes = Math.round(history.step * count / 60);
  const chart = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img"},
    shape("path", {class: "axis", d: `M0 ${height - bottom}H${width}M0 ${top}H${width}`}),
    shape("text", {x: 0, y: 6}, text(Math.max(...known))),
    shape("text", {x: 0, y: height - 6}, `−${minutes} min`),
    shape("text", {class: "end", x: width, y: height - 6}, clock(history.at)));
  curves.forEach(({values}, index) => {
    let drawn = "", down = false;
    values.forEach((value, place) => {
      if (value !== null) drawn += `${down ? "L" : "M"}${round(x(place))} ${round(y(value))}`;
      // A point alone is seen by its round end.
      if (value !== null && !down) drawn += "h.1";
      down = value !== null;
    });
    chart.append(shape("path", {class: index ? "curve second" : "curve", "stroke-linecap": "round", d: drawn}));
  });
  const last = curves.map(({name, values}, index) =>
    `${name ? `${name}${index ? " (dashed)" : ""} ` : ""}${text(values[values.length - 1])}`).join(" · ");
  chart.setAttribute("aria-label", `${title}: now ${last}, most ${text(Math.max(...known))}`);
  head.append(element("span", {class: "quiet"}, `  ${last}`));
  return [head, chart];
}

function waterfallChart(trace) {
  const end = Math.max(...trace.rows.map(row => row.end), 1e-9), {width} = CHART;
  const room = width - ROW.label - ROW.number, height = trace.rows.length * ROW.height + 4;
  const chart = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${trace.path}, ${duration(trace.duration)}`});
  trace.rows.forEach((row, index) => {
    const y = index * ROW.height, begin = ROW.label + row.begin / end * room;
    const long = Math.max(2, (row.end - row.begin) / end * room);
    const label = row.label.length > 20 ? `${row.label.slice(0, 19)}…` : row.label;
    const note = row.note ? `\n${row.note}` : "";
    chart.append(shape("g", {}, shape("title", {}, `${row.label} ${row.kind} ${duration(row.end - row.begin)}${note}`),
      shape("text", {x: row.label.startsWith("└") ? 8 : 0, y: y + 9}, label),
      shape("rect", {class: `bar ${row.kind}`, x: round(Math.min(begin, width - ROW.number - 2)), y: y + 3,
        width: round(long), height: 11, rx: 1.5}),
      shape("text", {class: "end", x: width, y: y + 9}, duration(row.end - row.begin))));
  });
  const made = element("div", {class: "trace"}, element("p", {}, element("b", {}, duration(trace.duration)),
    `  ${trace.path}`), element("p", {class: "quiet"}, `trace ${trace.id.slice(0, 8)}, at ${clock(trace.start)}`), chart);
  if (trace.rows_left_out) made.append(element("p", {class: "quiet"}, `${trace.rows_left_out} more rows are left out`));
  for (const text of trace.troubles) made.append(element("p", {class: "bad"}, text));
  return made;
}

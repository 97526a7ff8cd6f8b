// Charts on SVG: lines over time, histograms, and the tokens of one request. Used by the report too.

import { h, number, s } from "./dom.js";

const HEIGHT = 150, LEFT = 44, RIGHT = 10, TOP = 14, BOTTOM = 20;

/** The least of 1, 2 and 5 times a power of ten that is not below a number. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * power >= value * 0.999) * power;
}

const x = (share, width) => LEFT + share * (width - LEFT - RIGHT);
const y = (share, height = HEIGHT) => height - BOTTOM - share * (height - TOP - BOTTOM);

function frame(title, className) {
  const legend = h("div", { class: "legend" });
  const svg = s("svg", { role: "img", "aria-label": title });
  const node = h("figure", { class: `chart ${className}` }, h("figcaption", {}, h("h3", {}, title), legend), svg);
  return { node, svg, legend };
}

/** How high a value is, 0 to 1; on a logarithmic axis from 0.01 on. */
const shareOf = (value, top, isLog) => (isLog ? Math.max(0, Math.log10(value / 0.01) / Math.log10(top / 0.01)) : value / top);

function scale(svg, width, top, unit, isLog = false) {
  const decades = isLog ? Array.from({ length: Math.round(Math.log10(top / 0.01)) + 1 }, (_, index) => 0.01 * 10 ** index) : [];
  for (const value of isLog ? decades : [0, top / 2, top]) {
    const share = shareOf(value, top, isLog);
    svg.append(
      s("line", { class: "gridline", x1: LEFT, x2: width - RIGHT, y1: y(share), y2: y(share) }),
      s("text", { class: "axis", x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, number(value, 2)),
    );
  }
  svg.append(s("text", { class: "axis", x: LEFT, y: 9 }, unit));
}

/** Lines over time. draw(points, marks, from, to): each point has t and values, null where there is none. */
export function lines(title, unit, names, isLog = false) {
  const { node, svg, legend } = frame(title, "card");
  const values = names.map((name, index) => {
    const value = h("b", {}, "-");
    legend.append(h("span", { class: `c${index + 1}` }, h("i", {}), h("em", {}, name), value));
    return value;
  });
  let last = null, pointer = null;
  const shown = (point) => values.forEach((value, index) => { value.textContent = number(point?.values[index], 2); });

  function draw(points, marks, from, to) {
    last = [points, marks, from, to];
    const width = svg.clientWidth || 390;
    const highest = Math.max(0, ...points.flatMap((point) => point.values.map((value) => value ?? 0)));
    const top = isLog ? 10 ** Math.max(0, Math.ceil(Math.log10(highest || 1))) : ceiling(highest);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren();
    scale(svg, width, top, unit, isLog);
    const at = (t) => x((t - from) / (to - from), width);
    const steps = width < 300 ? 2 : 5;
    for (let step = 0; step <= steps; step += 1) {
      const ago = (to - from) * (1 - step / steps);
      const text = step === steps ? "now" : ago >= 120 ? `-${number(ago / 60)} min` : `-${number(ago, 0)} s`;
      const anchor = step === 0 ? "start" : step === steps ? "end" : "middle";
      svg.append(s("text", { class: "axis", x: x(step / steps, width), y: HEIGHT - 4, "text-anchor": anchor }, text));
    }
    let taken = -Infinity;
    for (const mark of marks.filter((each) => each.t >= from && each.t <= to)) {
      const place = at(mark.t);
      svg.append(s("line", { class: "markline", x1: place, x2: place, y1: TOP, y2: y(0) }, s("title", {}, mark.text)));
      if (place - taken < 70) continue;
      const isRight = place > width - 90;
      svg.append(s("text", { class: "marktext", x: place + (isRight ? -4 : 4), y: TOP + 8, "text-anchor": isRight ? "end" : "start" }, mark.text.slice(0, 14)));
      taken = place;
    }
    names.forEach((_, index) => {
      let path = "", before = -Infinity;
      for (const { t, values: each } of points) {
        if (each[index] === null || each[index] === undefined || t < from) continue;
        path += `${t - before > 3.5 * (points.step ?? 1) ? "M" : "L"}${at(t).toFixed(1)} ${y(shareOf(each[index], top, isLog)).toFixed(1)}`;
        before = t;
      }
      if (path) svg.append(s("path", { class: `series c${index + 1}`, d: path, "vector-effect": "non-scaling-stroke" }));
    });
    let point = points.at(-1);
    if (pointer !== null && points.length) {
      const wanted = from + ((pointer - LEFT) / (width - LEFT - RIGHT)) * (to - from);
      point = points.reduce((best, each) => (Math.abs(each.t - wanted) < Math.abs(best.t - wanted) ? each : best));
      svg.append(s("line", { class: "cursor", x1: at(point.t), x2: at(point.t), y1: TOP, y2: y(0) }));
    }
    shown(point);
    const told = names.map((name, index) => `${name} ${number(point?.values[index], 2)}`).join(", ");
    svg.setAttribute("aria-label", `${title}, ${unit}: ${told}`);
  }
  const move = (place) => { pointer = place; if (last) draw(...last); };
  svg.addEventListener("pointermove", (event) => move(event.offsetX));
  svg.addEventListener("pointerleave", () => move(null));
  new ResizeObserver(() => last && draw(...last)).observe(node);
  return { node, draw };
}

/** Bars of what was, and a line of what was asked, by the upper bounds of buckets, in ms. */
export function histogram(title) {
  const { node, svg, legend } = frame(title, "histogram");
  legend.append(h("span", { class: "c2" }, h("i", {}), h("em", {}, "asked")), h("span", { class: "c1" }, h("i", {}), h("em", {}, "actual")));
  let last = null;

  function draw(bounds, asked, actual) {
    last = [bounds, asked, actual];
    const width = svg.clientWidth || 390;
    const used = bounds.map((_, index) => asked[index] || actual[index]);
    const first = Math.max(0, used.findIndex(Boolean) - 1), end = Math.min(bounds.length, used.findLastIndex(Boolean) + 2);
    const count = Math.max(1, end - first), top = ceiling(Math.max(1, ...asked, ...actual));
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.replaceChildren();
    scale(svg, width, top, "count");
    let path = `M${LEFT} ${y(0)}`;
    for (let index = first; index < end; index += 1) {
      const left = x((index - first) / count, width), right = x((index - first + 1) / count, width);
      const high = y(actual[index] / top);
      const bound = bounds[index] === null ? "more" : number(bounds[index], 2);
      svg.append(s("rect", { class: "bar", x: left + 1, y: high, width: Math.max(1, right - left - 2), height: y(0) - high }, s("title", {}, `up to ${bound} ms: ${number(actual[index])}, asked ${number(asked[index])}`)));
      path += `V${y(asked[index] / top)}H${right}`;
      if ((index - first) % Math.ceil(count / (width / 48)) === 0) svg.append(s("text", { class: "axis", x: right, y: HEIGHT - 4, "text-anchor": "end" }, bound));
    }
    svg.append(s("path", { class: "step", d: `${path}V${y(0)}` }));
    svg.setAttribute("aria-label", `${title}: ${number(actual.reduce((sum, each) => sum + each, 0))} in ${count} buckets`);
  }
  new ResizeObserver(() => last && draw(...last)).observe(node);
  return { node, draw };
}

/** The tokens of one request on a line, in ms: when they were due below, when they came above. */
export function tokenLine(title, names) {
  const { node, svg, legend } = frame(title, "tokens");
  const high = 96;
  names.forEach(([name, className]) => legend.append(h("span", { class: className === "left" ? "c1" : className === "arrived" ? "c3" : "c5" }, h("i", {}), h("em", {}, name))));
  let last = null;

  function draw(...sets) {
    last = sets;
    const width = svg.clientWidth || 390, most = Math.max(1, ...sets.flat().filter((each) => !Number.isNaN(each)));
    const at = (value) => x(value / most, width), middle = 46, [due] = sets;
    svg.setAttribute("viewBox", `0 0 ${width} ${high}`);
    svg.replaceChildren(s("line", { class: "gridline", x1: LEFT, x2: width - RIGHT, y1: middle, y2: middle }));
    sets.forEach((times, row) => {
      const from = row === 0 ? middle : middle - 4 - 18 * (row - 1), to = row === 0 ? middle + 18 : from - 14;
      times.forEach((time, index) => {
        if (Number.isNaN(time)) return;  // its text left with a later one
        const lag = row && due[index] !== undefined ? time - due[index] : 0;
        svg.append(s("line", { class: `${names[row][1]}${lag > 1 && names[row][1] === "left" ? " late" : ""}`, x1: at(time), x2: at(time), y1: from, y2: to }, s("title", {}, `token ${index}: ${names[row][0]} ${number(time, 2)} ms${row ? `, ${number(lag, 2)} ms after it was due` : ""}`)));
      });
      svg.append(s("text", { class: "axis", x: 0, y: (from + to) / 2 + 4 }, names[row][0]));
    });
    for (const share of [0, 0.5, 1]) svg.append(s("text", { class: "axis", x: x(share, width), y: high - 4, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" }, `${number(most * share)} ms`));
  }
  new ResizeObserver(() => last && draw(...last)).observe(node);
  return { node, draw };
}

// Live: what the last five minutes were, in charts, histograms and counts.

import { clip, h, number, put } from "./dom.js";
import { histogram, lines } from "./chart.js";
import { KEPT_S } from "./feed.js";

const DEFAULT_MODELS = 6;

// Of each chart: title, unit, names, the values of a point, whether there is anything to draw, and whether it is logarithmic.
const CHARTS = [
  ["How late tokens left", "ms after they were due", ["p50", "p99"], (p) => [p.lagP50, p.lagP99], null, true],
  ["Requests", "per second", ["2xx", "429", "other 4xx", "5xx", "client left"], (p) => p.statuses],
  ["Tokens", "per second", ["tokens"], (p) => [p.tokens]],
  ["Streams", "at that instant", ["in flight", "waiting"], (p) => [p.inFlight, p.waiting]],
  ["Time to first token", "ms, mean", ["actual", "asked"], (p) => [p.ttft.actual, p.ttft.asked]],
  ["Gap between tokens", "ms, mean", ["actual", "asked"], (p) => [p.itl.actual, p.itl.asked]],
  ["CPU of each worker", "%, and lag of its event loop, ms", ["busiest CPU", "worst lag"], (p) => [p.cpu, p.loopLag]],
  ["Refused by limits", "per second", ["refused"], (p) => [p.refused], (p) => p.refused || p.limits.length],
  ["Engine: sequences", "at that instant", ["running", "waiting"], (p) => [p.engine?.running, p.engine?.waiting], (p) => p.engine],
  ["Engine: cache", "%", ["in use", "prefix hits"], (p) => [p.engine?.cache, p.engine?.hits], (p) => p.engine],
];

export function live(app) {
  const { feed } = app;
  const charts = CHARTS.map(([title, unit, names, values, isUsed, isLog]) => ({ ...lines(title, unit, names, isLog), values, isUsed }));
  const grid = h("div", { class: "grid" }, charts.map((chart) => chart.node));
  const models = h("div", { class: "grid" });
  const all = h("button", { type: "button", hidden: true, onclick: () => { most = Infinity; render(); } });
  const counts = h("div", { class: "grid" });
  const tables = { faults: table("Faults", ["kind", "so far"]), rules: table("Rules", ["rule", "decided"]), limits: table("Fullest limits", ["bucket", "used", "of"]) };
  put(counts, Object.values(tables).map((each) => each.node));
  const histograms = new Map();
  let most = DEFAULT_MODELS, isShown = true;

  // What is out of sight is not drawn: several open pages would take time from the server beside them.
  const inSight = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? inSight.add(entry.target) : inSight.delete(entry.target);
    if (entries.some((entry) => entry.isIntersecting)) render();
  }, { rootMargin: "300px" });
  charts.forEach((chart) => watcher.observe(chart.node));

  function table(title, columns) {
    const rows = h("tbody", {});
    const node = h("div", { class: "card" }, h("h3", {}, title), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, h("table", {},
      h("thead", {}, h("tr", {}, columns.map((name, index) => h("th", { scope: "col", class: index ? "n" : "" }, name)))), rows)));
    return { node, fill: (entries, empty) => put(rows, entries.length ? entries.slice(0, 12).map((cells) => h("tr", {}, cells.map((cell, index) => h("td", { class: index ? "n" : "" }, index ? cell : clip(cell, 256))))) : h("tr", {}, h("td", { class: "soft", colspan: columns.length }, empty))) };
  }

  function drawModels() {
    const found = [...feed.models.entries()].sort(([, a], [, b]) => b.requests - a.requests);
    for (const [name, each] of found.slice(0, most)) {
      if (!histograms.has(name)) {
        const [ttft, itl] = [histogram("TTFT, ms"), histogram("ITL, ms")];
        const node = h("div", { class: "card" }, h("h3", {}, clip(name, 256)), ttft.node, itl.node);
        histograms.set(name, { node, ttft, itl });
        models.append(node);
        watcher.observe(node);
      }
      const { node, ttft, itl } = histograms.get(name);
      if (!inSight.has(node)) continue;
      ttft.draw(each.bounds.ttft, each.ttft.asked, each.ttft.actual);
      itl.draw(each.bounds.itl, each.itl.asked, each.itl.actual);
    }
    const more = found.length - Math.min(most, found.length);
    all.hidden = more <= 0;
    all.textContent = `Show ${more} more models`;
  }

  function render() {
    if (!isShown || document.hidden) return;
    const to = feed.last?.t ?? Date.now() / 1000;
    for (const chart of charts) {
      chart.node.hidden = Boolean(chart.isUsed && !feed.points.some(chart.isUsed));
      if (inSight.has(chart.node)) chart.draw(feed.points.map((point) => ({ t: point.t, values: chart.values(point) })), feed.marks, to - KEPT_S, to);
    }
    drawModels();
    const last = feed.last;
    if (!last) return;
    tables.faults.fill(Object.entries(last.faults).sort(([, a], [, b]) => b - a).map(([kind, count]) => [kind, number(count, 0)]), "No request has failed on purpose.");
    tables.rules.fill(Object.entries(last.rules).sort(([, a], [, b]) => b - a).map(([name, count]) => [name, number(count, 0)]), "No rule has decided anything.");
    tables.limits.fill(last.limits.map((each) => [`${each.key || "all keys"} ${each.model} ${each.kind}`, h("meter", { min: 0, max: 1, value: each.used, "aria-label": `${each.model} ${each.kind}: part used` }), number(each.limit, 0)]), "No limit is in use.");
  }
  feed.addEventListener("change", render);
  const node = h("section", { "aria-label": "Live" }, h("h2", {}, "The last five minutes"), grid,
    h("h2", {}, "Times by model, since this page was opened"), models, h("div", { class: "row" }, all), h("h2", {}, "Since the start"), counts);
  return { node, show: () => { isShown = true; render(); }, hide: () => { isShown = false; } };
}

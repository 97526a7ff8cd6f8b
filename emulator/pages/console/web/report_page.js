// The page of a saved report: it reads its figures from itself.

import { clip, h, ms, number } from "./dom.js";
import { histogram, lines } from "./chart.js";

const data = JSON.parse(document.getElementById("data").textContent);
const day = (at) => new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ");

function table(title, columns, rows) {
  const cells = (row) => h("tr", {}, row.map((cell, index) => h("td", { class: index ? "n" : "" }, index ? cell : clip(cell, 256))));
  return h("div", { class: "card" }, h("h2", {}, title), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((name, index) => h("th", { scope: "col", class: index ? "n" : "" }, name)))),
    h("tbody", {}, rows.length ? rows.map(cells) : h("tr", {}, h("td", { class: "soft" }, "none"))))));
}

const counts = (title, what, found) => table(title, [what, "requests"], Object.entries(found).sort(([, a], [, b]) => b - a).map(([name, count]) => [name, number(count, 0)]));
const quantiles = (found) => (found ? [ms(found.p50, 2), ms(found.p99, 2), ms(found.max, 2)] : ["-", "-", "-"]);

const CHARTS = [
  ["Requests", "per second, by their end", ["2xx", "4xx", "5xx", "client left"], (p) => p.statuses],
  ["Tokens", "per second", ["tokens"], (p) => [p.tokens]],
  ["How late tokens left", "ms, the worst of each request", ["median", "highest"], (p) => p.lag, true],
  ["Time to first token", "ms, median", ["actual", "asked"], (p) => p.ttft],
  ["Gap between tokens", "ms, median", ["actual", "asked"], (p) => p.itl],
];

const main = document.getElementById("content");
const { overall } = data;
main.append(
  h("p", {}, `${day(data.from)} to ${day(data.to)} (UTC). Emulator ${data.version}, revision ${data.revision}. `,
    data.is_cut ? h("b", {}, "The journal holds no more than its last rows: the span begins later than was asked. ") : ""),
  h("div", { class: "grid" },
    table("All requests", ["", ""], [["requests", number(overall.requests, 0)], ["failed", number(overall.failed, 0)], ["tokens", number(overall.tokens, 0)], ["requests/s", number(overall.rate, 2)]]),
    table("Times", ["", "p50", "p99", "max"], [["TTFT asked", ...quantiles(overall.ttft_asked)], ["TTFT actual", ...quantiles(overall.ttft)], ["ITL asked", ...quantiles(overall.itl_asked)], ["ITL actual", ...quantiles(overall.itl)], ["late by (worst token)", ...quantiles(overall.lag)]]),
    table("Marks", ["", "when"], data.marks.map((mark) => [mark.text, day(mark.t)]))));
const grid = h("div", { class: "grid" });
main.append(h("h2", {}, "Over time"), grid);
const points = (values) => Object.assign(data.points.map((point) => ({ t: point.t, values: values(point) })), { step: data.step_s });
for (const [title, unit, names, values, isLog] of CHARTS) {
  const chart = lines(title, unit, names, isLog);
  grid.append(chart.node);
  chart.draw(points(values), data.marks, data.from, data.to);
}
const models = h("div", { class: "grid" });
main.append(h("h2", {}, "By model"), models);
for (const model of data.models) {
  const [ttft, itl] = [histogram("TTFT, ms"), histogram("ITL, ms")];
  models.append(h("div", { class: "card" }, h("h3", {}, clip(model.name, 256), ` ${number(model.requests, 0)} requests`), ttft.node, itl.node));
  ttft.draw(data.bounds, model.ttft_asked, model.ttft);
  itl.draw(data.bounds, model.itl_asked, model.itl);
}
main.append(
  h("div", { class: "grid" }, counts("Statuses", "status", data.statuses), counts("Faults", "kind", data.faults), counts("Rules", "rule", data.rules)),
  table("The ten slowest", ["id", "model", "status", "total", "asked", "late"], data.slowest.map((row) => [row.id, clip(row.model, 64), row.status, ms(row.total), ms(row.total_asked), ms(row.lag, 2)])),
  table("Settings that differ from the start", ["setting", "value"], Object.entries(data.changed).map(([name, value]) => [name, clip(JSON.stringify(value), 256)])),
  h("div", { class: "card" }, h("h2", {}, "Rules in force"), h("pre", {}, JSON.stringify(data.rules_in_force, null, 1))),
  h("div", { class: "card" }, h("h2", {}, "Settings"), h("pre", {}, JSON.stringify(data.settings, null, 1))));

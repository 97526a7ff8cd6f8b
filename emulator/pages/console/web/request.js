// One request: why it took as long as it did, what decided each value, and its tokens on a line.

import { clip, copying, h, ms, number } from "./dom.js";
import { tokenLine } from "./chart.js";
import { curl, pythonOf } from "./snippets.js";

const pair = (times) => (times ? [ms(times.asked_ms, 2), ms(times.actual_ms, 2)] : ["-", "-"]);

/** Why a request took as long as it did, in words. */
function why(row) {
  const total = row.total?.actual_ms, parts = [];
  if (row.status >= 400) parts.push(`It was answered with ${row.status}${row.code ? ` (${row.code})` : ""}.`);
  if (row.ttft?.asked_ms != null && total != null) {
    const gaps = (row.total.asked_ms ?? 0) - row.ttft.asked_ms;
    parts.push(`It took ${ms(total)}: ${ms(row.ttft.asked_ms)} were asked for the first token and ${ms(gaps)} for the ${number(Math.max(0, row.tokens_out - 1), 0)} after it.`);
  } else if (total != null) parts.push(`It took ${ms(total)}.`);
  if (row.queue_ms > 0.05) parts.push(`It waited ${ms(row.queue_ms)} in the engine's queue.`);
  if (row.worst_lag_ms != null) parts.push(row.worst_lag_ms > 1 ? `The emulator itself was up to ${ms(row.worst_lag_ms, 2)} late.` : `The emulator added no more than ${ms(row.worst_lag_ms, 2)}.`);
  if (row.fault) parts.push(`It failed on purpose: ${row.fault}.`);
  if (row.client_left) parts.push("The client left before its end.");
  return parts.join(" ");
}

/** The request again, as far as the journal tells it. */
function again(row) {
  const headers = Object.fromEntries([["X-TTFT-MS", row.ttft?.asked_ms], ["X-ITL-MS", row.itl?.asked_ms], ["X-OUTPUT-LENGTH", row.tokens_out || null]].filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => [name, String(Math.round(value * 1000) / 1000)]));
  if (row.scope) headers["X-EMULATION-SCOPE"] = row.scope;
  let body = null;
  try { body = JSON.parse(row.body ?? ""); } catch { /* not kept, or not in whole */ }
  if (body) return { path: row.path, headers: {}, body };
  const text = "Hello!";
  const said = row.path === "/v1/chat/completions" ? { messages: [{ role: "user", content: text }] } : row.path === "/v1/completions" ? { prompt: text } : { input: text };
  const isTimed = ["/v1/chat/completions", "/v1/completions", "/v1/responses"].includes(row.path);
  return { path: row.path, headers, body: { model: row.model, ...said, ...(isTimed && row.stream ? { stream: true } : {}) } };
}

export function details(app, row) {
  const tokens = row.tokens ?? [];
  const line = tokenLine(`Tokens${tokens.length < row.tokens_out ? `: the first ${tokens.length} of ${row.tokens_out}` : ""}`, [["due", "due"], ["left", "left"]]);
  const rule = { name: `like-${(row.model || "request").replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 40)}`, match: { model: row.model.slice(0, 256).replace(/[[*?]/g, "[$&]") }, fault: { status: 503 } };
  const decided = Object.entries(row.decided ?? {});
  const facts = [["id", row.id], ["worker", row.worker], ["revision", row.revision], ["key", row.key || "none"], ["scope", row.scope || "none"], ["prompt tokens", number(row.tokens_in, 0)], ["tokens", number(row.tokens_out, 0)], ["finish reason", row.finish_reason || "-"], ["rules", row.rules.join(", ") || "none"], ["body", `${number(row.bytes_in, 0)} bytes`]];
  const node = h("div", {},
    h("p", { class: "why" }, why(row)),
    h("div", { class: "halves" },
      h("table", {}, h("thead", {}, h("tr", {}, ["", "asked", "actual"].map((name, index) => (index ? h("th", { scope: "col", class: "n" }, name) : h("td", {}))))),
        h("tbody", {}, [["TTFT", row.ttft], ["ITL", row.itl], ["total", row.total]].map(([name, times]) => h("tr", {}, h("th", { scope: "row" }, name), pair(times).map((text) => h("td", { class: "n" }, text)))))),
      h("table", {}, h("thead", {}, h("tr", {}, ["value", "decided by"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, [...decided, ["all else", "setting"]].map(([name, source]) => h("tr", {}, h("td", {}, name), h("td", {}, clip(source, 100))))))),
    line.node,
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("span", { class: "whole" }, value))))),
    h("div", { class: "row" },
      copying("Copy as curl", () => curl(again(row))), copying("Copy as Python", () => pythonOf(again(row))),
      h("button", { type: "button", class: "main", onclick: () => app.open("control", { rule, id: row.id }) }, "Make a rule of it")),
    row.body ? h("details", {}, h("summary", {}, "The body"), h("pre", {}, row.body)) : null);
  line.draw(tokens.map((each) => each.due_ms), tokens.map((each) => each.left_ms ?? NaN));
  return node;
}

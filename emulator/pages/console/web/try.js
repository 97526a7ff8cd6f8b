// Try it: one request from this browser, with what was asked, what left and what arrived.

import { copying, field, h, ms, put } from "./dom.js";
import { tokenLine } from "./chart.js";
import { ask } from "./api.js";
import { curl, pythonOf } from "./snippets.js";
import { sendChat } from "./stream.js";

const FAULTS = ["", "status 429", "status 500", "status 503", "error", "eof", "no-done", "close", "reset", "stall", "malformed"];
const PLACED = ["error", "eof", "close", "reset", "stall", "malformed"];

function slider(label, unit, most, value, step = 1) {
  const exact = h("input", { type: "number", min: 0, max: most, step: "any", value, "aria-label": `${label}, ${unit}, as a number` });
  const range = h("input", { type: "range", min: 0, max: most, step, value, "aria-label": `${label}, ${unit}` });
  range.addEventListener("input", () => { exact.value = range.value; exact.dispatchEvent(new Event("input", { bubbles: true })); });
  exact.addEventListener("input", () => { range.value = exact.value; });
  return { node: h("div", { class: "slider" }, h("span", { class: "note" }, `${label}, ${unit}`), range, exact), get: () => exact.value, set: (given) => { exact.value = given; range.value = given; } };
}

const mean = (values) => (values.length ? values.reduce((sum, each) => sum + each, 0) / values.length : null);

export function tryIt(app) {
  const model = h("input", { value: "gpt-4", maxlength: 256 });
  const message = h("textarea", { rows: 2, value: "Tell me a joke" });
  const ttft = slider("TTFT", "ms", 3000, 300), itl = slider("ITL", "ms", 300, 50), length = slider("Length", "tokens", 300, 30);
  const jitter = h("input", { placeholder: "none, or lognormal:0.3", maxlength: 128 });
  const fault = h("select", {}, FAULTS.map((each) => h("option", { value: each }, each || "none")));
  const token = h("input", { type: "number", min: 0, step: 1, placeholder: "at its start" });
  const apiKey = h("input", { type: "password", autocomplete: "off", placeholder: "any" });
  const text = h("div", { class: "answer", "aria-live": "off" });
  const said = h("p", { class: "soft said", role: "status" });
  const rows = h("tbody", {});
  const line = tokenLine("Tokens of this request", [["due", "due"], ["left", "left"], ["arrived", "arrived"]]);
  const snippets = { curl: h("pre", {}), python: h("pre", {}) };
  const send = h("button", { class: "main", type: "submit" }, "Send");
  const stop = h("button", { type: "button", disabled: true }, "Stop");
  let under = null;

  function request() {
    const headers = { "X-TTFT-MS": ttft.get(), "X-ITL-MS": itl.get(), "X-OUTPUT-LENGTH": length.get() };
    if (jitter.value) headers["X-ITL-JITTER"] = jitter.value;
    const [kind, status] = fault.value.split(" ");
    if (status) headers["X-FAULT-STATUS"] = status;
    else if (kind) headers["X-FAULT-KIND"] = kind;
    if (PLACED.includes(kind) && token.value) headers["X-FAULT-AFTER-TOKENS"] = token.value;
    return { path: "/v1/chat/completions", headers, body: { model: model.value, messages: [{ role: "user", content: message.value }], stream: true } };
  }
  function show() {
    const now = request();
    snippets.curl.textContent = curl(now);
    snippets.python.textContent = pythonOf(now);
    token.disabled = !PLACED.includes(fault.value);
  }

  function told(result, due) {
    const { report, arrivals } = result;
    const gaps = arrivals.slice(1).map((at, index) => at - arrivals[index]);
    const figures = [
      ["time to first token", report?.ttft_ms?.asked, report?.ttft_ms?.actual, arrivals[0]],
      ["gap between tokens, mean", report?.itl_ms?.asked, report?.itl_ms?.mean, mean(gaps)],
      ["gap between tokens, longest", report?.itl_ms?.asked_gap, report?.itl_ms?.max, gaps.length ? Math.max(...gaps) : null],
      ["last token", due.at(-1), report?.total_ms?.actual, arrivals.at(-1)],
    ];
    put(rows, figures.map(([name, ...values]) => h("tr", {}, h("th", { scope: "row" }, name), values.map((value) => h("td", { class: "n" }, ms(value, 2))))));
  }

  /** When tokens were due and left: from the journal if it is open, else what was asked. */
  async function instants(result) {
    const { ttft_ms: first, itl_ms: gap } = result.report ?? {};
    const due = first && gap ? result.arrivals.map((_, index) => first.asked + index * gap.asked) : [];
    if (!app.status.now || !result.id) return [due, []];
    try {
      const row = await ask("GET", `emulator/requests/${encodeURIComponent(result.id)}`);
      return [row.tokens.map((each) => each.due_ms), row.tokens.map((each) => each.left_ms).filter((each) => each !== null)];
    } catch {
      return [due, []];  // the journal is off
    }
  }

  const form = h("form", { class: "card", oninput: show, onsubmit: async (event) => {
    event.preventDefault();
    under = new AbortController();
    send.disabled = true; stop.disabled = false;
    put(text); put(rows); line.draw([], [], []);
    said.textContent = "Sent ...";
    const result = await sendChat(request(), apiKey.value, under.signal, (part) => text.append(part));
    send.disabled = false; stop.disabled = true;
    said.textContent = `Status ${result.status}, ${result.arrivals.length} tokens, ${result.end}${result.rules ? `; rules: ${result.rules}` : ""}.`;
    const [due, left] = await instants(result);
    told(result, due);
    line.draw(due, left, result.arrivals);
  } },
  h("h2", {}, "Send a request from this browser"),
  field("Model", model), field("Message", message), ttft.node, itl.node, length.node,
  h("div", { class: "fields" }, field("Jitter of the gaps", jitter), field("Fault", fault), field("Fault at token", token), field("API key", apiKey)),
  h("div", { class: "row" }, send, stop));
  stop.addEventListener("click", () => under?.abort());

  const answer = h("div", { class: "card" },
    h("h2", {}, "What came"), text, said,
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("td", {}), ["asked", "left the server", "arrived here"].map((name) => h("th", { class: "n", scope: "col" }, name)))), rows)),
    h("p", { class: "soft" }, "Asked and left are the server's own; arrived is measured in this browser, from before the request was sent."),
    line.node);
  const code = h("div", { class: "card" },
    h("div", { class: "row" }, h("h2", {}, "The same as curl"), copying("Copy", () => snippets.curl.textContent)), snippets.curl,
    h("div", { class: "row" }, h("h2", {}, "The same as Python"), copying("Copy", () => snippets.python.textContent)), snippets.python);
  const node = h("section", { "aria-label": "Try it" }, h("div", { class: "halves" }, form, h("div", {}, answer, code)));
  show();
  line.draw([], [], []);
  return { node };
}

// One rule as a form, and as JSON for all that the form has no field for; tried before it is put.

import { clip, field, h, put } from "./dom.js";
import { ask } from "./api.js";
import { attempt, saying } from "./guard.js";

const FAULTS = ["", "status", "error", "eof", "no-done", "close", "reset", "stall", "malformed", "empty", "slice"];
// Of each field of the form: its label, where it is in a rule, and how it is read.
const FIELDS = [
  ["which", "Model (* for any text)", "match.model", "text"],
  ["which", "Path", "match.path", "text"],
  ["which", "Last user message", "match.text", "text"],
  ["which", "Scope", "scope", "text"],
  ["often", "Only each nth request, n", "every", "number"],
  ["often", "For so many requests, then no more", "times", "number"],
  ["often", "Not for the first", "after", "number"],
  ["often", "Probability", "probability", "number"],
  ["often", "Ends by itself after, s", "ttl_s", "number"],
  ["what", "Fails by", "fault.kind", FAULTS],
  ["what", "with status", "fault.status", "number"],
  ["what", "at token", "fault.after_tokens", "number"],
  ["what", "TTFT, ms", "ttft_ms", "number"],
  ["what", "ITL, ms", "itl_ms", "number"],
  ["what", "Length, tokens", "output_length", "number"],
];
const LEGENDS = { which: "Which requests", often: "How often (empty: always)", what: "What they get" };

const at = (rule, path) => path.split(".").reduce((inner, name) => inner?.[name], rule);

function placed(rule, path, value) {
  const [name, ...rest] = path.split(".");
  const { [name]: old, ...others } = rule;
  const inner = rest.length ? placed(old ?? {}, rest.join("."), value) : value;
  const isEmpty = inner === undefined || (rest.length && Object.keys(inner).length === 0);
  return isEmpty ? others : { ...rule, [name]: inner };
}

/** `onPut` is told what was put, once it is in force and the form is closed. */
export function ruleEditor(app, onPut) {
  const name = h("input", { maxlength: 64 });
  const json = h("textarea", { spellcheck: "false", rows: 10, "aria-label": "The rule as JSON" });
  const said = saying();
  const tried = h("div", {});
  const request = h("input", { placeholder: "empty: the last request", maxlength: 128 });
  const inputs = FIELDS.map(([, , path, kind]) => {
    const input = Array.isArray(kind) ? h("select", {}, kind.map((each) => h("option", { value: each }, each || "nothing"))) : h("input", { type: kind, step: "any", min: 0, maxlength: 256 });
    input.addEventListener("input", () => {
      const rule = current();
      if (!rule) return;
      const value = input.value === "" ? undefined : kind === "number" ? Number(input.value) : input.value;
      let next = placed(rule, path, value);
      if (path === "fault.status" && value && next.fault.kind === "status") next = placed(next, "fault.kind", undefined);
      if (path === "fault.kind" && value === "status" && !next.fault.status) next = placed(next, "fault.status", 503);
      fill(next, input);
    });
    return input;
  });

  function current() {
    try {
      const rule = JSON.parse(json.value);
      if (rule && typeof rule === "object" && !Array.isArray(rule)) { json.classList.remove("wrong"); return rule; }
    } catch { /* told below */ }
    said.className = "said wrong";
    said.textContent = "The JSON is none, or no object.";
    json.classList.add("wrong");
    return null;
  }
  /** Show a rule in form and JSON, but leave alone what is being written in. */
  function fill(rule, except) {
    if (except !== json) json.value = JSON.stringify(rule, null, 1);
    FIELDS.forEach(([, , path], index) => {
      if (inputs[index] === except) return;
      const value = path === "fault.kind" && rule.fault?.status && !rule.fault.kind ? "status" : at(rule, path);
      inputs[index].value = value === undefined || typeof value === "object" ? "" : value;
    });
  }
  json.addEventListener("input", () => { const rule = current(); if (rule) { said.textContent = ""; fill(rule, json); } });

  /** Mark the field that the server found wrong. */
  function mark({ param }) {
    const path = (param ?? "").replace(/^rules?(\[\d+\])?\.?/, "");
    const index = FIELDS.findIndex(([, , each]) => path === each || (path && each.startsWith(`${path}.`)));
    const input = index >= 0 ? inputs[index] : path === "name" ? name : json;
    input.setAttribute("aria-invalid", "true");
    input.focus();
    setTimeout(() => input.removeAttribute("aria-invalid"), 4000);
  }

  async function tryRule() {
    const rule = current();
    if (!rule) return;
    const result = await attempt(said, async () => {
      const id = request.value.trim() || (await ask("GET", "emulator/requests?limit=1")).requests.at(-1)?.id;
      if (!id) throw new Error("There is no request yet. Send one from Try it.");
      request.value = id;
      return ask("POST", "emulator/try", { id, rule: { ...rule, name: name.value || "this rule" } });
    }, "", mark);
    put(tried, result && h("ul", {}, result.rules.slice(0, 20).map(verdictOf)));
  }

  function verdictOf(each) {
    const [mood, word] = each.matches === null ? ["", "cannot be told"] : each.matches ? ["good", "would match"] : ["bad", "would not match"];
    const why = each.matches === null ? `what '${each.condition}' looks at is not in the journal (start with journal_bodies=true)`
      : each.matches ? [each.decides.length ? `decides ${each.decides.join(", ")}` : "", ...Object.entries(each.decided_before).map(([what, who]) => `${what} is decided by ${who}`)].filter(Boolean).join("; ")
        : `for ${each.condition}: expected ${each.expected}, but got ${each.came}`;
    return h("li", {}, h("b", {}, clip(each.name, 64)), " ", h("span", { class: `pill ${mood}` }, word), " ", why);
  }

  const form = h("form", { class: "card notice", hidden: true, onsubmit: async (event) => {
    event.preventDefault();
    const rule = current();
    if (!rule) return;
    const own = name.value.trim() || "my-rule";
    const answer = await attempt(said, () => app.status.change("PUT", `emulator/rules/${encodeURIComponent(own)}`, { ...rule, name: own }), `${own} is in force.`, mark);
    if (!answer) return;
    form.hidden = true;
    onPut(said.textContent);
    said.textContent = "";
  } },
  field("Name", name),
  Object.entries(LEGENDS).map(([group, legend]) => h("fieldset", {}, h("legend", {}, legend),
    h("div", { class: "fields" }, FIELDS.map(([each, label], index) => (each === group ? field(label, inputs[index]) : null))))),
  h("details", {}, h("summary", {}, "All of it as JSON: answers, headers, jitter ..."), json),
  said,
  h("div", { class: "row" }, h("button", { class: "main", type: "submit" }, "Put in force"),
    h("button", { type: "button", onclick: () => { form.hidden = true; } }, "Close")),
  h("div", { class: "row" }, field("Try it against the request with the id", request), h("button", { type: "button", onclick: tryRule }, "Would it match?")), tried);

  function open(rule, id) {
    const { name: own, ...rest } = rule ?? { name: "", match: { model: "gpt-4*" }, every: 3, fault: { status: 503 } };
    form.hidden = false;
    name.value = own ?? "";
    request.value = id ?? "";
    said.textContent = "";
    put(tried);
    fill(rest);
    form.scrollIntoView({ block: "nearest" });
    name.focus();
  }
  return { node: form, open };
}

// The rules in force, in their order: switched, moved, edited, tried.

import { clip, duration, h, number, put } from "./dom.js";
import { attempt, saying } from "./guard.js";
import { ruleEditor } from "./editor.js";

const ordinal = (count) => ({ 2: "second", 3: "third" })[count] ?? `${count}th`;

/** A rule in words: for which requests, how often, and what it says. */
export function inWords(rule) {
  const which = Object.entries(rule.match ?? {}).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  const often = [rule.every > 1 ? `every ${ordinal(rule.every)}` : "", rule.times ? `${rule.times} times` : "", rule.after ? `after ${rule.after}` : "", rule.probability !== undefined && rule.probability < 1 ? `${number(rule.probability * 100)} % of them` : "", rule.scope ? `scope ${rule.scope}` : ""].filter(Boolean);
  const fault = rule.fault && `fails: ${Object.entries(rule.fault).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ")}`;
  const answer = rule.answer && `answers ${JSON.stringify(rule.answer)}`;
  const known = new Set(["name", "match", "every", "times", "after", "probability", "scope", "fault", "answer", "at_end", "enabled", "ttl_s"]);
  const timing = Object.entries(rule).filter(([name]) => !known.has(name)).map(([name, value]) => `${name} ${value}`);
  return `${which.join(", ") || "every request"}${often.length ? ` (${often.join(", ")})` : ""}: ${[fault, ...timing, answer].filter(Boolean).join(", ")}`;
}

export function rules(app) {
  const list = h("ul", { class: "rules" });
  const said = saying();
  const editor = ruleEditor(app, (text) => { said.className = "said soft"; said.textContent = text; });
  const pills = new Map();
  let drawn = "";

  const path = (rule) => `emulator/rules/${encodeURIComponent(rule.name)}`;
  const putAll = (next, done) => attempt(said, () => app.status.change("PUT", "emulator/rules", { rules: next }), done);

  function entry(rule, index, all) {
    const isOn = rule.enabled !== false;
    const label = (text) => `${text} ${rule.name}`;
    const button = (text, onclick, more = {}) => h("button", { type: "button", "aria-label": label(text), onclick, ...more }, text);
    const moved = (by) => { const next = [...all]; next.splice(index + by, 0, ...next.splice(index, 1)); return putAll(next, `${rule.name} moved.`); };
    return h("li", { class: isOn ? "" : "off" },
      h("div", { class: "row" },
        h("label", { class: "plain" }, h("input", { type: "checkbox", checked: isOn, "aria-label": label("Switch"), onchange: () => attempt(said, () => app.status.change("PUT", path(rule), { ...rule, enabled: !isOn }), `${rule.name} is ${isOn ? "off" : "on"}.`) }), h("b", {}, clip(rule.name, 64))),
        pills.get(rule.name),
        rule.ttl_s ? h("span", { class: "pill" }, `${duration(rule.ttl_s)} left`) : null),
      h("p", { class: "says" }, clip(inWords(rule), 400)),
      h("div", { class: "row" },
        button("Up", () => moved(-1), { disabled: index === 0 }),
        button("Down", () => moved(1), { disabled: index === all.length - 1 }),
        button("Edit", () => editor.open(rule)),
        button("Remove", () => attempt(said, () => app.status.change("DELETE", path(rule)), `${rule.name} removed.`))));
  }

  function render() {
    const all = app.status.now?.rules;
    if (!all || (list.contains(document.activeElement) && document.activeElement.matches("input"))) return;
    const text = JSON.stringify(all);
    for (const { name } of all) if (!pills.has(name)) pills.set(name, h("span", { class: "pill" }));
    count();
    if (text === drawn) return;
    drawn = text;
    put(list, all.length ? all.map(entry) : h("li", { class: "soft" }, "There is none: every request gets the settings."));
  }
  /** Tell for how many requests each has decided something: as the feed says, or, where that is older, the status. */
  function count() {
    const { last, problem } = app.feed;
    const matched = (last && !problem ? last.rules : app.status.now?.matched) ?? {};
    for (const [name, pill] of pills) pill.textContent = `decided ${number(matched[name] ?? 0, 0)}`;
  }
  app.feed.addEventListener("change", count);
  app.status.addEventListener("change", render);
  const node = h("div", { class: "card" },
    h("div", { class: "row" }, h("h2", {}, "Rules"),
      h("button", { type: "button", class: "main", onclick: () => editor.open(null) }, "New rule"),
      h("button", { type: "button", onclick: () => attempt(said, () => app.status.change("POST", "emulator/reset", { what: ["rules"] }), "Rules are those of the start.") }, "Undo all")),
    h("p", { class: "soft" }, "For some requests: fail, be slower or faster, or say something else. The first that says something decides it."),
    said, editor.node, list);
  render();
  return { node, edit: (rule, id) => editor.open(rule, id) };
}

// The settings that can change, each with the value of the start beside it.

import { clip, h, put } from "./dom.js";
import { attempt, saying } from "./guard.js";

// Up to where a slider goes; the number beside it takes all that the server does.
const SLIDERS = { ttft_ms: [3000, 10], itl_ms: [300, 1], output_length: [500, 1], keepalive_ms: [10000, 100] };
const FIRST = ["ttft_ms", "itl_ms", "output_length", "ttft_jitter", "itl_jitter", "rpm", "tpm", "ready"];
let described = null;

/** The JSON Schema of the settings, from the server's own description. */
async function schema() {
  described ??= fetch("openapi.json").then((answer) => answer.json()).then((document) => document.components.schemas.LiveSettings.properties).catch(() => ({}));
  return described;
}

const choices = (described) => described?.enum ?? described?.anyOf?.find((each) => each.enum)?.enum;
const isNumber = (described) => [described, ...(described?.anyOf ?? [])].some((each) => ["number", "integer"].includes(each?.type));
const isText = (described) => [described, ...(described?.anyOf ?? [])].some((each) => each?.type === "string");
const shown = (value) => (value === null ? "" : typeof value === "string" ? value : JSON.stringify(value));

/** The elements that show and change a setting, and what shows another value; what is being written in stays. */
function control(name, value, described, change) {
  const wanted = choices(described);
  if (typeof value === "boolean") {
    const box = h("input", { type: "checkbox", "aria-label": name, onchange: () => change(box.checked) });
    return [[box], (now) => { box.checked = now; }];
  }
  if (wanted) {
    const select = h("select", { "aria-label": name, onchange: () => change(select.value) }, wanted.map((each) => h("option", { value: each }, each)));
    return [[select], (now) => { select.value = now; }];
  }
  if (isNumber(described)) {
    const exact = h("input", { type: "number", step: "any", placeholder: "none", "aria-label": name, onchange: () => change(exact.value === "" ? null : Number(exact.value)) });
    const write = (now) => { if (exact !== document.activeElement) exact.value = now ?? ""; };
    if (!SLIDERS[name]) return [[exact], write];
    const [most, step] = SLIDERS[name];
    const range = h("input", { type: "range", min: 0, max: most, step, "aria-label": `${name}, as a slider`, oninput: () => { exact.value = range.value; }, onchange: () => change(Number(range.value)) });
    return [[range, exact], (now) => { range.max = Math.max(most, now); range.value = now; write(now); }];
  }
  const input = h("input", { size: 24, "aria-label": name, placeholder: "none", onchange: () => {
    let given = input.value || null;
    if (!isText(described)) try { given = JSON.parse(input.value || "null"); } catch { /* the server says what it expects */ }
    change(given);
  } });
  return [[input], (now) => { if (input !== document.activeElement) input.value = shown(now); }];
}

export function settings(app) {
  const list = h("div", {});
  const said = saying();
  const rows = new Map();

  function row(name, value, described) {
    const change = (given) => attempt(said, () => app.status.change("PATCH", "emulator/settings", { [name]: given }), `${name} changed.`, () => app.status.refresh());
    const [controls, write] = control(name, value, described, change);
    const note = h("div", {});
    let last = null;
    const node = h("div", {}, h("div", { class: "slider" }, h("label", {}, h("b", {}, name), ` ${described?.description ?? ""}`), controls), note);
    const undo = h("button", { type: "button", "aria-label": `Undo ${name}`, onclick: () => change(null) }, "Undo");
    return { node, show: ({ settings: now, changed, start }) => {
      const differs = name in changed;
      write(now[name]);
      node.className = `setting ${differs ? "differs" : ""}`;
      const told = differs ? shown(start[name]) : null;
      if (told === last) return;
      last = told;
      put(note, differs ? h("div", { class: "row" }, h("span", { class: "soft" }, "at the start ", clip(shown(start[name]) || "none", 80)), undo) : null);
    } };
  }

  async function render() {
    const now = app.status.settings;
    if (!app.status.now) return;
    const descriptions = await schema();
    if (!rows.size) {
      const names = [...FIRST.filter((name) => name in now.settings), ...Object.keys(now.settings).filter((name) => !FIRST.includes(name))];
      for (const name of names) rows.set(name, row(name, now.settings[name], descriptions[name]));
      const nodes = [...rows.values()].map((each) => each.node);
      put(list, nodes.slice(0, FIRST.length), h("details", {}, h("summary", {}, `${nodes.length - FIRST.length} more settings`), nodes.slice(FIRST.length)));
    }
    for (const each of rows.values()) each.show(now);
  }
  app.status.addEventListener("change", render);
  const node = h("div", { class: "card" },
    h("div", { class: "row" }, h("h2", {}, "Settings"), h("button", { type: "button", onclick: () => attempt(said, () => app.status.change("DELETE", "emulator/settings"), "All as at the start.") }, "Undo all")),
    h("p", { class: "soft" }, "What requests get that ask for nothing else. A change holds for requests that begin after it."), said, list);
  render();
  return { node };
}

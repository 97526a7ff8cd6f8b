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

function control(name, value, described, change) {
  const wanted = choices(described);
  if (typeof value === "boolean") {
    return [h("input", { type: "checkbox", checked: value, "aria-label": name, onchange: (event) => change(event.target.checked) })];
  }
  if (wanted) {
    const select = h("select", { "aria-label": name, onchange: () => change(select.value) }, wanted.map((each) => h("option", { value: each }, each)));
    select.value = value;
    return [select];
  }
  if (isNumber(described)) {
    const exact = h("input", { type: "number", step: "any", value: value ?? "", placeholder: "none", "aria-label": name, onchange: () => change(exact.value === "" ? null : Number(exact.value)) });
    if (!SLIDERS[name]) return [exact];
    const [most, step] = SLIDERS[name];
    const range = h("input", { type: "range", min: 0, max: Math.max(most, value), step, value, "aria-label": `${name}, as a slider`, oninput: () => { exact.value = range.value; }, onchange: () => change(Number(range.value)) });
    return [range, exact];
  }
  const read = () => (isText(described) ? input.value || null : JSON.parse(input.value || "null"));
  const input = h("input", { value: shown(value), size: 24, "aria-label": name, placeholder: "none", onchange: () => {
    let given;
    try { given = read(); } catch { given = input.value; }
    change(given);
  } });
  return [input];
}

export function settings(app) {
  const list = h("div", {});
  const said = saying();
  let drawn = "";

  const change = (name) => (value) => attempt(said, () => app.status.change("PATCH", "emulator/settings", { [name]: value }), `${name} changed.`, () => { drawn = ""; });

  async function render() {
    const now = app.status.settings;
    if (!app.status.now || list.contains(document.activeElement)) return;
    const text = JSON.stringify([now.settings, now.changed, now.start]);
    if (text === drawn) return;
    drawn = text;
    const descriptions = await schema();
    const names = [...FIRST.filter((name) => name in now.settings), ...Object.keys(now.settings).filter((name) => !FIRST.includes(name))];
    const rows = names.map((name) => {
      const differs = name in now.changed;
      return h("div", { class: `setting ${differs ? "differs" : ""}` },
        h("div", { class: "slider" }, h("label", {}, h("b", {}, name), ` ${descriptions[name]?.description ?? ""}`), control(name, now.settings[name], descriptions[name], change(name))),
        differs ? h("div", { class: "row" }, h("span", { class: "soft" }, "at the start ", clip(shown(now.start[name]) || "none", 80)),
          h("button", { type: "button", onclick: () => change(name)(null) }, "Undo")) : null);
    });
    put(list, rows.slice(0, FIRST.length), h("details", {}, h("summary", {}, `${rows.length - FIRST.length} more settings`), rows.slice(FIRST.length)));
  }
  app.status.addEventListener("change", render);
  list.addEventListener("focusout", () => setTimeout(render));
  const node = h("div", { class: "card" },
    h("div", { class: "row" }, h("h2", {}, "Settings"), h("button", { type: "button", onclick: () => attempt(said, () => app.status.change("DELETE", "emulator/settings"), "All as at the start.") }, "Undo all")),
    h("p", { class: "soft" }, "What requests get that ask for nothing else. A change holds for requests that begin after it."), said, list);
  render();
  return { node };
}

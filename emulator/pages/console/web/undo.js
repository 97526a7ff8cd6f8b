// A mark, and the ways back to the start.

import { ask } from "./api.js";
import { field, h, put } from "./dom.js";
import { attempt, saying } from "./guard.js";

const KINDS = {
  settings: (now, changed) => `${Object.keys(changed).length} that differ go back`,
  rules: (now) => `${now.rules.length} in force; those of the start come back`,
  schedule: (now) => (now.schedule.schedule ? "ends the one under way" : "none is under way"),
  counts: () => "counts of rules and of attempts begin at 0",
  limits: () => "every bucket is full again",
  engine: () => "its cache forgets all prefixes",
  journal: () => "the last requests are forgotten",
};

export function marking() {
  const text = h("input", { maxlength: 200, required: true, placeholder: "now the fault is on", size: 28 });
  const said = saying();
  const node = h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    if (await attempt(said, () => ask("POST", "emulator/marks", { text: text.value }), "It is in charts, journal and log.")) text.value = "";
  } }, h("h2", {}, "Mark"), h("div", { class: "row" }, field("What happens now", text), h("button", { class: "main" }, "Mark")), said);
  return { node };
}

export function resetting(app) {
  const said = saying();
  const boxes = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, h("input", { type: "checkbox", checked: true, value: kind })]));
  const notes = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, h("span", { class: "soft" })]));
  const scope = h("input", { maxlength: 64, placeholder: "everybody's" });

  function render() {
    const { now, settings } = app.status;
    if (now) for (const [kind, tell] of Object.entries(KINDS)) put(notes[kind], tell(now, settings.changed));
  }
  app.status.addEventListener("change", render);
  const reset = () => {
    const what = Object.keys(boxes).filter((kind) => boxes[kind].checked);
    const body = scope.value ? { what: what.filter((kind) => ["counts", "limits", "journal"].includes(kind)), scope: scope.value } : { what };
    return attempt(said, () => app.status.change("POST", "emulator/reset", body), "Done.");
  };
  const node = h("div", { class: "card" }, h("h2", {}, "Reset"),
    Object.keys(KINDS).map((kind) => h("div", { class: "row" }, h("label", { class: "plain" }, boxes[kind], h("b", {}, kind)), notes[kind])),
    h("div", { class: "row" }, field("Of one scope (counts, limits, journal)", scope), h("button", { type: "button", class: "main", onclick: reset }, "Go back to the start")), said);
  render();
  return { node };
}

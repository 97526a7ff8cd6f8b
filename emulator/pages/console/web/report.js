// Report: one file of a span of time, made by the server, that needs nothing.

import { clock, field, h, put } from "./dom.js";
import { fetched } from "./api.js";
import { attempt, guarded, saying } from "./guard.js";

export function report(app) {
  const said = saying();
  const from = h("select", {}), to = h("select", {});

  function choices() {
    const marks = app.feed.marks.map((mark) => [String(mark.t), `${clock(mark.t)} ${mark.text}`.slice(0, 80)]);
    const fill = (select, first) => {
      const before = select.value;
      put(select, [["", first], ...marks].map(([value, text]) => h("option", { value }, text)));
      select.value = [...select.options].some((each) => each.value === before) ? before : "";
    };
    fill(from, "the first request in the journal");
    fill(to, "now");
  }
  app.feed.addEventListener("change", () => !node.hidden && !node.contains(document.activeElement) && choices());

  async function save() {
    const query = new URLSearchParams(Object.entries({ from: from.value, to: to.value }).filter(([, value]) => value));
    const answer = await fetched("GET", `emulator/report?${query}`);
    const url = URL.createObjectURL(await answer.blob());
    h("a", { href: url, download: `emulator-report-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.html` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  const card = h("div", { class: "card" },
    h("p", {}, "One HTML file with the charts, the settings and the summary of the requests in the journal, to keep or to send. It loads nothing. Set marks in Control to name the ends of a span."),
    h("div", { class: "fields" }, field("From", from), field("To", to)),
    h("div", { class: "row" }, h("button", { class: "main", type: "button", onclick: () => attempt(said, save, "Saved.") }, "Save report")), said);
  const node = h("section", { "aria-label": "Report" }, h("h2", {}, "Report"), guarded(app, card, "The report"));
  return { node, show: choices };
}

// The last requests: filtered, and opened for what they asked, what decided it, and their tokens.

import { clip, clock, field, h, ms, number, put } from "./dom.js";
import { ask } from "./api.js";
import { guarded } from "./guard.js";
import { details } from "./request.js";

const EVERY_MS = 2000, SHOWN = 50;
const FILTERS = { model: "Model", status: "Status", rule: "Rule", scope: "Scope" };
const COLUMNS = [["time", ""], ["model", ""], ["path", "wide"], ["status", ""], ["tokens", "n wide"], ["TTFT", "n"], ["total", "n"], ["worst lag", "n"], ["rules, fault", "wide"]];

export function requests(app) {
  const filters = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, h("input", { maxlength: 256, placeholder: "all" })]));
  const rows = h("tbody", {});
  const said = h("p", { class: "soft said", role: "status" });
  const follow = h("input", { type: "checkbox", checked: true });
  let timer = null, opened = null, newest = 0;

  async function load() {
    clearTimeout(timer);
    if (app.status.now && !document.hidden && (follow.checked || !rows.children.length)) {
      const given = Object.entries(filters).filter(([, input]) => input.value.trim()).map(([name, input]) => [name, input.value.trim()]);
      try {
        const found = await ask("GET", `emulator/requests?${new URLSearchParams([["limit", SHOWN], ...given])}`);
        if (!opened) draw(found.requests.toReversed());
        said.textContent = opened ? held(found.requests) : found.requests.length ? "" : "No such request. Send one from Try it.";
      } catch (problem) {
        said.textContent = problem.status === 404 ? "The journal is off on this server (journal=0)." : problem.message;
      }
    }
    timer = setTimeout(load, EVERY_MS);
  }

  /** Say that the list stands still, and how much there would be to see. */
  function held(found) {
    const newer = found.filter((row) => row.ended_at > newest).length;
    return newer ? `The list stands still while a request is open: ${newer === SHOWN ? `${SHOWN} or more` : newer} newer. Choose the open one again to go on.` : "";
  }

  function draw(found) {
    newest = found[0]?.ended_at ?? 0;
    put(rows, found.map((row) => {
      const lag = row.worst_lag_ms;
      const tr = h("tr", { class: "opens", onclick: (event) => event.target.closest("button") || toggle(tr, row) },
        h("td", {}, h("button", { class: "link", type: "button", "aria-expanded": "false", "aria-label": `Request of ${clock(row.at)}, ${row.model}: open`, onclick: () => toggle(tr, row) }, clock(row.at))),
        h("td", {}, clip(row.model || "-", 256)), h("td", { class: "wide" }, row.path),
        h("td", {}, h("span", { class: `pill ${row.status < 400 ? "good" : "bad"}` }, row.client_left ? `${row.status} left` : row.status)),
        h("td", { class: "n wide" }, `${number(row.tokens_out, 0)}`),
        h("td", { class: "n" }, ms(row.ttft?.actual_ms, 0)),
        h("td", { class: "n" }, ms(row.total?.actual_ms, 0)),
        h("td", { class: `n ${lag > 1 ? "wrong" : ""}` }, ms(lag, 2)),
        h("td", { class: "wide" }, clip([...row.rules, row.fault].filter(Boolean).join(", ") || "-", 80)));
      return tr;
    }));
  }

  async function toggle(tr, row) {
    const wasOpen = opened?.previousSibling === tr;
    opened?.previousSibling?.querySelector("button")?.setAttribute("aria-expanded", "false");
    opened?.remove();
    opened = null;
    if (wasOpen) return;
    const cell = h("td", { colspan: COLUMNS.length }, "...");
    opened = h("tr", { class: "opened" }, cell);
    tr.after(opened);
    tr.querySelector("button").setAttribute("aria-expanded", "true");
    try {
      put(cell, details(app, await ask("GET", `emulator/requests/${encodeURIComponent(row.id)}`)));
    } catch (problem) {
      put(cell, problem.message);
    }
  }

  const list = h("div", { class: "card" },
    h("form", { class: "fields", oninput: () => { opened?.remove(); opened = null; put(rows); load(); }, onsubmit: (event) => event.preventDefault() },
      Object.entries(FILTERS).map(([name, label]) => field(label, filters[name]))),
    h("label", { class: "plain" }, follow, "Show new ones as they come"), said,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The last requests" }, h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))), rows)));
  const node = h("section", { "aria-label": "Requests" }, h("h2", {}, "Last requests: open one to see why it took as long as it did"), guarded(app, list, "The journal"));
  app.status.addEventListener("change", () => !node.hidden && !rows.children.length && load());
  return { node, show: load, hide: () => clearTimeout(timer) };
}

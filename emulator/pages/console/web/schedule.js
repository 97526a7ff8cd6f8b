// The schedule: what changes by itself, with the curve of each number.

import { duration, field, h, number, put, s } from "./dom.js";
import { ceiling } from "./chart.js";
import { attempt, saying } from "./guard.js";

const FORMS = ["sine", "square", "ramp"];
const STARTERS = { steps: { steps: [{ at_s: 30, settings: { itl_ms: 200 }, mark: "slow" }, { at_s: 60, settings: { itl_ms: null }, mark: "as before" }], repeat: "forever", length_s: 90 } };

/** The number of a wave so long after its beginning, as the server has it. */
function value(wave, t) {
  if (wave.form === "ramp") return wave.from + (wave.to - wave.from) * Math.min(t / wave.over_s, 1);
  if (t >= wave.for_s) return wave.low;
  if (wave.form === "square") return t % wave.period_s < (wave.duty ?? 0.5) * wave.period_s ? wave.high : wave.low;
  return wave.low + (wave.high - wave.low) * (1 + Math.sin((2 * Math.PI * t) / wave.period_s)) / 2;
}

function curve(wave) {
  const length = wave.over_s ?? Math.min(wave.for_s, wave.period_s * 6), width = 320, high = 70;
  const values = Array.from({ length: 161 }, (_, index) => value(wave, (index / 160) * length * 0.999));
  const top = ceiling(Math.max(...values));
  const path = values.map((each, index) => `${index ? "L" : "M"}${30 + (index / 160) * (width - 30)} ${high - 14 - (each / top) * (high - 24)}`).join("");
  return h("figure", { class: "chart" }, h("figcaption", {}, `${wave.of}: ${wave.form}, the first ${duration(length)}`),
    s("svg", { viewBox: `0 0 ${width} ${high}`, role: "img", "aria-label": `${wave.form} of ${wave.of}` },
      s("text", { class: "axis", x: 0, y: 14 }, number(top)), s("text", { class: "axis", x: 0, y: high - 14 }, "0"),
      s("line", { class: "gridline", x1: 30, x2: width, y1: high - 14, y2: high - 14 }), s("path", { class: "series c1", d: path })));
}

export function schedule(app) {
  const said = saying();
  const running = h("div", {});
  const curves = h("div", {});
  const json = h("textarea", { spellcheck: "false", rows: 8, "aria-label": "The schedule as JSON" });
  const form = h("select", {}, FORMS.map((each) => h("option", {}, each)));
  const of = h("input", { value: "itl_ms", maxlength: 256 });
  const [low, high, period, length] = [20, 80, 30, 600].map((given) => h("input", { type: "number", step: "any", min: 0, value: given }));
  const numeric = (input) => Number(input.value);

  function made() {
    const wave = form.value === "ramp" ? { form: "ramp", of: of.value, from: numeric(low), to: numeric(high), over_s: numeric(period) }
      : { form: form.value, of: of.value, low: numeric(low), high: numeric(high), period_s: numeric(period), for_s: numeric(length) };
    json.value = JSON.stringify({ waves: [wave] }, null, 1);
    draw();
  }
  function read() {
    try { return JSON.parse(json.value); } catch { return null; }
  }
  function draw() {
    const waves = read()?.waves ?? [];
    put(curves, Array.isArray(waves) ? waves.slice(0, 4).filter((wave) => FORMS.includes(wave?.form)).map(curve) : []);
  }
  const fields = h("div", { class: "fields", oninput: made }, field("Form", form), field("Of (a setting, or rules.<name>.<path>)", of), field("Low, or from", low), field("High, or to", high), field("Period, or over, s", period), field("For, s", length));

  function render() {
    const now = app.status.now?.schedule;
    if (!now) return;
    put(running, now.schedule
      ? h("p", {}, h("b", {}, "Under way"), ` for ${duration(now.began_s)}; ${now.next_s === null ? "nothing more changes" : `next change in ${duration(now.next_s)}`}. `,
        h("button", { type: "button", onclick: () => attempt(said, () => app.status.change("DELETE", "emulator/schedule"), "Ended; what it has changed stays.") }, "End it"))
      : h("p", { class: "soft" }, "None is under way. The server holds it: this page may be closed."));
  }
  app.status.addEventListener("change", render);
  json.addEventListener("input", draw);
  const begin = h("button", { class: "main", type: "button", onclick: () => {
    const body = read();
    if (!body) { said.className = "said wrong"; said.textContent = "The JSON is none."; return; }
    attempt(said, () => app.status.change("PUT", "emulator/schedule", body), "It has begun.");
  } }, "Begin");
  const starter = h("button", { type: "button", onclick: () => { json.value = JSON.stringify(STARTERS.steps, null, 1); draw(); } }, "Steps instead of a wave");
  const node = h("div", { class: "card" }, h("h2", {}, "Schedule"), running,
    h("details", {}, h("summary", {}, "A new one"), fields, curves, json, h("div", { class: "row" }, begin, starter)), said);
  made();
  render();
  return { node };
}

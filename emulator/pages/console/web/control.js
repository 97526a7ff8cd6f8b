// Control: settings, rules, the schedule, a mark, and the ways back.

import { h } from "./dom.js";
import { guarded } from "./guard.js";
import { resetting, marking } from "./undo.js";
import { rules } from "./rules.js";
import { schedule } from "./schedule.js";
import { settings } from "./settings.js";

export function control(app) {
  const parts = [rules(app), settings(app), schedule(app), marking(app), resetting(app)];
  const [ruleList, settingList, ...others] = parts.map((part) => part.node);
  const node = h("section", { "aria-label": "Control" }, guarded(app,
    h("div", { class: "halves" }, h("div", {}, ruleList, others), settingList), "Control"));
  return { node, show: (what) => what?.rule && parts[0].edit(what.rule, what.id) };
}

// The head: in one sentence whether tokens are on time, and what is in force.

import { clip, duration, h, number, put } from "./dom.js";
import { verdict } from "./verdict.js";

const verdictNode = document.getElementById("verdict");
const facts = document.getElementById("facts");
const changes = document.getElementById("changes");

const told = (value) => (value === null ? "none" : typeof value === "string" ? value : JSON.stringify(value));
const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

export function head(app) {
  const { feed, status } = app;

  function say() {
    const { mood, sentence, detail } = feed.problem ? { mood: "", sentence: feed.problem, detail: "" } : verdict(feed.points);
    if (verdictNode.firstChild?.textContent !== sentence || verdictNode.children[0]?.textContent !== detail) {
      verdictNode.className = `verdict ${mood}`;
      put(verdictNode, sentence, detail ? h("small", {}, detail) : null);
    }
    const last = feed.last;
    put(facts,
      fact("up for", duration(last?.uptime ?? status.now?.uptime_s)),
      fact("workers", number(last?.workers.length ?? status.now?.workers.count, 0)),
      fact("revision", number(last?.revision ?? status.now?.revision, 0)),
      fact("streams", number(last?.inFlight, 0)),
      fact("tokens/s", number(last?.tokens, 0)));
  }

  function differ() {
    const { now, settings } = status;
    if (!now) return put(changes);
    const { schedule } = now;
    const items = [
      ...Object.entries(settings.changed).map(([name, value]) => [`${name} = `, clip(told(value), 80), " (was ", clip(told(settings.start[name]), 40), ")"]),
      ...now.rules.map((rule) => ["rule ", clip(rule.name, 64), rule.enabled === false ? " (off)" : "", rule.ttl_s ? `, ${duration(rule.ttl_s)} left` : ""]),
    ];
    if (schedule.schedule) items.push([`schedule, next change in ${duration(schedule.next_s)}`]);
    if (settings.settings.ready === false) items.push(["answers 503, as while a model loads"]);
    put(changes, items.length === 0
      ? h("p", { class: "soft" }, "Settings are as at the start; no rule, no schedule.")
      : h("ul", { class: "changed", "aria-label": "What differs from the start, and rules in force" },
        items.slice(0, 12).map((parts) => h("li", {}, parts)),
        items.length > 12 ? h("li", {}, `and ${items.length - 12} more`) : null,
        h("li", {}, h("a", { href: "#control" }, "change or undo"))));
  }
  feed.addEventListener("change", say);
  status.addEventListener("change", () => { say(); differ(); });
}

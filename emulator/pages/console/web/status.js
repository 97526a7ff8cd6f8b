// What is in force, as GET /emulator tells it to who may control this server.

import { ask, key } from "./api.js";

const EVERY_MS = 5000;

export class Status extends EventTarget {
  /** The answer, or null where this browser may not see it. */
  now = null;
  settings = null;
  problem = null;

  /** Ask now, and again where the feed tells another revision or something changes by itself. */
  start(feed) {
    this.refresh();
    const isOld = () => !this.now || this.problem || !feed.last || feed.problem || feed.last.revision !== this.now.revision
      || this.now.schedule.schedule || this.now.rules.some((rule) => rule.ttl_s);
    setInterval(() => !document.hidden && isOld() && this.refresh(), EVERY_MS);
  }

  /** Ask again. What is locked is asked for once: a page that polls would fill the log. */
  async refresh(isForced = false) {
    if (this.problem?.isLocked && !isForced) return;
    try {
      const [now, settings] = await Promise.all([ask("GET", "emulator"), ask("GET", "emulator/settings")]);
      Object.assign(this, { now, settings, problem: null });
    } catch (problem) {
      Object.assign(this, { problem, now: problem.isLocked || problem.status === 404 ? null : this.now });
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Change something, then tell all parts of the page; fails with what the server said. */
  async change(method, path, body) {
    const answer = await ask(method, path, body ?? (method === "DELETE" ? undefined : {}));
    await this.refresh(true);
    return answer;
  }

  unlock(text) {
    key.set(text);
    return this.refresh(true);
  }
}

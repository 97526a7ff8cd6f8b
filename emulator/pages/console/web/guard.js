// What stands in the place of what this browser may not see: why, and a field for the key.

import { key } from "./api.js";
import { field, h, put } from "./dom.js";

/** Show `node` to who may control this server, else the way to become one. */
export function guarded(app, node, what) {
  const notice = h("div", { class: "card notice" });
  const whole = h("div", {}, notice, node);
  const input = h("input", { type: "password", autocomplete: "off", maxlength: 512, size: 34 });
  const said = h("p", { class: "wrong said", role: "alert" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    said.textContent = "";
    await app.status.unlock(input.value);
    if (app.status.problem) said.textContent = app.status.problem.status === 401 ? "That is not the key." : app.status.problem.message;
  } }, field("Key of control, kept for this tab", input), h("button", { class: "main" }, "Open"), said);

  function render() {
    const { now, problem } = app.status;
    node.hidden = !now;
    notice.hidden = Boolean(now);
    if (now || !problem) return;
    if (problem.status === 404) return put(notice, h("p", {}, "Control is off on this server (control=off)."));
    if (!problem.isLocked) return put(notice, h("p", {}, problem.message));
    if (notice.contains(form)) return;
    put(notice,
      h("h2", {}, `${what} is for who controls this server`),
      h("p", {}, "By default that is the machine that it runs on. To open it from elsewhere, as for a container, start it with ",
        h("code", {}, "EMULATOR_CONTROL_KEY=a-long-and-random-text"), " (16 characters or more), and give that key here."),
      form);
  }
  app.status.addEventListener("change", render);
  input.value = key.get();
  render();
  return whole;
}

/** Do something that the server may refuse; show what it says, and mark the field that is wrong. */
export async function attempt(said, work, done = "", mark = () => {}) {
  said.className = "said soft";
  said.textContent = "...";
  try {
    const answer = await work();
    const applied = answer?.applied ? ` Applied by ${answer.applied} workers, revision ${answer.revision}.` : "";
    said.textContent = `${done}${applied}`;
    return answer;
  } catch (problem) {
    said.className = "said wrong";
    said.textContent = problem.message;
    mark(problem);
    return null;
  }
}

export const saying = () => h("p", { class: "said soft", role: "status" });

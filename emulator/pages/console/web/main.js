// Puts the page together: one view at a time, each made when it is first looked at.

import { h, put } from "./dom.js";
import { Feed } from "./feed.js";
import { Status } from "./status.js";
import { head } from "./head.js";
import { live } from "./live.js";
import { requests } from "./requests.js";
import { tryIt } from "./try.js";
import { control } from "./control.js";
import { report } from "./report.js";

const VIEWS = { live: ["Live", live], requests: ["Requests", requests], try: ["Try it", tryIt], control: ["Control", control], report: ["Report", report] };

const app = { feed: new Feed(), status: new Status(), opened: {}, open };
const main = document.getElementById("content");
const nav = document.getElementById("views");
const made = {};

/** Show a view; `what` is given to it. */
function open(name, what) {
  app.opened[name] = what;
  if (location.hash === `#${name}`) show();
  else location.hash = name;
}

function show() {
  const name = VIEWS[location.hash.slice(1)] ? location.hash.slice(1) : "live";
  const [title, make] = VIEWS[name];
  for (const [each, view] of Object.entries(made)) {
    if (each === name) continue;
    if (!view.node.hidden) view.hide?.();
    view.node.hidden = true;
  }
  if (!made[name]) {
    made[name] = make(app);
    main.append(made[name].node);
  }
  made[name].node.hidden = false;
  made[name].show?.(app.opened[name]);
  app.opened[name] = undefined;
  document.title = `${title} - OpenAI API Emulator`;
  put(nav, Object.entries(VIEWS).map(([each, [text]]) =>
    h("a", { href: `#${each}`, "aria-current": each === name ? "page" : null }, text)));
}

document.getElementById("base").textContent = new URL("v1", document.baseURI).href;
head(app);
addEventListener("hashchange", show);
show();
app.feed.start();
app.status.start(app.feed);

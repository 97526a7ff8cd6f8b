// The one EventSource of this page, and the last five minutes that came over it.

import { addModels, pointOf } from "./summary.js";

export const KEPT_S = 300;
const AGAIN_MS = 2000;

export class Feed extends EventTarget {
  points = [];
  marks = [];
  /** By model: the buckets of its times, and the requests since this page was opened. */
  models = new Map();
  /** Why nothing comes; empty while something does. */
  problem = "Connecting ...";
  #source = null;
  #retry = null;

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#close() : this.#open()));
    if (!document.hidden) this.#open();
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", () => !document.hidden && this.#open());
  }

  get last() {
    return this.points.at(-1) ?? null;
  }

  #open() {
    if (this.#source) return;
    this.#source = new EventSource("emulator/events");
    this.#source.addEventListener("summary", (event) => this.#take(event.data));
    this.#source.addEventListener("message", (event) => this.#take(event.data));
    this.#source.addEventListener("error", () => this.#failed());
  }

  #close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #failed() {
    this.#tell("The server is away, or its control is off. Looking for it again ...");
    if (this.#source?.readyState !== EventSource.CLOSED) return;
    this.#close();
    this.#retry = setTimeout(() => document.hidden || this.#open(), AGAIN_MS);
  }

  #take(text) {
    let data;
    try { data = JSON.parse(text); } catch { return; /* cut in the middle */ }
    const point = pointOf(data);
    addModels(this.models, data);
    if (this.last && point.t <= this.last.t) this.points = this.points.filter((each) => each.t < point.t);
    this.points.push(point);
    const from = point.t - KEPT_S;
    this.points = this.points.filter((each) => each.t >= from);
    for (const mark of point.marks) {
      if (!this.marks.some((each) => each.t === mark.t && each.text === mark.text)) this.marks.push(mark);
    }
    this.marks = this.marks.filter((mark) => mark.t >= from);
    this.#tell("");
  }

  #tell(problem) {
    this.problem = problem;
    this.dispatchEvent(new Event("change"));
  }
}

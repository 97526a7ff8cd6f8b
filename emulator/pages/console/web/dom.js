// Elements, made of text alone: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const h = (tag, attributes, ...children) =>
  filled(document.createElement(tag), attributes, children);

export const s = (tag, attributes, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** Swap what an element holds, but only where its text differs, so that readers and focus rest. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** Text of a bounded length, with the whole of it as a title. */
export function clip(text, most = 256) {
  const whole = String(text);
  const shown = whole.length > most ? `${whole.slice(0, most)}...` : whole;
  return h("span", { class: "clip", title: shown }, shown);
}

export function number(value, digits = 1) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const most = Math.abs(value) >= 100 ? 0 : digits;
  return value.toLocaleString("en", { maximumFractionDigits: most });
}

export const ms = (value, digits = 1) => (value === null || value === undefined ? "-" : `${number(value, digits)} ms`);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  const whole = Math.max(0, Math.round(seconds));
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const from = parts.findIndex(([count]) => count > 0);
  return from < 0 ? "0 s" : parts.slice(from, from + 2).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

export const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);

let ids = 0;
/** A labelled control. */
export function field(label, control, ...more) {
  control.id ||= `f${(ids += 1)}`;
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, ...more);
}

/** A button that puts text on the clipboard, and says so. */
export function copying(label, text) {
  const button = h("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here: select it and copy";
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  } }, label);
  return button;
}

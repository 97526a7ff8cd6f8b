// Draws TTFT, ITL and tokens/s below the table of the "Streams" tab of locust's web UI.
(() => {
  const CHARTS = [
    { key: "ttft", title: "Time to first token (ms)" },
    { key: "itl", title: "Inter-token latency (ms)" },
    { key: "tokens", title: "Tokens/s" },
  ];
  const COLOURS = ["#00bfa5", "#ff6d00", "#2979ff", "#d500f9", "#ffc400", "#00b8d4", "#f50057", "#64dd17", "#8d6e63", "#90a4ae"];
  const PERCENTILES = ["p50", "p99"];
  const HEIGHT = 180, LEFT = 56, BOTTOM = 24, TOP = 8, LEGEND = 330;
  const INTERVAL_MS = 2000;

  const panel = document.createElement("section");
  panel.style.cssText = "font-family: Roboto, sans-serif; padding: 16px 0 32px";
  panel.innerHTML =
    `<label>Show <select>${PERCENTILES.map((p, i) => `<option value="${i}">${p}</option>`).join("")}</select>` +
    ` of the last 10 s</label><div></div>`;
  const select = panel.querySelector("select");
  const charts = panel.querySelector("div");
  let samples = [];

  const colourOf = (names, name) => COLOURS[names.indexOf(name) % COLOURS.length];
  const escape = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const format = (value) => value == null ? "\u2013" : (value >= 100 ? value.toFixed(0) : value.toFixed(1));
  const clock = (timeS) => new Date(timeS * 1000).toLocaleTimeString();

  function niceCeiling(value) {
    const power = 10 ** Math.floor(Math.log10(value || 1));
    return [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * power >= value) * power;
  }

  function draw({ key, title }, names, width) {
    const value = (sample, name) => sample[key][name]?.[select.value];
    const shown = names.filter((name) => samples.some((sample) => value(sample, name) != null));
    const peak = Math.max(0, ...samples.flatMap((s) => shown.map((name) => value(s, name) ?? 0)));
    const top = niceCeiling(peak * 1.05);
    const first = samples[0].time_s;
    const span = Math.max(samples.at(-1).time_s - first, 1);
    const x = (timeS) => LEFT + ((timeS - first) / span) * (width - LEFT - 8);
    const y = (v) => TOP + (1 - v / top) * (HEIGHT - TOP - BOTTOM);
    const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => {
      const at = y(part * top);
      return `<line x1="${LEFT}" x2="${width - 8}" y1="${at}" y2="${at}" stroke="currentColor" opacity=".15"/>` +
        `<text x="${LEFT - 8}" y="${at + 4}" text-anchor="end">${format(part * top)}</text>`;
    });
    const times = [0, 0.5, 1].map((part) =>
      `<text x="${x(first + part * span)}" y="${HEIGHT - 6}" text-anchor="${["start", "middle", "end"][part * 2]}">` +
      `${clock(first + part * span)}</text>`);
    const lines = shown.map((name) => {
      const points = samples.filter((s) => value(s, name) != null).map((s) => `${x(s.time_s)},${y(value(s, name))}`);
      return `<polyline points="${points.join(" ")}" fill="none" stroke="${colourOf(names, name)}" stroke-width="2"/>`;
    });
    const legend = shown.map((name) =>
      `<div style="display:flex;justify-content:space-between;gap:8px"><span><span style="color:${colourOf(names, name)}">&#9632;</span> ` +
      `${escape(name)}</span><b>${format(value(samples.at(-1), name))}</b></div>`);
    return `<h3 style="margin:16px 0 4px;font-weight:500">${title}</h3><div style="display:flex;gap:16px">` +
      `<svg width="${width}" height="${HEIGHT}" font-size="12" fill="currentColor" role="img" aria-label="${title}">` +
      `${[...grid, ...times, ...lines].join("")}</svg>` +
      `<div style="width:${LEGEND}px;font-size:13px;line-height:1.5">${legend.join("")}</div></div>`;
  }

  function drawAll() {
    if (!samples.length) {
      charts.textContent = "Nothing was measured yet.";
      return;
    }
    const names = [...new Set(samples.flatMap((s) => CHARTS.flatMap(({ key }) => Object.keys(s[key]))))].sort();
    const width = Math.max(panel.clientWidth - LEGEND - 16, 320);
    charts.innerHTML = CHARTS.map((chart) => draw(chart, names, width)).join("");
  }

  function place() {
    const tabs = document.querySelector(".MuiTabs-root");
    const open = new URL(location.href).searchParams.get("tab") === "streams";
    const home = open && tabs ? tabs.closest(".MuiContainer-root") : null;
    if (!home) panel.remove();
    else if (panel.parentElement !== home) home.append(panel);
    return panel.isConnected;
  }

  async function update() {
    if (!place()) return;
    const response = await fetch("./streams/samples");
    if (response.ok) samples = await response.json();
    drawAll();
  }

  select.addEventListener("change", drawAll);
  document.addEventListener("click", () => setTimeout(update, 50));
  setInterval(update, INTERVAL_MS);
  update();
})();

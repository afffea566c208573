// How rows spread over the experts, layer by layer: a canvas to look at, the numbers of the cell under the pointer or the keys,
// and a table that says the same.

import { h } from "./dom.js";

// Shares of a layer's choices: [layer][expert], each layer sums to 1 (or 0 if nothing was counted).
export function shares(counts) {
  return counts.map((row) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return row.map((x) => (sum ? x / sum : 0));
  });
}

// One layer in three numbers: the busiest expert, its share, and how many experts the load is worth (exp of the entropy).
export function summary(row) {
  const busiest = row.reduce((best, x, i) => (x > row[best] ? i : best), 0);
  const entropy = row.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);
  return { busiest, share: row[busiest] || 0, effective: row.some((x) => x > 0) ? Math.exp(entropy) : 0 };
}

const percent = (x) => (100 * x).toFixed(x < 0.0995 ? 1 : 0) + " %";
const mix = (a, b, t) => a.map((x, i) => Math.round(x + (b[i] - x) * t));

// Scales of one direction and of two, for light and dark pages: [none, middle, most].
const kScales = {
  light: { text: [[240, 243, 245], [86, 168, 158], [4, 62, 56]], image: [[243, 241, 245], [205, 138, 78], [96, 42, 2]] },
  dark: { text: [[30, 35, 40], [32, 128, 117], [150, 246, 226]], image: [[34, 32, 36], [166, 92, 32], [255, 214, 160]] },
};

function colour(scale, t) {
  const [none, middle, most] = scale;
  return `rgb(${(t < 0.5 ? mix(none, middle, t * 2) : mix(middle, most, t * 2 - 1)).join(" ")})`;
}

export class HeatMap {
  // kind: "text" or "image"
  constructor(kind, title) {
    this.kind = kind;
    this.canvas = h("canvas", { tabindex: "0", role: "img", onpointermove: (e) => this.point(e), onpointerleave: () => this.choose(null), onkeydown: (e) => this.key(e), onblur: () => this.choose(null) });
    this.reading = h("p.reading", { "aria-live": "polite" });
    this.scale = h("canvas.scale", { width: 128, height: 1, "aria-hidden": "true" });
    this.most = h("span", {});
    this.table = h("div.table", { tabindex: "0", role: "region", "aria-label": `${title}, as a table` });
    this.details = h("details", { ontoggle: () => this.show_table() }, h("summary", {}, "As a table"), this.table);
    this.element = h("section.card.heat", { "aria-label": title },
      h("header", {}, h("h3", {}, title), h("span.legend", {}, "0 %", this.scale, this.most)),
      h("div.heat-body", {}, h("span.axis-y", { "aria-hidden": "true" }, "layer"), this.canvas, h("span.axis-x", { "aria-hidden": "true" }, "expert")), this.reading, this.details);
    this.cell = null;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  update(counts) {
    this.counts = counts;
    this.share = shares(counts);
    this.max = Math.max(0, ...this.share.map((row) => Math.max(...row)));
    const total = counts[0]?.reduce((a, b) => a + b, 0) || 0;
    this.empty = total === 0;
    this.canvas.setAttribute("aria-label", this.empty ? "No rows yet" : `${counts.length} layers by ${counts[0].length} experts. The busiest expert takes ${percent(this.max)} of its layer. Arrow keys read cells.`);
    this.most.textContent = percent(this.max);
    this.canvas.style.height = `${Math.max(8, Math.min(26, Math.floor(420 / counts.length))) * counts.length}px`;
    this.draw();
    this.read();
    this.show_table();
  }

  draw() {
    if (!this.share?.length) return;
    const { canvas } = this, layers = this.share.length, experts = this.share[0].length;
    const ratio = devicePixelRatio || 1;
    if (!canvas.clientWidth) return;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    const context = canvas.getContext("2d");
    const dark = getComputedStyle(canvas).colorScheme === "dark" || (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    const scale = kScales[dark ? "dark" : "light"][this.kind];
    const w = canvas.width / experts, hh = canvas.height / layers, gap = w > 8 * ratio ? ratio : 0;
    for (let l = 0; l < layers; l++) {
      for (let e = 0; e < experts; e++) {
        context.fillStyle = colour(scale, this.max ? this.share[l][e] / this.max : 0);
        const x = Math.round(e * w), y = Math.round(l * hh);
        context.fillRect(x, y, Math.round((e + 1) * w) - x - gap, Math.round((l + 1) * hh) - y - gap);
      }
    }
    if (this.cell) {
      context.strokeStyle = dark ? "#fff" : "#000";
      context.lineWidth = 2 * ratio;
      context.strokeRect(this.cell[1] * w + ratio, this.cell[0] * hh + ratio, Math.max(2, w - 2 * ratio), hh - 2 * ratio);
    }
    const strip = this.scale.getContext("2d");
    for (let x = 0; x < 128; x++) {
      strip.fillStyle = colour(scale, x / 127);
      strip.fillRect(x, 0, 1, 1);
    }
  }

  point(event) {
    if (!this.share?.length) return;
    const box = this.canvas.getBoundingClientRect(), layers = this.share.length, experts = this.share[0].length;
    const at = (x, size, count) => Math.max(0, Math.min(count - 1, Math.floor((x / size) * count)));
    this.choose([at(event.clientY - box.top, box.height, layers), at(event.clientX - box.left, box.width, experts)]);
  }
  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !this.share?.length) return;
    event.preventDefault();
    const [l, e] = this.cell || [0, -step[1]];
    const clamp = (x, count) => Math.max(0, Math.min(count - 1, x));
    this.choose([clamp(l + step[0], this.share.length), clamp(e + step[1], this.share[0].length)]);
  }
  choose(cell) {
    this.cell = cell;
    this.draw();
    this.read();
  }
  read() {
    const text = this.empty ? "No rows yet." : this.cell ? `Layer ${this.cell[0]}, expert ${this.cell[1]}: ${percent(this.share[this.cell[0]][this.cell[1]])} (${this.counts[this.cell[0]][this.cell[1]].toLocaleString("en")})`
      : "Point at a cell to read it.";
    if (this.reading.textContent !== text) this.reading.textContent = text;
  }

  show_table() {
    if (!this.details.open || !this.share) return;
    const experts = this.share[0]?.length || 0;
    const head = h("tr", {}, ["Layer", "Busiest", "Its share", "Worth experts", ...Array(experts).keys()].map((name) => h("th", { scope: "col" }, String(name))));
    const rows = this.share.map((row, layer) => {
      const { busiest, share, effective } = summary(row);
      return h("tr", {}, h("th", { scope: "row" }, String(layer)), [this.empty ? "\u2013" : String(busiest), percent(share), effective.toFixed(1), ...row.map(percent)].map((text) => h("td", {}, text)));
    });
    this.table.replaceChildren(h("table", {}, h("thead", {}, head), h("tbody", {}, rows)));
  }
}

// How rows spread over the experts, layer by layer: a canvas to look at, the numbers of the cell under the pointer or the keys,
// and a table that says the same.

import { h } from "./dom.js";

export const percent = (x) => (100 * x).toFixed(x > 0 && x < 0.0995 ? 1 : 0) + " %";

// Shares of a layer's choices: [layer][expert], each layer sums to 1 (or 0 if nothing was counted).
export const shares = (counts) => counts.map((row) => {
  const sum = row.reduce((a, b) => a + b, 0);
  return row.map((x) => (sum ? x / sum : 0));
});

// One layer in three numbers: the busiest expert, its share, and how many experts the load is worth (exp of the entropy).
export function summary(row) {
  const share = Math.max(...row), entropy = row.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);
  return { busiest: row.indexOf(share), share, effective: share > 0 ? Math.exp(entropy) : 0 };
}

export class HeatMap {
  constructor(title, kind) {
    this.kind = kind;  // "text" or "image": which colour
    this.canvas = h("canvas", { tabindex: "0", role: "img", onpointermove: (e) => this.point(e), onpointerleave: () => this.choose(null), onblur: () => this.choose(null), onkeydown: (e) => this.key(e) });
    this.reading = h("p.hint", { "aria-live": "polite" });
    this.most = h("span");
    this.table = h("div.table", { tabindex: "0", role: "region", "aria-label": `${title}, as a table` });
    this.details = h("details", { ontoggle: () => this.show_table() }, h("summary", {}, "As a table"), this.table);
    this.element = h(`section.card.heat.${kind}`, { "aria-label": title },
      h("header", {}, h("h3", {}, title), h("span.legend", {}, "0 %", h("i"), this.most)),
      h("div.heat-body", {}, h("span.axis-y", {}, "layer"), this.canvas, h("span.axis-x", {}, "expert")), this.reading, this.details);
  }

  update(counts) {
    this.counts = counts;
    this.share = shares(counts);
    this.layers = counts.length;
    this.experts = counts[0]?.length || 0;
    this.max = Math.max(0, ...this.share.flat());
    this.most.textContent = percent(this.max);
    this.canvas.style.height = `${Math.max(8, Math.min(26, Math.floor(420 / this.layers))) * this.layers}px`;
    this.canvas.setAttribute("aria-label", `${this.layers} layers by ${this.experts} experts. The busiest expert takes ${percent(this.max)} of its layer. Arrow keys read cells.`);
    this.draw();
    this.show_table();
  }

  // The colours are the page's: from the least to the most, in OKLab, so that equal steps look equal.
  draw() {
    const { canvas } = this, context = canvas.getContext("2d");
    const wide = Math.max(8, Math.round(1600 / this.experts)), high = 48;  // more pixels than the page shows: edges stay sharp
    canvas.width = this.experts * wide;
    canvas.height = this.layers * high;
    const style = getComputedStyle(canvas), [least, middle, most] = ["--least", "--middle", "--most"].map((name) => style.getPropertyValue(name));
    const steps = Array.from({ length: 65 }, (_, i) => (i < 32 ? `color-mix(in oklab, ${middle} ${i / 0.32}%, ${least})` : `color-mix(in oklab, ${most} ${(i - 32) / 0.32}%, ${middle})`));
    this.share.forEach((row, l) => row.forEach((x, e) => {
      context.fillStyle = steps[this.max ? Math.round((64 * x) / this.max) : 0];
      context.fillRect(e * wide, l * high, wide - 2, high - 2);
    }));
    if (this.cell) {
      context.strokeStyle = style.color;
      context.lineWidth = 6;
      context.strokeRect(this.cell[1] * wide + 2, this.cell[0] * high + 2, wide - 6, high - 6);
    }
    const text = !this.max ? "No rows yet." : !this.cell ? "Point at a cell to read it." :
      `Layer ${this.cell[0]}, expert ${this.cell[1]}: ${percent(this.share[this.cell[0]][this.cell[1]])} (${this.counts[this.cell[0]][this.cell[1]].toLocaleString("en")})`;
    if (this.reading.textContent !== text) this.reading.textContent = text;
  }

  choose(cell) {
    const inside = (x, count) => Math.max(0, Math.min(count - 1, Math.floor(x)));
    this.cell = cell && [inside(cell[0], this.layers), inside(cell[1], this.experts)];
    if (this.share) this.draw();
  }
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    this.choose([((event.clientY - box.top) / box.height) * this.layers, ((event.clientX - box.left) / box.width) * this.experts]);
  }
  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    this.choose(this.cell ? [this.cell[0] + step[0], this.cell[1] + step[1]] : [0, 0]);
  }

  show_table() {
    if (!this.details.open || !this.share) return;
    const cells = (tag, scope, texts) => texts.map((text) => h(tag, { scope }, String(text)));
    const rows = this.share.map((row, layer) => {
      const { busiest, share, effective } = summary(row);
      return h("tr", {}, cells("th", "row", [layer]), cells("td", null, [busiest, percent(share), effective.toFixed(1), ...row.map(percent)]));
    });
    this.table.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, cells("th", "col", ["Layer", "Busiest", "Its share", "Worth experts", ...Array(this.experts).keys()]))), h("tbody", {}, rows)));
  }
}

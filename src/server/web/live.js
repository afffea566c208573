// The live view: what the server is doing, asked once a second while someone looks.

import { h } from "./dom.js";
import { get_json } from "./api.js";
import { HeatMap } from "./heatmap.js";

const kSamples = 120;
const count = (x) => (x >= 1e6 ? (x / 1e6).toFixed(x >= 1e7 ? 0 : 1) + " M" : x >= 1e4 ? (x / 1e3).toFixed(0) + " k" : Math.round(x).toLocaleString("en"));
const percent = (x) => (100 * x).toFixed(x > 0 && x < 0.0995 ? 1 : 0) + " %";
const rate = (x) => (x >= 100 ? count(x) : x.toFixed(1));
const ms = (s) => (s >= 1 ? s.toFixed(2) + " s" : (1000 * s).toFixed(s < 0.0995 ? 1 : 0) + " ms");

function duration(seconds) {
  const s = Math.floor(seconds), units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = units.findIndex(([size]) => s >= size);
  if (at < 0) return "0 s";
  const [size, name] = units[at], next = units[at + 1];
  return `${Math.floor(s / size)} ${name}${next ? ` ${Math.floor((s % size) / next[0])} ${next[1]}` : ""}`;
}

class Tile {
  constructor(title) {
    this.value = h("span.value", {});
    this.detail = h("span.detail", {});
    this.bars = h("div.bars", {});
    this.element = h("section.card.tile", { "aria-label": title }, h("h3", {}, title), this.value, this.bars, this.detail);
  }
  show(value, detail, bars = []) {
    this.value.textContent = value;
    this.detail.textContent = detail;
    while (this.bars.children.length > bars.length) this.bars.lastChild.remove();
    bars.forEach(([label, share], i) => {
      const bar = this.bars.children[i] || this.bars.appendChild(h("meter", { min: 0, max: 1 }));
      bar.value = share;
      bar.setAttribute("aria-label", label);
      bar.title = `${label}: ${percent(share)}`;
    });
  }
}

// Two lines over the last two minutes.
class Sparkline {
  constructor() {
    this.canvas = h("canvas", { role: "img" });
    this.now = h("span.value", {});
    this.detail = h("span.detail", {});
    this.element = h("section.card.spark", { "aria-label": "Speed" }, h("h3", {}, "Generated tokens per second"), this.now, this.canvas, this.detail);
    this.samples = [];
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }
  add(generated, prompt) {
    this.samples.push(generated);
    if (this.samples.length > kSamples) this.samples.shift();
    this.now.textContent = rate(generated);
    this.most = Math.max(...this.samples);
    this.detail.textContent = `most ${rate(this.most)} in ${duration(this.samples.length)} \u00b7 prompts ${rate(prompt)}/s`;
    this.canvas.setAttribute("aria-label", `Now ${rate(generated)} tokens per second, at most ${rate(this.most)}`);
    this.draw();
  }
  draw() {
    const { canvas } = this, ratio = devicePixelRatio || 1;
    const width = (canvas.width = Math.round(canvas.clientWidth * ratio)), height = (canvas.height = Math.round(canvas.clientHeight * ratio));
    if (!width || !this.samples.length) return;
    const context = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const top = this.most > 0 ? this.most * 1.1 : 1;
    const x = (i) => width - ((this.samples.length - 1 - i) * width) / (kSamples - 1), y = (v) => height - ratio - (v / top) * (height - 4 * ratio);
    context.beginPath();
    this.samples.forEach((v, i) => (i ? context.lineTo(x(i), y(v)) : context.moveTo(x(i), y(v))));
    context.strokeStyle = style.color;
    context.lineWidth = 2 * ratio;
    context.lineJoin = "round";
    context.stroke();
    context.lineTo(width, height);
    context.lineTo(x(0), height);
    context.globalAlpha = 0.12;
    context.fillStyle = style.color;
    context.fill();
    context.globalAlpha = 1;
  }
}

export class Live {
  constructor(root) {
    this.visible = false;
    this.tiles = Object.fromEntries([["batch", "Batch"], ["queue", "Queue"], ["kv", "KV cache"], ["prefix", "Prefix cache"], ["tokens", "Tokens"], ["requests", "Requests"], ["latency", "Latency"], ["repairs", "Repairs"]]
      .map(([name, title]) => [name, new Tile(title)]));
    this.spark = new Sparkline();
    this.text = new HeatMap("text", "Expert load, text tokens");
    this.image = new HeatMap("image", "Expert load, image tokens");
    this.no_experts = h("p.hint", { hidden: true }, "This device does not count the load of experts.");
    this.about = h("p.about", {});
    this.problem = h("p.error", { role: "alert", hidden: true });
    root.append(h("div.live-column", {}, h("h2", {}, "Live state"), this.about, this.problem,
      h("div.tiles", {}, this.spark.element, Object.values(this.tiles).map((tile) => tile.element)), this.no_experts, h("div.heats", {}, this.text.element, this.image.element)));
    document.addEventListener("visibilitychange", () => this.poll_soon());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  set_visible(visible) {
    this.visible = visible;
    this.poll_soon();
  }
  redraw() {
    this.text.draw();
    this.image.draw();
    this.spark.draw();
  }

  poll_soon() {
    clearTimeout(this.timer);
    if (this.visible && !document.hidden) this.poll();
  }
  async poll() {
    if (this.asking) return;
    this.asking = true;
    const begin = performance.now();
    try {
      const state = await get_json("state", AbortSignal.timeout(10000));
      this.show(state);
      this.problem.hidden = true;
    } catch (error) {
      this.problem.textContent = error.name === "TimeoutError" ? "The server did not answer for 10 seconds" : error.message;
      this.problem.hidden = false;
    }
    this.asking = false;
    if (this.visible && !document.hidden) this.timer = setTimeout(() => this.poll(), Math.max(100, 1000 - (performance.now() - begin)));
  }

  show(state) {
    const { queue, batch, kv, prefix_cache: prefix, draft, speed, tokens, requests, latency, experts, harmony_repairs: repairs } = state;
    this.about.textContent = [state.model, `on ${state.device}`, `version ${state.version}`, `up ${duration(state.uptime_seconds)}`, state.ready ? "" : "not ready"].filter(Boolean).join(" \u00b7 ");
    this.spark.add(speed.generated_tokens_per_second, speed.prompt_tokens_per_second);
    const { tiles } = this;
    tiles.batch.show(`${batch.sequences} / ${batch.max_sequences}`, `${count(batch.steps_total)} steps \u00b7 ${count(batch.prompt_rows_total)} prompt rows, ${count(batch.decode_rows_total)} decode rows`,
      [["Sequences in the batch", batch.max_sequences ? batch.sequences / batch.max_sequences : 0]]);
    tiles.queue.show(String(queue.waiting), `waiting \u00b7 ${queue.running} running \u00b7 room for ${count(queue.limit)}`, [["Queue", queue.limit ? queue.waiting / queue.limit : 0]]);
    const groups = [["full", kv.full], ["sliding", kv.sliding]].filter(([, group]) => group.blocks > 0);
    tiles.kv.show(groups.length ? percent(Math.max(...groups.map(([, group]) => group.used))) : "\u2013",
      groups.map(([name, group]) => `${name} ${count(group.blocks - group.free)} of ${count(group.blocks)}`).join(" \u00b7 ") + ` blocks of ${kv.block_size}`, groups.map(([name, group]) => [`${name} layers`, group.used]));
    const share = prefix.query_tokens_total ? prefix.hit_tokens_total / prefix.query_tokens_total : 0;
    tiles.prefix.show(prefix.enabled ? percent(share) : "off", prefix.enabled ? `of prompt tokens \u00b7 ${count(prefix.hits_total)} hits in ${count(prefix.queries_total)} prompts` : "", prefix.enabled ? [["Tokens from the cache", share]] : []);
    tiles.tokens.show(count(tokens.generated_total), `generated \u00b7 ${count(tokens.prompt_total)} prompt \u00b7 ${count(tokens.image_total)} image \u00b7 ${count(tokens.reasoning_total)} reasoning` +
      (draft.proposed_total ? ` \u00b7 drafts ${percent(draft.accepted_total / draft.proposed_total)} right` : ""));
    tiles.requests.show(count(requests.total), `${count(requests.succeeded)} done \u00b7 ${count(requests.cancelled)} cancelled \u00b7 ${count(requests.rejected)} refused \u00b7 ${count(requests.failed)} failed`);
    tiles.latency.show(ms(latency.first_token_seconds_mean), `to the first token \u00b7 ${ms(latency.token_seconds_mean)} each after it`);
    const kinds = Object.entries(repairs).filter(([, n]) => n > 0);
    tiles.repairs.show(count(kinds.reduce((sum, [, n]) => sum + n, 0)), kinds.length ? kinds.map(([kind, n]) => `${kind.replaceAll("_", " ")} ${n}`).join(" \u00b7 ") : "of malformed output: none");
    this.no_experts.hidden = Boolean(experts);
    for (const [map, counts] of [[this.text, experts?.text], [this.image, experts?.image]]) {
      map.element.hidden = !counts;
      if (counts) map.update(counts);
    }
  }
}

// The live view: what the server is doing, asked once a second while someone looks. docs/api.md has the meaning of the numbers.

import { h, svg } from "./dom.js";
import { get_json } from "./api.js";
import { HeatMap, percent } from "./heatmap.js";

const kSamples = 120;
const count = (x) => (x >= 1e6 ? (x / 1e6).toFixed(1) + " M" : x >= 1e4 ? (x / 1e3).toFixed(0) + " k" : Math.round(x).toLocaleString("en"));
const rate = (x) => (x >= 100 ? count(x) : x.toFixed(1));
const ms = (s) => (s >= 1 ? s.toFixed(2) + " s" : (1000 * s).toFixed(1) + " ms");

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]], at = Math.max(0, units.findIndex(([size]) => seconds >= size));
  return units.slice(at, at + 2).map(([size, name], i) => `${Math.floor((i ? seconds % units[at][0] : seconds) / size)} ${name}`).join(" ");
}

// bars: [label, share] pairs.
class Tile {
  constructor(title, kind = "") {
    this.value = h("span.value");
    this.bars = h("div.bars");
    this.detail = h("span.hint");
    this.element = h(`section.card.tile${kind}`, { "aria-label": title }, h("h3", {}, title), this.value, this.bars, this.detail);
  }
  show(value, detail, ...bars) {
    this.value.textContent = value;
    this.detail.textContent = detail;
    if (this.bars.children.length !== bars.length) this.bars.replaceChildren(...bars.map(() => h("meter", { min: 0, max: 1 })));
    bars.forEach(([label, share], i) => {
      this.bars.children[i].value = share;
      this.bars.children[i].setAttribute("aria-label", label);
    });
  }
}

export class Live {
  constructor(root) {
    this.visible = false;
    this.samples = [];
    this.speed = new Tile("Generated tokens per second", ".wide-tile");
    this.line = svg("path");
    this.area = svg("path", { class: "area" });
    this.speed.bars.before(svg("svg", { class: "spark", viewBox: "0 0 119 40", preserveAspectRatio: "none", "aria-hidden": "true" }, this.area, this.line));
    this.tiles = Object.fromEntries(["Batch", "Queue", "KV cache", "Prefix cache", "Tokens", "Requests"].map((title) => [title, new Tile(title)]));
    this.maps = { text: new HeatMap("Expert load, text tokens", "text"), image: new HeatMap("Expert load, image tokens", "image") };
    this.about = h("p.about");
    this.problem = h("p.error", { role: "alert", hidden: true });
    root.append(h("div.live-column", {}, h("h2", {}, "Live state"), this.about, this.problem,
      h("div.tiles", {}, [this.speed, ...Object.values(this.tiles)].map((tile) => tile.element)), h("div.heats", {}, this.maps.text.element, this.maps.image.element)));
    document.addEventListener("visibilitychange", () => this.set_visible(this.visible));
  }

  set_visible(visible) {
    this.visible = visible;
    clearTimeout(this.timer);
    if (visible && !document.hidden) this.poll();
  }
  async poll() {
    if (this.asking) return;
    this.asking = true;
    try {
      this.show(await get_json("state", AbortSignal.timeout(10000)));
      this.problem.hidden = true;
    } catch (error) {
      this.problem.textContent = error.name === "TimeoutError" ? "The server did not answer for 10 seconds" : error.message;
      this.problem.hidden = false;
    }
    this.asking = false;
    if (this.visible && !document.hidden) this.timer = setTimeout(() => this.poll(), 1000);
  }

  show(state) {
    const { queue, batch, kv, prefix_cache: prefix, draft, tokens, requests, experts, harmony_repairs: repairs } = state, { tiles } = this;
    this.about.textContent = [state.model, `on ${state.device}`, `version ${state.version}`, `up ${duration(state.uptime_seconds)}`, ...(state.ready ? [] : ["not ready"])].join(" \u00b7 ");
    this.show_speed(state);
    tiles.Batch.show(`${batch.sequences} / ${batch.max_sequences}`, `${count(batch.steps_total)} steps \u00b7 ${count(batch.prompt_rows_total)} prompt rows, ${count(batch.decode_rows_total)} decode rows`, ["Sequences in the batch", batch.sequences / batch.max_sequences || 0]);
    tiles.Queue.show(String(queue.waiting), `waiting \u00b7 ${queue.running} running \u00b7 room for ${count(queue.limit)}`, ["Queue", queue.waiting / queue.limit || 0]);
    const groups = ["full", "sliding"].filter((name) => kv[name].blocks);
    tiles["KV cache"].show(percent(Math.max(0, ...groups.map((name) => kv[name].used))),
      groups.map((name) => `${name} ${count(kv[name].blocks - kv[name].free)} of ${count(kv[name].blocks)}`).join(" \u00b7 ") + ` blocks of ${kv.block_size}`, ...groups.map((name) => [`${name} layers`, kv[name].used]));
    const share = prefix.hit_tokens_total / prefix.query_tokens_total || 0;
    if (prefix.enabled) tiles["Prefix cache"].show(percent(share), `of prompt tokens \u00b7 ${count(prefix.hits_total)} hits in ${count(prefix.queries_total)} prompts`, ["Tokens from the cache", share]);
    else tiles["Prefix cache"].show("off", "");
    tiles.Tokens.show(count(tokens.generated_total), `generated \u00b7 ${count(tokens.prompt_total)} prompt \u00b7 ${count(tokens.image_total)} image \u00b7 ${count(tokens.reasoning_total)} reasoning` +
      (draft.proposed_total ? ` \u00b7 ${percent(draft.accepted_total / draft.proposed_total)} of drafts right` : ""));
    const kinds = Object.entries(repairs).filter(([, n]) => n).map(([kind, n]) => `${kind.replaceAll("_", " ")} ${n}`);
    tiles.Requests.show(count(requests.total), `${count(requests.succeeded)} done \u00b7 ${count(requests.cancelled)} cancelled \u00b7 ${count(requests.rejected)} refused \u00b7 ${count(requests.failed)} failed` +
      (kinds.length ? ` \u00b7 output repaired: ${kinds.join(", ")}` : ""));
    for (const [kind, map] of Object.entries(this.maps)) map.update(experts[kind]);
  }

  show_speed({ speed, latency }) {
    this.samples = [...this.samples, speed.generated_tokens_per_second].slice(-kSamples);
    const most = Math.max(...this.samples), x = (i) => kSamples - this.samples.length + i;
    const line = this.samples.map((v, i) => `${i ? "L" : "M"}${x(i)} ${(39 - (36 * v) / (most || 1)).toFixed(2)}`).join("");
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", `${line}V40H${x(0)}Z`);
    this.speed.show(rate(speed.generated_tokens_per_second), `most ${rate(most)} in ${duration(this.samples.length)} \u00b7 prompts ${rate(speed.prompt_tokens_per_second)}/s \u00b7 first token after ${ms(latency.first_token_seconds_mean)}, ${ms(latency.token_seconds_mean)} each after it`);
  }
}

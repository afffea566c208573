// How one message looks. A view has an element, and update() while its message grows.

import { h, icon, icon_button, copy_button } from "./dom.js";
import { MarkdownView } from "./markdown.js";

const number = (value) => value.toLocaleString("en");
const seconds = (ms) => (ms < 9950 ? (ms / 1000).toFixed(1) : Math.round(ms / 1000)) + " s";

export function stats_text(stats) {
  if (!stats) return "";
  const about = stats.estimated ? "\u2248\u2009" : "";
  const parts = [];
  if (stats.completion) parts.push(`${about}${number(stats.completion)} tokens`);
  if (stats.rate) parts.push(`${stats.rate < 100 ? stats.rate.toFixed(1) : Math.round(stats.rate)} tokens/s`);
  if (stats.first_ms) parts.push(`first after ${seconds(stats.first_ms)}`);
  if (stats.prompt) {
    const of = [stats.cached ? `${number(stats.cached)} cached` : "", stats.image ? `${number(stats.image)} of pictures` : ""].filter(Boolean);
    parts.push(`prompt ${number(stats.prompt)}${of.length ? ` (${of.join(", ")})` : ""}`);
  }
  return parts.join(" \u00b7 ");
}

const kFinish = { length: "Stopped at the token limit.", stopped: "You stopped this answer.", content_filter: "The server withheld the rest." };

function branch_switch(context, message) {
  const all = context.siblings(message);
  if (all.length < 2) return null;
  const at = all.findIndex((other) => other.id === message.id);
  const step = (by, name, label) => icon_button(name, label, () => context.on.branch(all[at + by].id), { disabled: !all[at + by] });
  return h("span.branches", { role: "group", "aria-label": "Versions" }, step(-1, "left", "Earlier version"), h("span", { "aria-label": `Version ${at + 1} of ${all.length}` }, `${at + 1}/${all.length}`), step(1, "right", "Later version"));
}

function pictures(images) {
  return images?.length ? h("div.pictures", {}, images.map((image) => h("img", { src: image.url, alt: image.name || "Picture" }))) : null;
}

export class UserView {
  constructor(message, context) {
    this.message = message;
    this.context = context;
    this.element = h("article.message.user", {});
    this.show();
  }
  show() {
    const { message, context } = this;
    this.element.replaceChildren(
      h("h2.offscreen", {}, "You"),
      ...[pictures(message.images), message.content ? h("div.bubble", {}, message.content) : null].filter(Boolean),
      h("div.actions", {}, branch_switch(context, message), copy_button("Copy message", () => message.content), icon_button("edit", "Edit message", () => this.edit())));
  }
  edit() {
    const { message, context } = this;
    let images = [...(message.images || [])];
    const text = h("textarea", { "aria-label": "Edited message", rows: 3 });
    text.value = message.content;
    const close = () => {
      this.show();
      this.element.querySelector('[aria-label="Edit message"]').focus();
    };
    const thumbnails = h("ul.previews", { "aria-label": "Pictures" });
    const show_images = () => thumbnails.replaceChildren(...images.map((image) => h("li", {}, h("img", { src: image.url, alt: image.name || "Picture" }),
      icon_button("close", `Remove ${image.name || "picture"}`, () => { images = images.filter((other) => other !== image); show_images(); text.focus(); }))));
    show_images();
    const submit = () => {
      if (text.value.trim() || images.length) context.on.edit(message, text.value.trim(), images);
    };
    text.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); submit(); }
      if (event.key === "Escape") { event.stopPropagation(); close(); }
    });
    this.element.replaceChildren(h("form.editor", { onsubmit: (event) => { event.preventDefault(); submit(); } },
      thumbnails, text, h("div.dialog-buttons", {}, h("button", { type: "button", onclick: close }, "Cancel"), h("button.primary", { type: "submit" }, "Send"))));
    text.focus();
  }
}

export class ToolView {
  constructor(message, context) {
    this.element = h("article.message.tool", {}, h("h2.offscreen", {}, "Tool result"),
      h("details.fold", {}, h("summary", {}, icon("tool"), `Result of ${context.call_name(message) || "tool"}`), h("pre", {}, message.content)));
  }
}

export class AssistantView {
  constructor(message, context) {
    this.message = message;
    this.context = context;
    this.reasoning_text = h("div.text.markdown");
    this.reasoning_label = h("span", {}, "Thinking");
    this.reasoning = h("details.fold.reasoning", { hidden: true, ontoggle: () => this.show_reasoning() }, h("summary", {}, this.reasoning_label), this.reasoning_text);
    this.reasoning_markdown = new MarkdownView(this.reasoning_text);
    this.text = h("div.text.markdown");
    this.markdown = new MarkdownView(this.text);
    this.calls = h("div.calls");
    this.waiting = h("div.waiting", { hidden: true, role: "img", "aria-label": "Waiting for the model" }, h("i"), h("i"), h("i"));
    this.foot = h("div.foot");
    this.element = h("article.message.assistant", {}, h("h2.offscreen", {}, "Model"), this.reasoning, this.text, this.calls, this.waiting, this.foot);
    this.update();
  }

  update() {
    const { message, context } = this;
    const busy = context.busy(message);
    this.element.setAttribute("aria-busy", String(busy));
    this.markdown.update(message.content);
    this.text.hidden = !message.content;
    if (message.reasoning) {
      this.reasoning.hidden = false;
      const thinking = busy && !message.content && !message.tool_calls?.length;
      const took = message.stats?.reasoning_ms ? ` for ${seconds(message.stats.reasoning_ms)}` : "";
      const tokens = message.stats?.reasoning ? ` \u00b7 ${number(message.stats.reasoning)} tokens` : "";
      this.reasoning_label.textContent = thinking ? "Thinking\u2026" : `Thought${took}${tokens}`;
      this.reasoning.classList.toggle("active", thinking);
      this.show_reasoning();
    }
    this.show_calls(busy);
    this.waiting.hidden = !(busy && !message.content && !message.reasoning && !message.tool_calls?.length);
    this.show_foot(busy);
  }

  show_reasoning() {
    if (this.reasoning.open) this.reasoning_markdown.update(this.message.reasoning || "");
  }

  show_calls(busy) {
    const { message, context } = this;
    const key = JSON.stringify([message.tool_calls, busy, context.is_head(message)]);
    if (key === this.calls_key) return;
    this.calls_key = key;
    const pretty = (text) => { try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; } };
    this.calls.replaceChildren(...(message.tool_calls || []).map((call) =>
      h("section.call", { "aria-label": `Call of ${call.name}` }, h("div.call-name", {}, icon("tool"), h("code", {}, call.name || "\u2026")), h("pre", { tabindex: "0", role: "region", "aria-label": "Arguments" }, pretty(call.arguments)))));
    if (message.tool_calls?.length && !busy && context.is_head(message)) this.calls.append(this.result_form());
  }

  result_form() {
    const { message, context } = this;
    const fields = message.tool_calls.map((call, index) => {
      const id = `result-${message.id}-${index}`;
      return h("div.field.wide", {}, h("label", { for: id }, `Result of ${call.name}`), h("textarea.mono", { id, rows: 2, required: true, spellcheck: "false" }));
    });
    return h("form.results", {
      onsubmit: (event) => {
        event.preventDefault();
        context.on.results(message, [...event.target.querySelectorAll("textarea")].map((area) => area.value));
      },
    }, fields, h("div.dialog-buttons", {}, h("button.primary", { type: "submit" }, "Send result")));
  }

  show_foot(busy) {
    const { message, context } = this;
    if (busy) {
      this.foot.replaceChildren(h("span.stats", {}, stats_text(message.stats)));
      return;
    }
    const parts = [];
    if (message.error) {
      parts.push(h("p.error", { role: "alert" }, h("span", {}, message.error), h("button", { type: "button", onclick: () => context.on.retry(message) }, "Retry")));
    } else if (kFinish[message.finish]) {
      parts.push(h("p.finish", {}, kFinish[message.finish]));
    }
    parts.push(h("div.actions", {}, branch_switch(context, message),
      message.content ? copy_button("Copy answer", () => message.content) : null,
      message.error ? null : icon_button("retry", "Ask again", () => context.on.retry(message)),
      h("span.stats", {}, stats_text(message.stats))));
    this.foot.replaceChildren(...parts);
  }
}

export function message_view(message, context) {
  if (message.role === "user") return new UserView(message, context);
  return message.role === "tool" ? new ToolView(message, context) : new AssistantView(message, context);
}

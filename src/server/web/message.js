// How one message looks. A view has an element, and update() while its message grows.

import { h, icon, icon_button, copy_button } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { buttons } from "./dialogs.js";

const number = (value) => value.toLocaleString("en");
const seconds = (ms) => (ms < 995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`);
const joined = (parts, by = " \u00b7 ") => parts.filter(Boolean).join(by);
const kFinish = { length: "Stopped at the token limit.", stopped: "You stopped this answer." };

function stats_text({ completion, rate, first_ms, prompt, cached, image, estimated } = {}) {
  const of = joined([cached && `${number(cached)} cached`, image && `${number(image)} of pictures`], ", ");
  return joined([completion && `${estimated ? "\u2248\u2009" : ""}${number(completion)} tokens`, rate && `${rate < 100 ? rate.toFixed(1) : Math.round(rate)} tokens/s`,
    first_ms && `first after ${seconds(first_ms)}`, prompt && `prompt ${number(prompt)}${of && ` (${of})`}`]);
}

function branch_switch(message, context) {
  const all = context.siblings(message), at = all.indexOf(message);
  if (all.length < 2) return null;
  const step = (by, name, label) => icon_button(name, label, () => context.branch(all[at + by].id), { disabled: !all[at + by] });
  return h("span.branches", { role: "group", "aria-label": "Versions" }, step(-1, "left", "Earlier version"), `${at + 1}/${all.length}`, step(1, "right", "Later version"));
}

// Small pictures, each with a button that takes it away.
export function show_previews(list, images, removed) {
  list.hidden = !images.length;
  list.replaceChildren(...images.map((image) => h("li", {}, h("img", { src: image.url, alt: image.name }), icon_button("close", `Remove ${image.name}`, () => {
    images.splice(images.indexOf(image), 1);
    show_previews(list, images, removed);
    removed();
  }))));
}

class UserView {
  constructor(message, context) {
    Object.assign(this, { message, context, element: h("article.message.user") });
    this.show();
  }
  show() {
    const { message, context } = this, images = message.images || [];
    this.edit_button = icon_button("edit", "Edit message", () => this.edit());
    this.element.replaceChildren(h("h2.offscreen", {}, "You"),
      h("div.pictures", { hidden: !images.length }, images.map((image) => h("img", { src: image.url, alt: image.name }))), h("div.bubble", { hidden: !message.content }, message.content),
      h("div.actions", {}, branch_switch(message, context), copy_button("Copy message", () => message.content), this.edit_button));
  }
  edit() {
    const { message, context } = this, images = [...(message.images || [])];
    const text = h("textarea", { "aria-label": "Edited message", rows: 3, onkeydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        text.form.requestSubmit();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
    } });
    const close = () => {
      this.show();
      this.edit_button.focus();
    };
    const previews = h("ul.previews", { "aria-label": "Pictures" });
    show_previews(previews, images, () => text.focus());
    text.value = message.content;
    this.element.replaceChildren(h("form.editor", { onsubmit: (event) => {
      event.preventDefault();
      if (text.value.trim() || images.length) context.edit(message, text.value.trim(), images);
    } }, previews, text, buttons("Send", "primary", close)));
    text.focus();
  }
}

class ToolView {
  constructor(message, context) {
    this.element = h("article.message.tool", {}, h("h2.offscreen", {}, "Tool result"),
      h("details.fold", {}, h("summary", {}, icon("tool"), `Result of ${context.call_name(message)}`), h("pre", {}, message.content)));
  }
}

class AssistantView {
  constructor(message, context) {
    Object.assign(this, { message, context, text: h("div.text.markdown"), calls: h("div"), foot: h("div.foot") });
    this.markdown = new MarkdownView(this.text);
    const thoughts = h("div.markdown");
    this.reasoning_markdown = new MarkdownView(thoughts);
    this.reasoning_label = h("span");
    this.reasoning = h("details.fold", { ontoggle: () => this.show_reasoning() }, h("summary.reasoning", {}, this.reasoning_label), thoughts);
    this.waiting = h("div.waiting", { role: "img", "aria-label": "Waiting for the model" }, h("i"), h("i"), h("i"));
    this.element = h("article.message.assistant", {}, h("h2.offscreen", {}, "Model"), this.reasoning, this.text, this.calls, this.waiting, this.foot);
    this.update();
  }

  update() {
    const { message } = this, busy = this.context.busy(message), answering = message.content || message.tool_calls;
    this.element.setAttribute("aria-busy", String(busy));
    this.markdown.update(message.content);
    this.text.hidden = !message.content;
    this.waiting.hidden = !busy || Boolean(answering || message.reasoning);
    this.reasoning.hidden = !message.reasoning;
    const { reasoning_ms, reasoning } = message.stats || {}, thinking = busy && !answering;
    this.reasoning.classList.toggle("active", thinking);
    this.reasoning_label.textContent = thinking ? "Thinking\u2026" : joined(["Thought" + (reasoning_ms ? ` for ${seconds(reasoning_ms)}` : ""), reasoning && `${number(reasoning)} tokens`]);
    this.show_reasoning();
    this.show_calls(busy);
    this.show_foot(busy);
  }
  show_reasoning() {
    if (this.reasoning.open) this.reasoning_markdown.update(this.message.reasoning || "");
  }

  show_calls(busy) {
    const { message, context } = this, calls = message.tool_calls || [], asks = calls.length && !busy && context.is_head(message);
    const key = JSON.stringify([calls, asks]);
    if (key === this.calls_key) return;
    this.calls_key = key;
    const pretty = (text) => { try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; } };
    this.calls.replaceChildren(...calls.map((call) => h("section.call", { "aria-label": `Call of ${call.name}` },
      h("div.call-name", {}, icon("tool"), h("code", {}, call.name)), h("pre", { tabindex: "0", role: "region", "aria-label": "Arguments" }, pretty(call.arguments)))));
    if (asks) this.calls.append(this.result_form(calls));
  }
  // There is nobody else to run a tool: the person gives its result.
  result_form(calls) {
    const areas = calls.map((call) => h("textarea.mono", { rows: 2, required: true, "aria-label": `Result of ${call.name}`, placeholder: `Result of ${call.name}` }));
    return h("form.results", { onsubmit: (event) => {
      event.preventDefault();
      this.context.results(this.message, areas.map((area) => area.value));
    } }, areas, buttons("Send result", "primary", null));
  }

  show_foot(busy) {
    const { message, context } = this, { error } = message, retry = () => context.retry(message), stats = h("span.stats", {}, stats_text(message.stats));
    if (busy) this.foot.replaceChildren(stats);
    else {
      this.foot.replaceChildren(
        error ? h("p.error", { role: "alert" }, h("span", {}, error), h("button", { type: "button", onclick: retry }, "Retry")) : h("p.finish", {}, kFinish[message.finish] || ""),
        h("div.actions", {}, branch_switch(message, context), message.content && copy_button("Copy answer", () => message.content), !error && icon_button("retry", "Ask again", retry), stats));
    }
  }
}

export const message_view = (message, context) => new { user: UserView, tool: ToolView, assistant: AssistantView }[message.role](message, context);

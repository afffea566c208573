// The chat view: the branch on show, answers being made (also of chats that are not on show), and what the buttons do.

import { h, icon } from "./dom.js";
import * as tree from "./conversation.js";
import { message_view } from "./message.js";
import { Composer } from "./composer.js";
import { Generation, Announcer } from "./generation.js";
import { request_fields } from "./settings.js";
import { too_much } from "./images.js";
import { ask_key, toast } from "./dialogs.js";

const kSaveEvery = 3000;  // ms, while an answer grows
const kExamples = ["What is in this picture?", "Explain a mixture of experts in three sentences.", "Write a Python function that finds the median of two sorted lists."];
const $ = (id) => document.getElementById(id);

export class Chat {
  // on: {saved(), model()}; saved() after the list of chats may have changed, model() names the model to ask.
  constructor(store, on) {
    Object.assign(this, { store, on, column: $("column"), scroll: $("scroll"), to_end: $("to-end"), announcer: new Announcer($("announce")) });
    this.running = new Map();  // conversation id -> Generation
    this.views = new Map();    // message id -> view
    this.composer = new Composer($("composer"), { send: (text, images) => this.send(this.conversation.head, text, images), stop: () => this.stop(), edit_last: () => this.edit_last(), images: () => tree.images_of(this.conversation) });
    this.context = {  // what message views ask and tell
      siblings: (message) => tree.siblings(this.conversation, message), busy: (message) => this.generation?.message === message, is_head: (message) => this.conversation.head === message.id,
      call_name: (message) => Object.values(this.conversation.messages).flatMap((m) => m.tool_calls || []).find((call) => call.id === message.tool_call_id)?.name || "tool",
      branch: (id) => this.branch(id), edit: (message, text, images) => this.send(message.parent, text, images), retry: (message) => this.retry(message), results: (message, texts) => this.results(message, texts),
    };
    this.to_end.append(icon("down"), "Latest");
    this.to_end.addEventListener("click", () => this.follow(true));
    this.scroll.addEventListener("scroll", () => this.follow(false), { passive: true });
    addEventListener("pagehide", () => this.running.forEach((generation) => store.put(generation.conversation, true)));
  }
  get generation() {
    return this.running.get(this.conversation?.id);
  }

  show(conversation) {
    this.conversation = this.running.get(conversation.id)?.conversation || conversation;
    this.announcer.restart();
    this.render();
    this.follow(true);
  }
  render() {
    this.views = new Map(tree.path_to_head(this.conversation).map((message) => [message.id, message_view(message, this.context)]));
    this.column.replaceChildren(...(this.views.size ? [...this.views.values()].map((view) => view.element) : [this.welcome()]));
    this.show_state();
  }
  welcome() {
    return h("section.welcome", {}, h("h2", {}, "Talk to the model, with text and pictures"), h("p", {}, "Everything stays between this browser and the server it came from."),
      h("ul", {}, kExamples.map((text) => h("li", {}, h("button", { type: "button", onclick: () => this.composer.fill(text) }, text)))));
  }
  // What depends on whether an answer is being made, and the use of the context.
  show_state() {
    this.composer.set_busy(Boolean(this.generation));
    const { stats } = tree.path_to_head(this.conversation).findLast((message) => message.stats?.prompt) || {};
    this.composer.note.textContent = stats && this.context_length ? `${(stats.prompt + stats.completion).toLocaleString("en")} of ${this.context_length.toLocaleString("en")} tokens` : "";
  }
  near_end() {
    return this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < 80;
  }
  follow(to_end) {
    if (to_end) this.scroll.scrollTop = this.scroll.scrollHeight;
    this.to_end.hidden = this.near_end();
  }

  // A question after the message `parent`: at the end of the branch, or beside another one that it replaces.
  send(parent, text, images) {
    this.stop();
    tree.add_message(this.conversation, parent, { role: "user", content: text, ...(images.length ? { images } : {}) });
    this.answer();
  }
  retry(message) {
    if (this.generation) return;
    if (tree.is_blank_leaf(this.conversation, message)) return this.answer(message);
    this.conversation.head = message.parent;
    return this.answer();
  }
  results(message, texts) {
    texts.forEach((content, i) => tree.add_message(this.conversation, this.conversation.head, { role: "tool", content, tool_call_id: message.tool_calls[i].id }));
    this.answer();
  }
  branch(id) {
    if (this.generation) return;
    const at = this.scroll.scrollTop;
    tree.select_branch(this.conversation, id);
    this.save(this.conversation);
    this.render();
    this.scroll.scrollTop = at;
    this.views.get(id)?.element.querySelector(".branches button:not([disabled])")?.focus();
  }
  edit_last() {
    const last = tree.path_to_head(this.conversation).findLast((message) => message.role === "user");
    if (last && !this.generation) this.views.get(last.id).edit();
    return Boolean(last);
  }
  stop() {
    this.generation?.stop();
  }

  body({ settings }) {
    const problem = too_much(tree.images_of(this.conversation));
    if (problem) throw new Error(`${problem}; start a new chat`);
    return { ...request_fields(settings), model: this.on.model() || undefined, messages: tree.request_messages(this.conversation) };
  }
  // Asks for an answer to the head of the conversation on show; `message` is one that failed, to be filled now.
  async answer(message = null) {
    const { conversation } = this;
    let body = null, error = "";
    try {
      body = this.body(conversation);
    } catch (problem) {
      error = problem.message;
    }
    message ||= tree.add_message(conversation, conversation.head, { role: "assistant" });
    Object.assign(message, { error, finish: "", changed: Date.now() });
    const generation = new Generation(conversation, message);
    if (body) this.running.set(conversation.id, generation);
    this.show(conversation);
    this.save(conversation);
    if (!body) return;
    await generation.run(body, () => this.grown(generation));
    if (this.running.get(conversation.id) === generation) this.running.delete(conversation.id);
    conversation.updated = Date.now();
    if (this.conversation === conversation) this.finished(message);
    this.save(conversation);
    if (generation.status === 401 && await ask_key() && this.conversation === conversation) this.retry(message);
  }

  // Draws at most once a frame, and more seldom when drawing is slow. A hidden page gets no frames.
  grown(generation) {
    if (generation.drawing) return;
    generation.drawing = true;
    const draw = () => {
      generation.drawing = false;
      const begin = performance.now(), at_end = this.near_end(), { conversation, message } = generation;
      if (this.generation === generation) {
        this.views.get(message.id).update();
        this.follow(at_end);
        this.announcer.update(message.content, false);
      }
      generation.pause = 4 * (performance.now() - begin);
      if (begin - (generation.saved || generation.start) < kSaveEvery) return;
      generation.saved = begin;
      this.save(conversation);
    };
    if (document.hidden || generation.pause > 16) setTimeout(draw, document.hidden ? 250 : generation.pause);
    else requestAnimationFrame(draw);
  }
  finished(message) {
    const at_end = this.near_end();
    this.views.get(message.id)?.update();
    this.show_state();
    this.follow(at_end);
    this.announcer.update(message.content, !message.error);
  }

  async save(conversation) {
    if (conversation.deleted) return;  // while its answer was being made
    try {
      await this.store.put(conversation);
    } catch (error) {
      toast(`This chat was not stored: ${error.message}`);
    }
    this.on.saved();
  }
}

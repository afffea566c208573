// The chat view: the branch on show, answers being made (also of chats that are not on show), and what the buttons do.

import { h, icon } from "./dom.js";
import * as tree from "./conversation.js";
import { message_view } from "./message.js";
import { Composer } from "./composer.js";
import { Generation, Announcer } from "./generation.js";
import { request_fields } from "./settings.js";
import { kLimits } from "./images.js";
import { ask_key, toast } from "./dialogs.js";
import { api_key } from "./api.js";

const kSaveEvery = 3000;  // ms, while an answer grows
const kExamples = ["What is in this picture?", "Explain a mixture of experts in three sentences.", "Write a Python function that finds the median of two sorted lists."];

export class Chat {
  // on: {saved(), model()}; saved() after the list of chats may have changed, model() names the model to ask.
  constructor(store, on) {
    this.store = store;
    this.on = on;
    this.running = new Map();  // conversation id -> Generation
    this.views = new Map();    // message id -> view
    this.column = document.getElementById("column");
    this.scroll = document.getElementById("scroll");
    this.announcer = new Announcer(document.getElementById("announce"));
    this.composer = new Composer(document.getElementById("composer"), {
      send: (text, images) => this.send(text, images), stop: () => this.stop(), edit_last: () => this.edit_last(),
    });
    this.context = {
      siblings: (message) => tree.siblings(this.conversation, message),
      busy: (message) => this.running.get(this.conversation.id)?.message === message,
      is_head: (message) => this.conversation.head === message.id,
      call_name: (message) => this.conversation.messages[message.parent] && this.call_name(message),
      on: { branch: (id) => this.branch(id), edit: (...args) => this.edit(...args), retry: (message) => this.retry(message), results: (...args) => this.results(...args) },
    };
    this.to_end = document.getElementById("to-end");
    this.to_end.append(icon("down"), "Latest");
    this.to_end.addEventListener("click", () => this.follow(true));
    this.scroll.addEventListener("scroll", () => { this.to_end.hidden = this.near_end(); }, { passive: true });
    addEventListener("pagehide", () => this.running.forEach((generation) => this.store.put(generation.conversation)));
  }

  show(conversation) {
    this.conversation = this.running.get(conversation.id)?.conversation || conversation;
    this.announcer.restart();
    this.render();
    this.follow(true);
  }

  render() {
    const path = tree.path_to(this.conversation);
    this.views.clear();
    if (!path.length) {
      this.column.replaceChildren(this.welcome());
    } else {
      this.column.replaceChildren(...path.map((message) => {
        const view = message_view(message, this.context);
        this.views.set(message.id, view);
        return view.element;
      }));
    }
    this.composer.set_busy(this.running.has(this.conversation.id));
    this.show_context();
  }

  welcome() {
    return h("section.welcome", {}, h("h2", {}, "Talk to the model, with text and pictures"),
      h("p", {}, "Everything stays between this browser and the server it came from."),
      h("ul", {}, kExamples.map((text) => h("li", {}, h("button", { type: "button", onclick: () => this.composer.fill(text) }, text)))));
  }

  call_name(message) {
    for (let at = this.conversation.messages[message.parent]; at; at = this.conversation.messages[at.parent]) {
      const call = at.tool_calls?.find((c) => c.id === message.tool_call_id);
      if (call) return call.name;
      if (at.role === "assistant") return "";
    }
    return "";
  }

  near_end() {
    return this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < 80;
  }
  follow(always = false) {
    if (always) this.scroll.scrollTop = this.scroll.scrollHeight;
    this.to_end.hidden = this.near_end();
  }
  show_context() {
    const last = tree.path_to(this.conversation).findLast((message) => message.stats?.prompt);
    const used = last ? last.stats.prompt + (last.stats.completion || 0) : 0, limit = this.context_length;
    this.composer.status(used && limit ? `${used.toLocaleString("en")} of ${limit.toLocaleString("en")} tokens` : "");
  }

  send(text, images) {
    if (this.running.has(this.conversation.id)) return;
    const head = this.conversation.head;
    tree.add_message(this.conversation, head, { role: "user", content: text, ...(images.length ? { images } : {}) });
    this.answer();
  }
  edit(message, text, images) {
    this.stop();
    tree.add_message(this.conversation, message.parent, { role: "user", content: text, ...(images.length ? { images } : {}) });
    this.answer();
  }
  retry(message) {
    if (this.running.has(this.conversation.id)) return;
    const { parent } = message;
    if (message.error && !message.content && !message.reasoning) tree.remove_message(this.conversation, message.id);
    this.conversation.head = parent;
    this.answer();
  }
  results(message, texts) {
    let parent = message.id;
    texts.forEach((content, index) => {
      parent = tree.add_message(this.conversation, parent, { role: "tool", content, tool_call_id: message.tool_calls[index].id }).id;
    });
    this.answer();
  }
  branch(id) {
    if (this.running.has(this.conversation.id)) return;
    tree.select_branch(this.conversation, id);
    this.save(this.conversation);
    const at = this.scroll.scrollTop;
    this.render();
    this.scroll.scrollTop = at;
    this.views.get(id)?.element.querySelector(".branches button:not([disabled])")?.focus();
  }
  edit_last() {
    const last = tree.path_to(this.conversation).findLast((message) => message.role === "user");
    if (!last || this.running.has(this.conversation.id)) return false;
    this.views.get(last.id).edit();
    return true;
  }
  stop() {
    this.running.get(this.conversation?.id)?.stop();
  }

  body(conversation) {
    const body = { model: this.on.model(), messages: tree.request_messages(conversation), ...request_fields(conversation.settings) };
    const chars = body.messages.flatMap((m) => (Array.isArray(m.content) ? m.content : [])).reduce((sum, part) => sum + (part.image_url?.url.length || 0), 0);
    if (chars > kLimits.total_chars) throw new Error("The pictures of this chat are too large for one request; start a new chat");
    return body;
  }

  // Asks for an answer to the head of the conversation on show.
  async answer() {
    const { conversation } = this;
    let body = null, problem = "";
    try {
      body = this.body(conversation);
    } catch (error) {
      problem = error.message;
    }
    const message = tree.add_message(conversation, conversation.head, { role: "assistant" });
    if (problem) {
      Object.assign(message, { error: problem, finish: "error" });
      this.render();
      this.follow(true);
      this.save(conversation);
      return;
    }
    const generation = new Generation(conversation, message);
    this.running.set(conversation.id, generation);
    this.announcer.restart();
    this.render();
    this.follow(true);
    this.save(conversation);
    await generation.run(body, () => this.grown(generation));
    if (this.running.get(conversation.id) === generation) this.running.delete(conversation.id);
    conversation.updated = Date.now();
    this.finished(generation);
    this.save(conversation);
    if (generation.status === 401) this.ask_again(conversation, message);
  }

  async ask_again(conversation, message) {
    const key = await ask_key();
    if (!key) return;
    api_key.set(key);
    if (this.conversation === conversation) this.retry(message);
  }

  // Draws at most once a frame, and more seldom when drawing is slow.
  grown(generation) {
    if (generation.drawing) return;
    generation.drawing = true;
    const draw = () => {
      generation.drawing = false;
      const begin = performance.now();
      if (this.running.get(generation.conversation.id) !== generation) return;
      const view = this.views.get(generation.message.id);
      if (view && this.conversation === generation.conversation) {
        const at_end = this.near_end();
        view.update();
        this.follow(at_end);
        this.announcer.update(generation.message.content, false);
      }
      generation.pause = 4 * (performance.now() - begin);
      if (begin - (generation.saved || generation.start) > kSaveEvery) {
        generation.saved = begin;
        this.save(generation.conversation);
      }
    };
    // A hidden page gets no frames.
    if (document.hidden || generation.pause > 16) setTimeout(draw, document.hidden ? 250 : generation.pause);
    else requestAnimationFrame(draw);
  }

  finished(generation) {
    if (this.conversation !== generation.conversation) return;
    const at_end = this.near_end(), focused = document.activeElement;
    this.views.get(generation.message.id)?.update();
    this.composer.set_busy(this.running.has(this.conversation.id));
    this.follow(at_end);
    this.show_context();
    this.announcer.update(generation.message.content, !generation.message.error);
    if (focused === document.body) this.composer.text.focus();
  }

  async save(conversation) {
    try {
      await this.store.put(conversation);
    } catch (error) {
      toast(`This chat was not stored: ${error.message || error.name}`);
    }
    this.on.saved();
  }
}

// One answer being made: collects the stream into its message and measures it.

import { stream_chat, ApiError } from "./api.js";

export class Generation {
  constructor(conversation, message) {
    Object.assign(this, { conversation, message, pieces: 0, abort: new AbortController() });
  }
  stop() {
    this.abort.abort();
  }

  // Runs to the end; never throws. on_change is called after every piece.
  async run(body, on_change) {
    const { message } = this;
    this.start = performance.now();
    try {
      const { finish, usage } = await stream_chat(body, this.abort.signal, (delta) => {
        this.take(delta);
        on_change();
      });
      message.finish = finish || "stop";
      this.usage = usage;
    } catch (error) {
      message.finish = error.name === "AbortError" ? "stopped" : "error";
      if (message.finish === "error") message.error = error instanceof ApiError ? error.message : `This page failed: ${error.message}`;
      this.status = error.status;
    }
    this.measure();
  }

  take({ content, reasoning, tool_calls }) {
    const { message } = this, now = performance.now();
    this.first ||= now;
    this.last = now;
    this.pieces++;
    if (reasoning) message.reasoning = (message.reasoning || "") + reasoning;
    else if (message.reasoning) this.thought ||= now;
    message.content += content;
    for (const part of tool_calls) {
      const calls = (message.tool_calls ||= []), index = part.index < calls.length ? part.index : calls.length;
      const call = (calls[index] ||= { id: "", name: "", arguments: "" });
      call.id ||= part.id || "";
      call.name += part.function?.name || "";
      call.arguments += part.function?.arguments || "";
    }
    this.measure();
  }

  // Until the usage comes, pieces stand for tokens.
  measure() {
    this.message.changed = Date.now();
    if (!this.first) return;
    const { usage } = this, completion = usage?.completion_tokens ?? this.pieces, span = this.last - this.first;
    const stats = {
      completion, estimated: usage ? 0 : 1, first_ms: this.first - this.start, rate: completion > 1 && span > 1 ? ((completion - 1) * 1000) / span : 0,
      reasoning_ms: this.thought - this.first, prompt: usage?.prompt_tokens, cached: usage?.prompt_tokens_details?.cached_tokens,
      image: usage?.prompt_tokens_details?.image_tokens, reasoning: usage?.completion_tokens_details?.reasoning_tokens,
    };
    this.message.stats = Object.fromEntries(Object.entries(stats).filter(([, value]) => Number.isFinite(value)));
  }
}

// Says a growing answer to screen readers in whole sentences, not in tokens.
export class Announcer {
  constructor(element) {
    this.element = element;
    this.restart();
  }
  restart() {
    this.said = 0;
    this.when = performance.now();
    this.element.replaceChildren();
  }
  say(text) {
    const line = document.createElement("p");
    line.textContent = text.replace(/[*_`#>|]+/g, " ");
    this.element.append(line);
  }
  update(text, done) {
    const now = performance.now(), rest = text.slice(this.said), end = done ? rest.length : /^[^]*[.!?\n](?=\s)/.exec(rest)?.[0].length;
    if (!end || (!done && now - this.when < 2000)) return;
    this.say(rest.slice(0, end) + (done ? " Answer complete." : ""));
    this.said += end;
    this.when = now;
  }
}

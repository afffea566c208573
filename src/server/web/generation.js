// One answer being made: collects the stream into its message and measures it.

import { stream_chat, ApiError } from "./api.js";

export class Generation {
  constructor(conversation, message) {
    this.conversation = conversation;
    this.message = message;
    this.abort = new AbortController();
    this.pieces = 0;
  }

  stop() {
    this.abort.abort();
  }

  // Runs to the end; never throws. on_change is called after every piece.
  async run(body, on_change) {
    const { message } = this;
    this.start = performance.now();
    try {
      const result = await stream_chat(body, this.abort.signal, (delta) => {
        this.take(delta);
        on_change();
      });
      message.finish = result.finish || "stop";
      this.take_usage(result.usage);
    } catch (error) {
      if (error.name === "AbortError") message.finish = "stopped";
      else {
        message.error = error instanceof ApiError ? error.message : `This page failed: ${error.message}`;
        message.finish = "error";
        this.status = error.status;
      }
    }
    this.measure();
  }

  take(delta) {
    const { message } = this, now = performance.now();
    this.first ||= now;
    this.last = now;
    this.pieces++;
    if (delta.reasoning) message.reasoning = (message.reasoning || "") + delta.reasoning;
    if ((delta.content || delta.tool_calls.length) && message.reasoning && !this.thought) this.thought = now;
    message.content += delta.content;
    for (const part of delta.tool_calls) {
      message.tool_calls ||= [];
      const index = Number.isInteger(part.index) && part.index >= 0 ? Math.min(part.index, message.tool_calls.length) : message.tool_calls.length;
      const call = (message.tool_calls[index] ||= { id: "", name: "", arguments: "" });
      call.id ||= part.id || "";
      call.name += part.function?.name || "";
      call.arguments += part.function?.arguments || "";
    }
    this.measure();
  }

  take_usage(usage) {
    if (!usage) return;
    this.usage = {
      prompt: usage.prompt_tokens, completion: usage.completion_tokens,
      cached: usage.prompt_tokens_details?.cached_tokens, image: usage.prompt_tokens_details?.image_tokens, reasoning: usage.completion_tokens_details?.reasoning_tokens,
    };
  }

  // Until the usage comes, pieces stand for tokens.
  measure() {
    if (!this.first) return;
    const tokens = this.usage?.completion ?? this.pieces, span = this.last - this.first;
    const stats = { completion: tokens, first_ms: this.first - this.start, estimated: this.usage ? 0 : 1, ...(this.usage || {}) };
    if (tokens > 1 && span > 0) stats.rate = ((tokens - 1) * 1000) / span;
    if (this.thought) stats.reasoning_ms = this.thought - this.first;
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
  update(text, done) {
    const now = performance.now();
    if (!done && now - this.when < 2000) return;
    const rest = text.slice(this.said);
    const end = done ? rest.length : Math.max(rest.lastIndexOf(". "), rest.lastIndexOf("\n"), rest.lastIndexOf("? "), rest.lastIndexOf("! ")) + 1;
    if (end > 0) {
      const line = document.createElement("p");
      line.textContent = rest.slice(0, end).replace(/[*_`#>|]+/g, " ");
      if (line.textContent.trim()) this.element.append(line);
      this.said += end;
      this.when = now;
    }
    if (done) {
      const line = document.createElement("p");
      line.textContent = "Answer complete.";
      this.element.append(line);
    }
  }
}

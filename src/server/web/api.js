// Requests to the server this page came from. The key, if one is needed, lives as long as the tab.

const kKey = "gov.key";

export const api_key = {
  get: () => { try { return sessionStorage.getItem(kKey) || ""; } catch { return ""; } },
  set: (value) => { try { value ? sessionStorage.setItem(kKey, value) : sessionStorage.removeItem(kKey); } catch { /* asked again next time */ } },
};

// One line for the user; `status` 0 is the network.
export class ApiError extends Error {
  constructor(message, status, code = "", retry_after = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retry_after = retry_after;
  }
}

const one_line = (text) => String(text).replace(/\s+/g, " ").trim().slice(0, 300);

async function error_of(response) {
  let message = "", code = "";
  try {
    const { error } = await response.json();
    message = error?.message || "";
    code = error?.code || error?.type || "";
  } catch { /* not JSON: the status says it */ }
  const wait = Number(response.headers.get("retry-after")) || 0;
  if (response.status === 429) message = `${message || "The server is busy"}${wait ? ` (try again in ${wait} s)` : ""}`;
  return new ApiError(one_line(message || `The server answered ${response.status} ${response.statusText}`), response.status, code, wait);
}

async function request(path, options = {}) {
  const key = api_key.get();
  let response;
  try {
    response = await fetch(path, {
      ...options, cache: "no-store",
      headers: { ...(options.body ? { "content-type": "application/json" } : {}), ...(key ? { authorization: `Bearer ${key}` } : {}) },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached", 0);
  }
  if (!response.ok) throw await error_of(response);
  return response;
}

export const get_json = async (path, signal) => (await request(path, { signal })).json();

// Server-sent events from a stream of bytes: yields {event, data}. Lines may end in \n, \r\n or \r and be split anywhere.
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [], event = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      for (;;) {
        const end = /\r\n|\n|\r(?=[\s\S])/.exec(rest);  // a \r at the very end may be half of \r\n
        if (!end) break;
        const line = rest.slice(0, end.index);
        rest = rest.slice(end.index + end[0].length);
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n") };
          data = [];
          event = "";
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line.startsWith("event:")) {
          event = line.slice(6).trim();
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Streams one answer. on_delta({content, reasoning, tool_calls}) for each piece; returns {finish, usage, model}.
export async function stream_chat(body, signal, on_delta) {
  const response = await request("v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
  });
  const result = { finish: null, usage: null, model: "" };
  let ended = false;
  try {
    for await (const { event, data } of events(response.body)) {
      if (data === "[DONE]") {
        ended = true;
        break;
      }
      let chunk;
      try {
        chunk = JSON.parse(data);
      } catch {
        throw new ApiError("The server sent something that is not JSON", 0);
      }
      if (event === "error" || chunk.error) throw new ApiError(one_line(chunk.error?.message || "The answer failed"), 0, chunk.error?.code || "");
      result.model ||= chunk.model || "";
      if (chunk.usage) result.usage = chunk.usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      if (choice.finish_reason) result.finish = choice.finish_reason;
      const delta = choice.delta || {};
      const reasoning = delta.reasoning_content ?? delta.reasoning;
      if (delta.content || reasoning || delta.tool_calls) on_delta({ content: delta.content || "", reasoning: reasoning || "", tool_calls: delta.tool_calls || [] });
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("The connection broke before the answer was complete", 0);
  }
  if (!ended) throw new ApiError("The connection broke before the answer was complete", 0);
  return result;
}

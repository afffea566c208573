// Requests to the server this page came from. The key, if one is needed, lives as long as the tab.

export const api_key = {
  get: () => { try { return sessionStorage.getItem("gov.key"); } catch { return null; } },
  set: (key) => { try { sessionStorage.setItem("gov.key", key); } catch { /* asked again next time */ } },
};

// One line for the user; status 0 is the network.
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(String(message).replace(/\s+/g, " ").trim().slice(0, 300));
    this.status = status;
  }
}

async function request(path, options) {
  const key = api_key.get(), headers = { ...(options.body && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw options.signal?.aborted ? error : new ApiError("The server cannot be reached");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null), wait = response.status === 429 && Number(response.headers.get("retry-after"));
  throw new ApiError((body?.error?.message || `The server answered ${response.status}`) + (wait ? ` (try again in ${wait} s)` : ""), response.status);
}

export const get_json = async (path, signal) => (await request(path, { signal })).json();

// Server-sent events from a stream of bytes: yields {event, data}. Lines may end in \n, \r\n or \r and be split anywhere.
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", data = [], event = "message";
  try {
    for (let part; !(part = await reader.read()).done;) {
      const lines = (rest + part.value).split(/\r\n|\n|\r(?=[^])/);  // a \r at the very end may be half of \r\n
      rest = lines.pop();
      for (const line of lines) {
        const [, field, value] = /^([^:]*):? ?([^]*)$/.exec(line);
        if (field === "data") data.push(value);
        else if (field === "event") event = value;
        else if (!line) {
          if (data.length) yield { event, data: data.join("\n") };
          data = [];
          event = "message";
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Streams one answer. on_delta({content, reasoning, tool_calls}) for each piece; returns {finish, usage}.
export async function stream_chat(body, signal, on_delta) {
  const response = await request("v1/chat/completions", { method: "POST", signal, body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }) });
  const result = { finish: null, usage: null };
  try {
    for await (const { event, data } of events(response.body)) {
      if (data === "[DONE]") return result;
      const { error, usage, choices } = JSON.parse(data);
      if (event === "error" || error) throw new ApiError(error?.message || "The answer failed");
      result.usage = usage || result.usage;
      const { finish_reason, delta = {} } = choices?.[0] || {}, { content = "", tool_calls = [] } = delta, reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
      result.finish = finish_reason || result.finish;
      if (content || reasoning || tool_calls?.length) on_delta({ content: content || "", reasoning, tool_calls: tool_calls || [] });
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
  }
  throw new ApiError("The connection broke before the answer was complete");
}

// A conversation is a tree: editing a question or asking again adds a sibling, nothing is overwritten. `head` is the last
// message of the branch on show. Plain data, so that it can be stored, exported and checked.

import { new_id } from "./dom.js";

export const kImageData = /^data:image\/(?:png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/]+=*$/;
const kRoles = ["user", "assistant", "tool"];
const kMaxMessages = 5000;

export function new_conversation(settings = {}) {
  return { id: new_id(), title: "", created: Date.now(), updated: Date.now(), head: null, messages: {}, settings: { ...settings } };
}

export function add_message(conversation, parent, message) {
  const id = new_id();
  conversation.messages[id] = { id, parent, created: Date.now(), content: "", ...message };
  conversation.head = id;
  conversation.updated = Date.now();
  return conversation.messages[id];
}

// From the first message to `id` (the head if none is given).
export function path_to(conversation, id = conversation.head) {
  const path = [];
  for (let at = conversation.messages[id]; at; at = conversation.messages[at.parent]) path.push(at);
  return path.reverse();
}

const by_age = (a, b) => a.created - b.created || (a.id < b.id ? -1 : 1);

export function siblings(conversation, message) {
  return Object.values(conversation.messages).filter((other) => other.parent === message.parent && other.role === message.role).sort(by_age);
}

// Shows the branch through `id`: down to its newest end.
export function select_branch(conversation, id) {
  let at = id;
  for (;;) {
    const children = Object.values(conversation.messages).filter((message) => message.parent === at).sort(by_age);
    if (!children.length) break;
    at = children.at(-1).id;
  }
  conversation.head = at;
}

// Removes a message and all that follows from it; the head moves to a sibling or the parent.
export function remove_message(conversation, id) {
  const message = conversation.messages[id];
  const doomed = [id];
  for (let i = 0; i < doomed.length; i++) {
    for (const other of Object.values(conversation.messages)) if (other.parent === doomed[i]) doomed.push(other.id);
  }
  for (const each of doomed) delete conversation.messages[each];
  const others = Object.values(conversation.messages).filter((other) => other.parent === message.parent).sort(by_age);
  if (others.length) select_branch(conversation, others.at(-1).id);
  else conversation.head = message.parent;
}

export function title_of(conversation) {
  if (conversation.title) return conversation.title;
  const first = path_to(conversation).find((message) => message.role === "user");
  const text = (first?.content || "").trim().replace(/\s+/g, " ");
  return text ? (text.length > 60 ? text.slice(0, 59) + "\u2026" : text) : first?.images?.length ? "Picture" : "New chat";
}

function wire_message(message) {
  if (message.role === "tool") return { role: "tool", tool_call_id: message.tool_call_id, content: message.content };
  if (message.role === "assistant") {
    const out = { role: "assistant", content: message.content || null };
    if (message.reasoning) out.reasoning_content = message.reasoning;
    if (message.tool_calls?.length) {
      out.tool_calls = message.tool_calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
    }
    return out;
  }
  if (!message.images?.length) return { role: "user", content: message.content };
  const parts = message.images.map((image) => ({ type: "image_url", image_url: { url: image.url } }));
  if (message.content) parts.push({ type: "text", text: message.content });
  return { role: "user", content: parts };
}

// What goes over the wire. An answer that failed before its first token is left out.
export function request_messages(conversation, id) {
  const messages = path_to(conversation, id).filter((message) => message.role !== "assistant" || message.content || message.tool_calls?.length || message.reasoning)
    .map(wire_message);
  const system = conversation.settings.system?.trim();
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

// A conversation from a file: checked member by member, unknown ones dropped. Returns null if it is not one.
export function checked_conversation(value) {
  const text = (x, limit) => (typeof x === "string" ? x.slice(0, limit) : "");
  const number = (x) => (Number.isFinite(x) ? x : 0);
  if (!value || typeof value !== "object" || typeof value.messages !== "object" || value.messages === null) return null;
  const entries = Object.values(value.messages);
  if (entries.length > kMaxMessages) return null;
  const out = new_conversation();
  const ids = new Map(entries.filter((m) => m && typeof m.id === "string").map((m) => [m.id, new_id()]));
  for (const m of entries) {
    if (!m || !ids.has(m.id) || !kRoles.includes(m.role)) return null;
    const message = { id: ids.get(m.id), parent: m.parent === null ? null : ids.get(m.parent), role: m.role, created: number(m.created), content: text(m.content, 4e6) };
    if (message.parent === undefined) return null;
    if (Array.isArray(m.images)) message.images = m.images.filter((i) => typeof i?.url === "string" && kImageData.test(i.url)).map((i) => ({ url: i.url, name: text(i.name, 200) }));
    if (m.reasoning) message.reasoning = text(m.reasoning, 4e6);
    if (m.tool_call_id) message.tool_call_id = text(m.tool_call_id, 200);
    if (Array.isArray(m.tool_calls)) message.tool_calls = m.tool_calls.map((c) => ({ id: text(c?.id, 200), name: text(c?.name, 200), arguments: text(c?.arguments, 1e6) }));
    if (m.error) message.error = text(m.error, 500);
    if (m.finish) message.finish = text(m.finish, 40);
    if (m.stats && typeof m.stats === "object") message.stats = Object.fromEntries(Object.entries(m.stats).filter(([, x]) => Number.isFinite(x)));
    out.messages[message.id] = message;
  }
  for (const message of Object.values(out.messages)) {  // every chain of parents ends
    let steps = 0;
    for (let at = message; at; at = out.messages[at.parent]) if (++steps > entries.length) return null;
  }
  out.head = ids.get(value.head) || null;
  if (!out.head && entries.length) select_branch(out, null);
  out.title = text(value.title, 200);
  out.created = number(value.created);
  out.updated = number(value.updated);
  if (value.settings && typeof value.settings === "object") {
    out.settings = Object.fromEntries(Object.entries(value.settings).filter(([, x]) => ["string", "number"].includes(typeof x)).map(([k, x]) => [k, typeof x === "string" ? x.slice(0, 1e5) : x]));
  }
  return out;
}

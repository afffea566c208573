// A conversation is a tree: editing a question or asking again adds a sibling, nothing is overwritten. `head` is the last
// message of the branch on show. Plain data, so that it can be stored, exported and checked.

import { new_id } from "./dom.js";
import { checked_settings } from "./settings.js";

const kImageData = /^data:image\/(?:png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/]+=*$/;
const kMaxMessages = 5000;

export const new_conversation = (settings = {}) => ({ id: new_id(), title: "", created: Date.now(), updated: Date.now(), head: null, messages: {}, settings: { ...settings } });

export function add_message(conversation, parent, message) {
  const id = new_id();
  conversation.head = id;
  conversation.updated = Date.now();
  return (conversation.messages[id] = { id, parent, created: Date.now(), content: "", ...message });
}

// From the first message to the head.
export function path_to_head(conversation) {
  const path = [];
  for (let at = conversation.messages[conversation.head]; at; at = conversation.messages[at.parent]) path.unshift(at);
  return path;
}

const children = (conversation, parent) => Object.values(conversation.messages).filter((message) => message.parent === parent).sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
export const siblings = (conversation, message) => children(conversation, message.parent).filter((other) => other.role === message.role);

// Shows the branch through `id`: down to its newest end.
export function select_branch(conversation, id) {
  conversation.head = id;
  for (let next; (next = children(conversation, conversation.head).at(-1));) conversation.head = next.id;
}

// An answer that failed before its first token, and that nothing follows: the next try takes its place.
export const is_blank_leaf = (conversation, message) => Boolean(message.error) && is_blank(message) && !children(conversation, message.id).length;
const is_blank = ({ role, content, reasoning, tool_calls }) => role === "assistant" && !content && !reasoning && !tool_calls;

export const images_of = (conversation) => path_to_head(conversation).flatMap((message) => message.images || []);

// Another tab may have gone on with the same chat: what it added is kept, and of what both have the later state.
export function merge(conversation, stored) {
  for (const [id, theirs] of Object.entries(stored?.messages || {})) {
    const mine = (conversation.messages[id] ||= theirs);
    if ((theirs.changed || 0) > (mine.changed || 0)) Object.assign(mine, theirs);
  }
}

export function title_of(conversation) {
  if (conversation.title) return conversation.title;
  const first = path_to_head(conversation)[0], text = (first?.content || "").trim().replace(/\s+/g, " ");
  return text ? (text.length > 60 ? text.slice(0, 59) + "\u2026" : text) : first ? "Picture" : "New chat";
}

function wire_message({ role, content, images, reasoning, tool_calls, tool_call_id }) {
  if (role === "tool") return { role, tool_call_id, content };
  if (role === "user") {
    const parts = (images || []).map(({ url }) => ({ type: "image_url", image_url: { url } }));
    return { role, content: parts.length ? [...parts, ...(content ? [{ type: "text", text: content }] : [])] : content };
  }
  const calls = tool_calls?.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  return { role, content: content || null, ...(reasoning ? { reasoning_content: reasoning } : {}), ...(calls ? { tool_calls: calls } : {}) };
}

// What goes over the wire. An answer that failed before its first token is left out.
export function request_messages(conversation) {
  const system = conversation.settings.system?.trim();
  const messages = path_to_head(conversation).filter((m) => !is_blank(m)).map(wire_message);
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

// A message from a file, member by member; unknown members are dropped. null if it is none.
function checked_message(m, ids) {
  if (!m || !["user", "assistant", "tool"].includes(m.role) || !(m.parent === null || ids.has(m.parent))) return null;
  const text = (value, limit = 4e6) => (typeof value === "string" ? value.slice(0, limit) : ""), list = (value) => (Array.isArray(value) ? value : []);
  const message = { id: ids.get(m.id), parent: ids.get(m.parent) || null, role: m.role, created: Number(m.created) || 0, content: text(m.content) };
  const images = list(m.images).filter((image) => kImageData.test(text(image?.url, 1e9))).map((image) => ({ url: image.url, name: text(image.name, 200), pixels: Number(image.pixels) || 0 }));
  const calls = list(m.tool_calls).map((call) => ({ id: text(call?.id, 200), name: text(call?.name, 200), arguments: text(call?.arguments) }));
  if (images.length) message.images = images;
  if (calls.length) message.tool_calls = calls;
  for (const name of ["reasoning", "tool_call_id", "error", "finish"]) if (m[name]) message[name] = text(m[name]);
  message.stats = Object.fromEntries(Object.entries(m.stats || {}).filter(([, value]) => Number.isFinite(value)));
  return message;
}

// A conversation from a file, with ids of its own; null if it is none.
export function checked_conversation(value) {
  const entries = Object.values(value?.messages || {});
  if (typeof value?.messages !== "object" || entries.length > kMaxMessages) return null;
  const ids = new Map(entries.map((m) => [m?.id, new_id()])), out = new_conversation();
  for (const m of entries) {
    const message = checked_message(m, ids);
    if (!message) return null;
    out.messages[message.id] = message;
  }
  for (let at of Object.values(out.messages)) {  // every chain of parents ends
    for (let steps = 0; at; at = out.messages[at.parent]) if (++steps > entries.length) return null;
  }
  out.title = String(value.title || "").slice(0, 200);
  out.updated = Number(value.updated) || 0;
  out.settings = checked_settings(value.settings);
  if (ids.has(value.head)) out.head = ids.get(value.head);
  else select_branch(out, null);
  return value.messages ? out : null;
}

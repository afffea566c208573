// Conversations stay in this browser: IndexedDB, or memory where a browser forbids it. Preferences are in localStorage.

import { title_of, merge } from "./conversation.js";

const promised = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
const row_of = (conversation) => ({ id: conversation.id, title: title_of(conversation), updated: conversation.updated });

export class Store {
  memory = new Map();
  database = null;
  on_other_tab = null;  // called with {id, removed} after another tab stored or removed a chat (id null: all)

  async open() {
    try {
      const request = indexedDB.open("gpt-oss-vision", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("index", { keyPath: "id" });          // small: what the list shows
        request.result.createObjectStore("conversations", { keyPath: "id" });  // with pictures
      };
      this.database = await promised(request);
      this.tabs = new BroadcastChannel("gov");
      this.tabs.onmessage = ({ data }) => this.on_other_tab?.(data);
    } catch { /* memory it is; the page says so */ }
    return this;
  }

  read(name, method, ...keys) {
    return promised(this.database.transaction(name).objectStore(name)[method](...keys));
  }
  // Does the same to both stores at once.
  change(f) {
    return new Promise((resolve, reject) => {
      const change = this.database.transaction(["index", "conversations"], "readwrite");
      change.oncomplete = resolve;
      change.onabort = change.onerror = () => reject(change.error || new Error("the browser refused"));
      f(change.objectStore("index"), change.objectStore("conversations"));
    });
  }

  // Newest first: {id, title, updated}.
  async list() {
    const rows = this.database ? await this.read("index", "getAll") : [...this.memory.values()].map(row_of);
    return rows.sort((a, b) => b.updated - a.updated);
  }
  async get(id) {
    return this.database ? this.read("conversations", "get", id) : this.memory.get(id);
  }
  async all() {
    return this.database ? this.read("conversations", "getAll") : [...this.memory.values()];
  }
  // Takes over what another tab stored of it. in_haste: the page ends, and would not live to see what is there.
  async put(conversation, in_haste = false) {
    if (!this.database) return void this.memory.set(conversation.id, conversation);
    await this.change((index, conversations) => {
      const write = () => { index.put(row_of(conversation)); conversations.put(conversation); };
      if (in_haste) return write();
      const stored = conversations.get(conversation.id);
      stored.onsuccess = () => { merge(conversation, stored.result); write(); };
    });
    this.tabs.postMessage({ id: conversation.id });
  }
  // All of them if id is null.
  async remove(id) {
    if (this.database) {
      await this.change((...stores) => stores.forEach((store) => (id === null ? store.clear() : store.delete(id))));
      this.tabs.postMessage({ id, removed: true });
    } else if (id === null) this.memory.clear();
    else this.memory.delete(id);
  }
}

// A JSON value under a name; the fallback if there is none or it cannot be read.
export function load_preference(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`gov.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}
export function save_preference(name, value) {
  try {
    localStorage.setItem(`gov.${name}`, JSON.stringify(value));
  } catch { /* a browser that stores nothing: the preference lasts as long as the page */ }
}

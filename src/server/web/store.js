// Conversations stay in this browser: IndexedDB, or memory where a browser forbids it. Preferences are in localStorage.

import { title_of } from "./conversation.js";

const kDatabase = "gpt-oss-vision", kVersion = 1;

const promised = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Store {
  constructor() {
    this.memory = new Map();
    this.database = null;
    this.persistent = true;
  }

  async open() {
    try {
      const request = indexedDB.open(kDatabase, kVersion);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("index", { keyPath: "id" });          // small: what the list shows
        request.result.createObjectStore("conversations", { keyPath: "id" });  // with pictures
      };
      this.database = await promised(request);
      this.database.onversionchange = () => this.database.close();
    } catch {
      this.persistent = false;
    }
    return this;
  }

  // Newest first: {id, title, updated}.
  async list() {
    const rows = this.database ? await promised(this.database.transaction("index").objectStore("index").getAll())
      : [...this.memory.values()].map((c) => ({ id: c.id, title: title_of(c), updated: c.updated }));
    return rows.sort((a, b) => b.updated - a.updated);
  }
  async get(id) {
    if (!this.database) return this.memory.get(id);
    return promised(this.database.transaction("conversations").objectStore("conversations").get(id));
  }
  async all() {
    if (!this.database) return [...this.memory.values()];
    return promised(this.database.transaction("conversations").objectStore("conversations").getAll());
  }
  async put(conversation) {
    if (!this.database) {
      this.memory.set(conversation.id, conversation);
      return;
    }
    const change = this.database.transaction(["index", "conversations"], "readwrite");
    change.objectStore("index").put({ id: conversation.id, title: title_of(conversation), updated: conversation.updated });
    change.objectStore("conversations").put(conversation);
    await this.finished(change);
  }
  async remove(id) {
    if (!this.database) {
      this.memory.delete(id);
      return;
    }
    const change = this.database.transaction(["index", "conversations"], "readwrite");
    change.objectStore("index").delete(id);
    change.objectStore("conversations").delete(id);
    await this.finished(change);
  }
  async clear() {
    this.memory.clear();
    if (!this.database) return;
    const change = this.database.transaction(["index", "conversations"], "readwrite");
    change.objectStore("index").clear();
    change.objectStore("conversations").clear();
    await this.finished(change);
  }
  finished(transaction) {
    return new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = transaction.onerror = () => reject(transaction.error || new Error("the browser did not store the chat"));
    });
  }
}

// A JSON value under a name; the fallback if there is none or it cannot be read.
export function load_preference(name, fallback) {
  try {
    const text = localStorage.getItem(`gov.${name}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}
export function save_preference(name, value) {
  try {
    localStorage.setItem(`gov.${name}`, JSON.stringify(value));
  } catch { /* a browser that stores nothing: the preference lasts as long as the page */ }
}

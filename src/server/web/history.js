// The list of chats beside the page: open, rename, delete, export, import.

import { h, icon, icon_button } from "./dom.js";
import { title_of, checked_conversation } from "./conversation.js";
import { ask_text, confirm_dialog, toast } from "./dialogs.js";

const kImportBytes = 200 << 20;

function day_of(time) {
  const days = Math.floor((new Date().setHours(24, 0, 0, 0) - time) / 86400e3);
  return days < 1 ? "Today" : days < 2 ? "Yesterday" : days < 7 ? "This week" : days < 31 ? "This month" : "Older";
}

export class History {
  // on: {open(id), create(), removed(id), close()}
  constructor(root, store, on) {
    this.store = store;
    this.on = on;
    this.current = null;
    this.list = h("nav.chats", { "aria-label": "Earlier chats" });
    this.file = h("input", { type: "file", accept: "application/json,.json", hidden: true, "aria-label": "File to import", onchange: () => this.import_file() });
    root.append(
      h("button.new-chat", { type: "button", onclick: () => on.create() }, icon("plus"), "New chat"), this.list,
      h("div.history-foot", {}, icon_button("download", "Export all chats", () => this.export_all()), icon_button("upload", "Import chats", () => this.file.click()), this.file,
        icon_button("trash", "Delete all chats", () => this.clear()), h("span.hint", {}, store.persistent ? "Kept in this browser only" : "Lost with this tab: the browser stores nothing")));
  }

  async refresh(current = this.current) {
    this.current = current;
    const rows = await this.store.list();
    const key = JSON.stringify([rows, current]);
    if (key === this.key) return;
    this.key = key;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const groups = new Map();
    for (const row of rows) {
      const day = day_of(row.updated);
      if (!groups.has(day)) groups.set(day, []);
      groups.get(day).push(this.row(row));
    }
    this.list.replaceChildren(...[...groups].map(([day, items]) => h("section", {}, h("h2", {}, day), h("ul", {}, items))));
    if (!rows.length) this.list.append(h("p.hint", {}, "No chats yet."));
    if (focused) this.list.querySelector(`[data-id="${focused}"]`)?.focus();
  }

  row({ id, title }) {
    return h("li", { class: id === this.current ? "current" : null },
      h("button.chat-title", { type: "button", "data-id": id, "aria-current": id === this.current ? "true" : null, title, onclick: () => this.on.open(id) }, title),
      h("span.row-tools", {},
        icon_button("rename", `Rename ${title}`, () => this.rename(id, title)),
        icon_button("download", `Export ${title}`, async () => this.download([await this.store.get(id)], title)),
        icon_button("trash", `Delete ${title}`, () => this.remove(id, title))));
  }

  async rename(id, title) {
    const name = await ask_text("Rename chat", "Title", title);
    if (!name) return;
    await this.on.rename(id, name.slice(0, 200));
    this.refresh();
  }
  async remove(id, title) {
    if (!await confirm_dialog("Delete chat?", `\u201c${title}\u201d will be gone for good.`, "Delete")) return;
    await this.on.removed(id);
    this.refresh();
  }
  async clear() {
    if (!await confirm_dialog("Delete all chats?", "They exist in this browser only.", "Delete all")) return;
    await this.on.removed(null);
    this.refresh();
  }

  async export_all() {
    const all = await this.store.all();
    if (all.length) this.download(all, "chats");
    else toast("There is nothing to export");
  }
  download(conversations, name) {
    const text = JSON.stringify({ format: "gpt-oss-vision-chats", version: 1, conversations });
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const file = name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "chat";
    h("a", { href: url, download: `${file}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  async import_file() {
    const file = this.file.files[0];
    this.file.value = "";
    if (!file) return;
    try {
      if (file.size > kImportBytes) throw new Error("the file is too large");
      const value = JSON.parse(await file.text());
      const list = value?.format === "gpt-oss-vision-chats" && Array.isArray(value.conversations) ? value.conversations : [];
      const chats = list.map(checked_conversation);
      if (!chats.length || chats.includes(null)) throw new Error("the file holds no chats of this page");
      for (const chat of chats) await this.store.put(chat);
      this.refresh();
      toast(chats.length === 1 ? `Imported \u201c${title_of(chats[0])}\u201d` : `Imported ${chats.length} chats`);
    } catch (error) {
      toast(`Not imported: ${error instanceof SyntaxError ? "the file is not JSON" : error.message}`);
    }
  }
}

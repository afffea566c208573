// The list of chats beside the page: open, rename, delete, export, import.

import { h, icon, icon_button } from "./dom.js";
import { title_of, checked_conversation } from "./conversation.js";
import { ask_text, confirm_dialog, toast } from "./dialogs.js";

const kFormat = "gpt-oss-vision-chats", kImportBytes = 200 << 20;

function day_of(time) {
  const days = Math.floor((new Date().setHours(24, 0, 0, 0) - time) / 86400e3);
  return days < 1 ? "Today" : days < 2 ? "Yesterday" : days < 31 ? "This month" : "Older";
}

function download(conversations, name) {
  const url = URL.createObjectURL(new Blob([JSON.stringify({ format: kFormat, version: 1, conversations })], { type: "application/json" }));
  h("a", { href: url, download: `${name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40)}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export class History {
  // on: {open(id), create(), remove(id or null for all), rename(id, title)}
  constructor(root, store, on) {
    this.store = store;
    this.on = on;
    this.list = h("nav.chats", { "aria-label": "Earlier chats" });
    this.file = h("input", { type: "file", accept: ".json", hidden: true, "aria-label": "File to import", onchange: () => this.import_file() });
    root.append(h("button.new-chat", { type: "button", onclick: on.create }, icon("plus"), "New chat"), this.list,
      h("div.history-foot", {}, h("p.hint", {}, store.database ? "Kept in this browser only" : "Lost with this tab: the browser stores nothing"),
        icon_button("download", "Export all chats", async () => download(await store.all(), "chats")), icon_button("upload", "Import chats", () => this.file.click()), this.file,
        icon_button("trash", "Delete all chats", () => this.remove(null, "Delete all chats?", "They exist in this browser only."))));
  }

  async refresh(current = this.current) {
    this.current = current;
    const rows = await this.store.list(), key = JSON.stringify([rows, current]);
    if (key === this.key) return;
    this.key = key;
    const focused = this.list.contains(document.activeElement) && document.activeElement.dataset.id;
    const days = Map.groupBy(rows, (row) => day_of(row.updated));
    this.list.replaceChildren(...[...days].map(([day, group]) => h("section", {}, h("h2", {}, day), h("ul", {}, group.map((row) => this.row(row))))));
    if (!rows.length) this.list.append(h("p.hint", {}, "No chats yet."));
    if (focused) this.list.querySelector(`[data-id="${focused}"]`)?.focus();
  }
  row({ id, title }) {
    const current = id === this.current;
    return h(current ? "li.current" : "li", {},
      h("button.chat-title", { type: "button", "data-id": id, "aria-current": current && "true", title, onclick: () => this.on.open(id) }, title),
      h("span.row-tools", {},
        icon_button("edit", `Rename ${title}`, () => this.rename(id, title)),
        icon_button("download", `Export ${title}`, async () => download([await this.store.get(id)], title)),
        icon_button("trash", `Delete ${title}`, () => this.remove(id, "Delete chat?", `\u201c${title}\u201d will be gone for good.`))));
  }

  async rename(id, title) {
    const name = await ask_text("Rename chat", "Title", title);
    if (name) await this.on.rename(id, name.slice(0, 200));
    this.refresh();
  }
  async remove(id, question, text) {
    if (await confirm_dialog(question, text, "Delete")) await this.on.remove(id);
    this.refresh();
  }
  async import_file() {
    const [file] = this.file.files;
    if (!file) return;
    try {
      if (file.size > kImportBytes) throw new Error("the file is too large");
      const value = JSON.parse(await file.text());
      const chats = value?.format === kFormat && Array.isArray(value.conversations) ? value.conversations.map(checked_conversation) : [null];
      if (chats.includes(null)) throw new Error("the file holds no chats of this page");
      for (const chat of chats) await this.store.put(chat);
      this.refresh();
      toast(chats.length === 1 ? `Imported \u201c${title_of(chats[0])}\u201d` : `Imported ${chats.length} chats`);
    } catch (error) {
      toast(`Not imported: ${error instanceof SyntaxError ? "the file is not JSON" : error.message}`);
    }
    this.file.value = "";
  }
}

// Puts the page together: views, theme, settings, the list of chats.

import { h, icon } from "./dom.js";
import { Store, load_preference, save_preference } from "./store.js";
import { new_conversation, merge } from "./conversation.js";
import { get_json } from "./api.js";
import { ask_key, toast } from "./dialogs.js";
import { edit_settings } from "./settings.js";
import { Chat } from "./chat.js";
import { History } from "./history.js";
import { Live } from "./live.js";

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 800px)");
const kThemes = { auto: "light", light: "dark", dark: "auto" };  // each with the next

function show_theme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  set_button("theme", theme, `Theme: ${theme === "auto" ? "as the system" : theme}`);
}
function set_button(id, name, label) {
  $(id).replaceChildren(icon(name));
  $(id).title = label;
  $(id).setAttribute("aria-label", label);
}

// The list of chats is beside the page, or above it where there is little room.
const history_open = () => $("menu").getAttribute("aria-expanded") === "true";
function show_history(open) {
  $("menu").setAttribute("aria-expanded", String(open));
  $("history").hidden = !open;
  $("scrim").hidden = !(open && narrow.matches);
  if (!narrow.matches) save_preference("history", open);
}

let model = "";  // to ask; "" until the server has named one

const store = await new Store().open();
const chat = new Chat(store, { saved: () => history.refresh(remember()), model: () => $("model-choice")?.value || model });
const history = new History($("history"), store, { open: open_chat, create: create_chat, remove: remove_chat, rename: rename_chat });
const live = new Live($("live"));

function show_view() {
  const is_live = location.hash === "#live";
  $("chat").hidden = is_live;
  $("live").hidden = !is_live;
  for (const id of ["chat", "live"]) $(`view-${id}`).setAttribute("aria-current", String(is_live === (id === "live") && "page"));
  live.set_visible(is_live);
  chat.composer.changed();
}

// The chat that is open again after a reload.
function remember() {
  save_preference("chat", chat.conversation.id);
  return chat.conversation.id;
}
function show_chat(conversation) {
  if (location.hash === "#live") location.hash = "#chat";
  chat.show(conversation);
  history.refresh(remember());
  if (narrow.matches) show_history(false);
}
function create_chat() {
  show_chat(new_conversation(load_preference("settings", {})));
  chat.composer.text.focus();
}
async function open_chat(id) {
  const conversation = await store.get(id);
  if (conversation) show_chat(conversation);
  return conversation;
}
// It is being deleted, here or in another tab.
function forget_chat(id) {
  for (const generation of chat.running.values()) {
    if (id && id !== generation.conversation.id) continue;
    generation.conversation.deleted = true;
    generation.stop();
  }
  if (!id || id === chat.conversation.id) create_chat();
}
async function remove_chat(id) {
  forget_chat(id);
  await store.remove(id);
}
store.on_other_tab = async ({ id, removed }) => {
  if (removed) {
    forget_chat(id);
  } else {
    const stored = await store.get(id);
    if (stored && id === chat.conversation.id && !chat.generation && document.hidden && !document.querySelector(".editor")) chat.show(stored);
    for (const open of [chat.conversation, chat.running.get(id)?.conversation]) {
      if (!stored || open?.id !== id) continue;
      merge(open, stored);
      Object.assign(open, { title: stored.title, settings: stored.settings });
    }
  }
  history.refresh();
};
async function rename_chat(id, title) {
  const conversation = [chat.conversation, chat.running.get(id)?.conversation].find((c) => c?.id === id) || await store.get(id);
  conversation.title = title;
  await store.put(conversation);
}

async function open_settings() {
  const settings = await edit_settings(chat.conversation.settings);
  if (!settings) return;
  chat.conversation.settings = settings;
  save_preference("settings", settings);
  if (chat.conversation.head) chat.save(chat.conversation);
  toast("Settings saved");
}

// Which models there are, and how much they read at once; waits for a server that still loads.
async function connect() {
  try {
    const models = (await get_json("v1/models")).data.map(({ id }) => id);
    [model] = models;
    $("model").replaceChildren(models.length > 1 ? h("select", { "aria-label": "Model", id: "model-choice" }, models.map((value) => h("option", { value }, value))) : models[0]);
    chat.context_length = (await get_json("state")).kv.context;
    chat.show_state();
  } catch ({ status }) {
    $("model").textContent = status === 401 ? "needs a key" : status === 503 ? "loading the model\u2026" : "no connection";
    if (status !== 401) setTimeout(connect, 2000);
    else if (await ask_key()) connect();
  }
}

set_button("menu", "menu", "Chats");
set_button("settings", "settings", "Settings");
show_theme(load_preference("theme", "auto"));
show_history(!narrow.matches && load_preference("history", true));
$("menu").addEventListener("click", () => show_history(!history_open()));
$("scrim").addEventListener("click", () => show_history(false));
$("settings").addEventListener("click", open_settings);
$("theme").addEventListener("click", () => {
  const theme = kThemes[load_preference("theme", "auto")];
  save_preference("theme", theme);
  show_theme(theme);
});
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  location.hash = "#chat";
  chat.composer.text.focus();
});
narrow.addEventListener("change", () => show_history(!narrow.matches && load_preference("history", true)));
addEventListener("hashchange", show_view);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (narrow.matches && history_open()) {
    show_history(false);
    $("menu").focus();
  } else {
    chat.stop();
  }
});

const start_view = location.hash;
if (!await open_chat(load_preference("chat", ""))) create_chat();
location.hash = start_view || "#chat";
show_view();
connect();

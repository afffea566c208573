// Puts the page together: views, theme, settings, the list of chats.

import { h, icon } from "./dom.js";
import { Store, load_preference, save_preference } from "./store.js";
import { new_conversation } from "./conversation.js";
import { get_json, api_key } from "./api.js";
import { ask_key, toast } from "./dialogs.js";
import { edit_settings } from "./settings.js";
import { Chat } from "./chat.js";
import { History } from "./history.js";
import { Live } from "./live.js";

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 800px)");

let store, chat, history, live;
let models = [];

// ---- theme
const kThemes = ["auto", "light", "dark"];
const kThemeIcons = { auto: "auto", light: "sun", dark: "moon" };
function show_theme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  $("theme").replaceChildren(icon(kThemeIcons[theme]));
  const label = `Theme: ${theme === "auto" ? "as the system" : theme}`;
  $("theme").title = label;
  $("theme").setAttribute("aria-label", label);
  live?.redraw();
}
function next_theme() {
  const theme = kThemes[(kThemes.indexOf(load_preference("theme", "auto")) + 1) % kThemes.length];
  save_preference("theme", theme);
  show_theme(theme);
}

// ---- the list of chats: beside the page, or above it where there is little room
function show_history(open) {
  $("menu").setAttribute("aria-expanded", String(open));
  $("history").inert = !open;
  document.body.classList.toggle("history-open", open);
  $("scrim").hidden = !(open && narrow.matches);
  if (!narrow.matches) save_preference("history", open);
}
const history_open = () => $("menu").getAttribute("aria-expanded") === "true";

// ---- views
function show_view() {
  const is_live = location.hash === "#live";
  $("chat").hidden = is_live;
  $("live").hidden = !is_live;
  for (const [id, on] of [["view-chat", !is_live], ["view-live", is_live]]) {
    if (on) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  live.set_visible(is_live);
  if (!is_live) chat.composer.changed();
}
function show_chat() {
  if (location.hash === "#live") location.hash = "#chat";
}

// ---- chats
function create_chat() {
  show_chat();
  chat.show(new_conversation(load_preference("settings", {})));
  save_preference("chat", null);
  history.refresh(chat.conversation.id);
  if (narrow.matches) show_history(false);
  chat.composer.text.focus();
}
async function open_chat(id) {
  const conversation = await store.get(id);
  if (!conversation) return;
  show_chat();
  chat.show(conversation);
  save_preference("chat", id);
  history.refresh(id);
  if (narrow.matches) show_history(false);
}
async function remove_chat(id) {
  if (id) {
    chat.running.get(id)?.stop();
    await store.remove(id);
  } else {
    chat.running.forEach((generation) => generation.stop());
    await store.clear();
  }
  if (!id || id === chat.conversation.id) create_chat();
}
async function rename_chat(id, title) {
  const conversation = id === chat.conversation.id ? chat.conversation : chat.running.get(id)?.conversation || await store.get(id);
  if (!conversation) return;
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

// ---- the server
function show_model(text) {
  $("model").replaceChildren(models.length > 1 ? h("select", { "aria-label": "Model", id: "model-choice" }, models.map((id) => h("option", { value: id }, id))) : text);
}
const model_name = () => $("model-choice")?.value || models[0] || "default";

async function connect() {
  for (;;) {
    try {
      const { data } = await get_json("v1/models");
      models = data.map((model) => model.id);
      show_model(models[0] || "");
      chat.context_length = (await get_json("state")).kv.context;
      chat.show_context();
      return;
    } catch (error) {
      if (error.status === 401) {
        show_model("needs a key");
        const key = await ask_key();
        if (!key) return;
        api_key.set(key);
      } else {
        show_model(error.status === 503 ? "loading the model\u2026" : "no connection");
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
  }
}

async function start() {
  store = await new Store().open();
  chat = new Chat(store, { saved: () => { save_preference("chat", chat.conversation.id); history.refresh(chat.conversation.id); }, model: model_name });
  history = new History($("history"), store, { open: open_chat, create: create_chat, removed: remove_chat, rename: rename_chat });
  live = new Live($("live"));

  $("menu").append(icon("menu"));
  $("menu").setAttribute("aria-label", "Chats");
  $("menu").addEventListener("click", () => show_history(!history_open()));
  $("scrim").addEventListener("click", () => show_history(false));
  $("settings").append(icon("settings"));
  $("settings").setAttribute("aria-label", "Settings");
  $("settings").title = "Settings";
  $("settings").addEventListener("click", open_settings);
  $("theme").addEventListener("click", next_theme);
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    show_chat();
    chat.composer.text.focus();
  });
  narrow.addEventListener("change", () => show_history(!narrow.matches && load_preference("history", true)));
  addEventListener("hashchange", show_view);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (narrow.matches && history_open()) {
      show_history(false);
      $("menu").focus();
    } else {
      chat.stop();
    }
  });

  show_theme(load_preference("theme", "auto"));
  show_history(!narrow.matches && load_preference("history", true));
  const last = load_preference("chat", null);
  const stored = last && await store.get(last);
  if (stored) {
    chat.show(stored);
    history.refresh(last);
  } else {
    chat.show(new_conversation(load_preference("settings", {})));
    history.refresh(chat.conversation.id);
  }
  show_view();
  if (!narrow.matches && location.hash !== "#live") chat.composer.text.focus();
  connect();
}

start();

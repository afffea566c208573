// Small dialogs and notices. <dialog> keeps the focus inside and gives it back.

import { h } from "./dom.js";
import { api_key } from "./api.js";

let hide_timer = 0;
export function toast(text) {
  const element = document.getElementById("toast");
  element.hidden = false;
  element.textContent = text;
  clearTimeout(hide_timer);
  hide_timer = setTimeout(() => { element.hidden = true; }, 4000);
}

// Shows a dialog made of `children`; resolves with its return value ("" when it was dismissed).
export function show_dialog(title, children, attributes = {}) {
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", ...attributes }, h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), children));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    dialog.remove();
    resolve(dialog.returnValue);
  }));
}
// Cancel is no submit button: Enter would find it first.
export const buttons = (action, kind = "primary", cancel = (event) => event.target.closest("dialog").close("")) => h("div.dialog-buttons", {},
  cancel && h("button", { type: "button", onclick: cancel }, "Cancel"), h(`button.${kind}`, { value: "ok" }, action));

export const confirm_dialog = async (title, text, action) => await show_dialog(title, [h("p", {}, text), buttons(action, "danger")], { role: "alertdialog" }) === "ok";

// What was typed, or null.
export async function ask_text(title, label, value, action = "Save", attributes = {}) {
  const input = h("input", { autocomplete: "off", required: true, ...attributes });
  input.value = value;
  return await show_dialog(title, [h("label", {}, label, input), buttons(action)]) === "ok" ? input.value.trim() : null;
}

let asking = null;
// Asks for the server's key and keeps it; false if it was not given. Several requests that need it at once ask once.
export async function ask_key() {
  asking ||= ask_text("API key", "This server asks for a key. It is kept until this tab is closed.", "", "Use key", { type: "password" });
  const key = await asking;
  asking = null;
  if (key) api_key.set(key);
  return Boolean(key);
}

// Small dialogs and notices. <dialog> keeps the focus inside and gives it back.

import { h } from "./dom.js";

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
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", ...attributes }, h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), children));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function buttons(action, { danger = false } = {}) {
  return h("div.dialog-buttons", {},
    h("button", { type: "button", onclick: (event) => event.target.closest("dialog").close("") }, "Cancel"),  // Enter must not find it first
    h(danger ? "button.danger" : "button.primary", { value: "ok" }, action));
}

export async function confirm_dialog(title, text, action) {
  return (await show_dialog(title, [h("p", {}, text), buttons(action, { danger: true })], { role: "alertdialog" })) === "ok";
}

export async function ask_text(title, label, value, { type = "text", action = "Save", hint = "" } = {}) {
  const input = h("input", { type, id: "dialog-input", autocomplete: "off", autofocus: true, required: true });
  input.value = value;
  const answer = await show_dialog(title, [h("label", { for: "dialog-input" }, label), input, hint ? h("p.hint", {}, hint) : null, buttons(action)]);
  return answer === "ok" ? input.value.trim() : null;
}

let asking = null;
// The key for the server; several requests that need it at once ask once.
export function ask_key() {
  asking ||= ask_text("API key", "This server asks for a key", "", { type: "password", action: "Use key", hint: "Kept until this tab is closed." }).finally(() => { asking = null; });
  return asking;
}

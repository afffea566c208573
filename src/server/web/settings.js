// What a request asks for besides its messages: sampling, reasoning, tools. Empty fields leave the choice to the server.

import { h } from "./dom.js";
import { show_dialog, buttons } from "./dialogs.js";

const kNumbers = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: "any", hint: "0 always takes the likeliest token" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: "any", hint: "smallest set of tokens with this share" },
  { name: "top_k", label: "Top k", min: 0, max: 1000000, step: 1, hint: "0: no limit" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: "any", hint: "relative to the likeliest token" },
  { name: "seed", label: "Seed", min: 0, max: 9007199254740991, step: 1, hint: "same seed, same answer" },
  { name: "max_tokens", label: "Max tokens", min: 1, max: 10000000, step: 1, hint: "reasoning included" },
];
const kEfforts = [["", "Server's default"], ["none", "None"], ["low", "Low"], ["medium", "Medium"], ["high", "High"]];

// The fields of the request body. Throws an Error whose message names the setting that is wrong.
export function request_fields(settings) {
  const fields = {};
  for (const { name } of kNumbers) {
    if (typeof settings[name] === "number") fields[name === "max_tokens" ? "max_completion_tokens" : name] = settings[name];
  }
  if (settings.reasoning_effort) fields.reasoning_effort = settings.reasoning_effort;
  if (settings.tools) fields.tools = parse_tools(settings.tools);
  if (settings.schema) fields.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema: parse_json(settings.schema, "Answer schema", "object") } };
  return fields;
}

function parse_json(text, label, kind) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${label}: ${error.message}`);
  }
  const is = Array.isArray(value) ? "list" : typeof value;
  if (is !== kind || value === null) throw new Error(`${label}: a JSON ${kind} is expected`);
  return value;
}

// OpenAI's form, or bare functions.
function parse_tools(text) {
  return parse_json(text, "Tools", "list").map((tool) => {
    if (!tool || typeof tool !== "object") throw new Error("Tools: each must be an object");
    if (tool.type === "function" && tool.function) return tool;
    if (typeof tool.name !== "string") throw new Error("Tools: each needs a name");
    return { type: "function", function: tool };
  });
}

function number_field(field, settings) {
  const input = h("input", { type: "number", id: `set-${field.name}`, name: field.name, min: field.min, max: field.max, step: field.step, placeholder: "default", inputmode: "decimal", "aria-describedby": `hint-${field.name}` });
  if (typeof settings[field.name] === "number") input.value = settings[field.name];
  return h("div.field", {}, h("label", { for: input.id }, field.label), input, h("span.hint", { id: `hint-${field.name}` }, field.hint));
}

function text_field(name, label, value, attributes) {
  const input = h("textarea", { id: `set-${name}`, name, rows: 3, ...attributes });
  input.value = value || "";
  return h("div.field.wide", {}, h("label", { for: input.id }, label), input);
}

function json_field(name, label, value, placeholder, check) {
  const field = text_field(name, label, value, { class: "mono", spellcheck: "false", placeholder });
  const input = field.querySelector("textarea");
  const validate = () => {
    let problem = "";
    try {
      if (input.value.trim()) check(input.value);
    } catch (error) {
      problem = error.message;
    }
    input.setCustomValidity(problem);
  };
  input.addEventListener("input", validate);
  validate();
  return field;
}

// Resolves with the new settings, or null.
export async function edit_settings(settings) {
  const effort = h("select", { id: "set-effort", name: "reasoning_effort" }, kEfforts.map(([value, label]) => h("option", { value }, label)));
  effort.value = settings.reasoning_effort || "";
  const body = [
    h("div.fields", {},
      text_field("system", "System prompt", settings.system, { placeholder: "How the model should behave" }),
      h("div.field", {}, h("label", { for: effort.id }, "Reasoning effort"), effort, h("span.hint", {}, "for models that reason")),
      kNumbers.map((field) => number_field(field, settings))),
    h("details.advanced", { open: Boolean(settings.tools || settings.schema) }, h("summary", {}, "Tools and answer format"),
      h("div.fields", {},
        json_field("tools", "Tools (JSON)", settings.tools, '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]', parse_tools),
        json_field("schema", "Answer schema (JSON)", settings.schema, '{"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}',
          (text) => parse_json(text, "Answer schema", "object")))),
    h("p.hint", {}, "For this chat and the ones you start after it. Keys: Enter sends, Shift+Enter starts a line, Esc stops an answer, \u2191 in an empty box edits the last question."),
    h("div.dialog-buttons", {}, h("button", { type: "button", class: "left", onclick: (event) => reset(event.target.form) }, "Reset"), ...buttons("Save").childNodes),
  ];
  let form = null;
  const shown = show_dialog("Settings", body, { class: "settings-dialog" });
  form = document.querySelector("dialog.settings-dialog form");
  return (await shown) === "ok" ? read_settings(form) : null;
}

function reset(form) {
  for (const element of form.elements) {
    if (element.name) element.value = "";
    element.setCustomValidity?.("");
  }
}

function read_settings(form) {
  const settings = {};
  for (const { name } of kNumbers) {
    const { value } = form.elements[name];
    if (value !== "") settings[name] = Number(value);
  }
  for (const name of ["system", "reasoning_effort", "tools", "schema"]) {
    const value = form.elements[name].value.trim();
    if (value) settings[name] = value;
  }
  return settings;
}

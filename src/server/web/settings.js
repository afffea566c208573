// What a request asks for besides its messages: sampling, reasoning, tools. Empty fields leave the choice to the server.

import { h } from "./dom.js";
import { show_dialog, buttons } from "./dialogs.js";

// [name, label, hint, min, max, step]
const kNumbers = [
  ["temperature", "Temperature", "0 always takes the likeliest token", 0, 2, "any"],
  ["top_p", "Top p", "smallest set of tokens with this share", 0, 1, "any"],
  ["top_k", "Top k", "0: no limit", 0, 1000000, 1],
  ["min_p", "Min p", "relative to the likeliest token", 0, 1, "any"],
  ["seed", "Seed", "same seed, same answer", 0, Number.MAX_SAFE_INTEGER, 1],
  ["max_completion_tokens", "Max tokens", "reasoning included", 1, 10000000, 1],
];
const kEfforts = ["", "none", "low", "medium", "high"];
const kToolExample = '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]';
const kSchemaExample = '{"type": "object", "properties": {"answer": {"type": "string"}}}';

function parse_json(text, label, is_right) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${label}: ${error.message}`);
  }
  if (!is_right(value)) throw new Error(`${label}: not of the form shown`);
  return value;
}
// OpenAI's form, or bare functions.
const parse_tools = (text) => parse_json(text, "Tools", (value) => Array.isArray(value) && value.every((tool) => (tool?.function || tool)?.name))
  .map((tool) => (tool.function ? tool : { type: "function", function: tool }));
const parse_schema = (text) => parse_json(text, "Answer schema", (value) => value && typeof value === "object" && !Array.isArray(value));

// The settings there are, and of them what the dialog could have made; from a file or an older page.
export function checked_settings(value) {
  const out = {};
  for (const name of ["system", "tools", "schema"]) if (typeof value?.[name] === "string" && value[name].length < 1e5) out[name] = value[name];
  if (kEfforts.includes(value?.reasoning_effort || null)) out.reasoning_effort = value.reasoning_effort;
  for (const [name, , , min, max, step] of kNumbers) if (value?.[name] >= min && value[name] <= max && (step === 1 ? Number.isInteger : Number.isFinite)(value[name])) out[name] = value[name];
  return out;
}

// The fields of the request body. Throws an Error whose message names the setting that is wrong.
export function request_fields(settings) {
  const { system, tools, schema, ...fields } = checked_settings(settings);
  if (tools) fields.tools = parse_tools(tools);
  if (schema) fields.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema: parse_schema(schema) } };
  return fields;
}

function field(kind, label, input, hint) {
  input.id = `set-${input.name}`;
  return h(`div.field${kind}`, {}, h("label", { for: input.id }, label), input, hint && h("span.hint", {}, hint));
}
function number_field([name, label, hint, min, max, step]) {
  return field("", label, h("input", { type: "number", name, min, max, step, placeholder: "default" }), hint);
}
function json_field(name, label, placeholder, check) {
  return field(".wide", label, h("textarea.mono", { name, rows: 3, placeholder, spellcheck: "false", oninput: ({ target }) => {
    target.setCustomValidity("");
    try {
      if (target.value.trim()) check(target.value);
    } catch (error) {
      target.setCustomValidity(error.message);
    }
  } }));
}

// Resolves with the new settings, or null.
export async function edit_settings(settings) {
  const fields = [
    h("div.fields", {}, field(".wide", "System prompt", h("textarea", { name: "system", rows: 3, placeholder: "How the model should behave" })),
      field("", "Reasoning effort", h("select", { name: "reasoning_effort" }, kEfforts.map((value) => h("option", { value }, value || "default"))), "for models that reason"), kNumbers.map(number_field)),
    h("details.advanced", { open: Boolean(settings.tools || settings.schema) }, h("summary", {}, "Tools and answer format"),
      h("div.fields", {}, json_field("tools", "Tools (JSON)", kToolExample, parse_tools), json_field("schema", "Answer schema (JSON)", kSchemaExample, parse_schema))),
    h("p.hint", {}, "For this chat and those after it. Enter sends, Shift+Enter starts a line, Esc stops an answer, \u2191 edits the last question."),
  ];
  const reset = h("button.left", { type: "button", onclick: () => inputs().forEach((input) => { input.value = ""; input.setCustomValidity(""); }) }, "Reset");
  const row = buttons("Save");
  row.prepend(reset);
  const inputs = () => [...reset.form.querySelectorAll("[name]")];
  const closed = show_dialog("Settings", [fields, row], { class: "settings-dialog" });
  const all = inputs();
  for (const input of all) input.value = settings[input.name] ?? "";
  if (await closed !== "ok") return null;
  return Object.fromEntries(all.filter((input) => input.value.trim()).map((input) => [input.name, input.type === "number" ? Number(input.value) : input.value.trim()]));
}

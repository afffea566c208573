// What system and developer messages say.
#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "text/harmony.h"
#include "text/harmony_json.h"
#include "text/harmony_names.h"
#include "text/harmony_types.h"

namespace gov {
namespace {

bool is_date(std::string_view text) {
  if (text.size() != 10) return false;
  for (std::size_t i = 0; i < 10; ++i) {
    if (i == 4 || i == 7 ? text[i] != '-' : text[i] < '0' || text[i] > '9') return false;
  }
  return true;
}

void check_name(std::string_view name, std::string_view what) {
  if (!is_name(name)) fail(ErrorCode::kInvalidArgument, "harmony: {} \"{}\" is not a name", what, printable(name, 70));
}

// Lines as Rust's str::lines gives them: without their ends (also "\r\n"), and none behind the last end.
std::string prefixed_lines(std::string_view text, std::string_view prefix) {
  std::string out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (end != std::string_view::npos && !line.empty() && line.back() == '\r') line.remove_suffix(1);
    out += prefix;
    out += line;
    out += '\n';
  }
  return out;
}

void join_section(std::string& text, const std::string& section) {
  if (section.empty()) return;
  if (!text.empty()) text += "\n\n";
  text += section;
}

// "# Tools" and the namespaces, sorted by name.
std::string tools_section(std::vector<ToolNamespace> tools) {
  std::stable_sort(tools.begin(), tools.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::string out = "# Tools";
  for (const ToolNamespace& space : tools) out += "\n\n" + tool_namespace_text(space);
  return out;
}

std::string response_format_section(const ResponseFormat& format) {
  check_name(format.name, "response format");
  return "# Response Formats\n\n## " + format.name + "\n\n" + prefixed_lines(format.description, "// ") +
         json_text(format.schema, JsonStyle::kRust);
}

std::string jinja_namespace(const ToolNamespace& tools) {
  std::string out = "## " + tools.name + "\n\nnamespace " + tools.name + " {\n\n";
  for (const ToolFunction& function : tools.functions) {
    check_name(function.name, "function");
    out += "// " + function.description + "\ntype " + function.name + " = ";
    const Json* properties = function.parameters ? function.parameters->find("properties") : nullptr;
    if (!properties || !properties->is_object() || properties->object().empty()) {
      out += "() => any;\n\n";
      continue;
    }
    out += "(_: {\n";
    const auto required = required_names(*function.parameters);
    for (const auto& [name, schema] : properties->object()) {
      if (const std::string* text = text_member(schema, "description")) out += "// " + *text + "\n";
      out += jinja_parameter(name, schema, required.contains(name));
    }
    out += "}) => any;\n\n";
  }
  return out + "} // namespace " + tools.name;
}

std::string jinja_developer(const DeveloperContent& developer) {
  std::string out;
  if (!developer.instructions.empty()) out += "# Instructions\n\n" + developer.instructions + "\n\n";
  for (const ToolNamespace& tools : developer.tools) {  // the template knows no namespace but functions
    if (tools.name == "functions" && !tools.functions.empty()) {
      out += "# Tools\n\n" + tool_namespace_text(tools, HarmonyTemplate::kHfJinja);
    }
  }
  if (!developer.response_format) return out;
  if (!out.empty() && !out.ends_with("\n\n")) out += "\n\n";
  return out + response_format_section(*developer.response_format);
}

ToolFunction function(std::string name, std::string description, std::string_view parameters) {
  return {std::move(name), std::move(description), Json::parse(parameters)};
}

}  // namespace

std::string tool_namespace_text(const ToolNamespace& tools, HarmonyTemplate format) {
  check_name(tools.name, "tool namespace");
  if (format == HarmonyTemplate::kHfJinja) return jinja_namespace(tools);
  std::string out = "## " + tools.name + "\n";
  const bool is_block = !tools.functions.empty();
  std::string description = prefixed_lines(tools.description.value_or(""), is_block ? "// " : "");
  if (!is_block) {
    if (!description.empty()) description.pop_back();  // the section ends with its last line, as a block does
    return description.empty() ? out : out + "\n" + description;
  }
  out += "\n" + description;
  out += "namespace " + tools.name + " {\n\n";
  for (const ToolFunction& function : tools.functions) {
    check_name(function.name, "function");
    out += prefixed_lines(function.description, "// ");
    out += "type " + function.name + " = (";
    if (function.parameters) out += "_: " + harmony_type(*function.parameters, "");
    out += ") => any;\n\n";
  }
  return out + "} // namespace " + tools.name;
}

std::string system_text(const SystemContent& system, bool with_functions) {
  const std::string& effort = system.reasoning_effort;
  if (!effort.empty() && effort != "low" && effort != "medium" && effort != "high") {
    fail(ErrorCode::kInvalidArgument, "chat: reasoning effort \"{}\", expected low, medium or high",
         printable(effort, 40));
  }
  if (!system.current_date.empty() && !is_date(system.current_date)) {
    fail(ErrorCode::kInvalidArgument, "chat: current date \"{}\", expected YYYY-MM-DD",
         printable(system.current_date, 40));
  }
  std::string top = system.model_identity;
  const auto add_line = [&](std::string_view name, const std::string& value) {
    if (value.empty()) return;
    if (!top.empty()) top += '\n';
    top += name;
    top += value;
  };
  add_line("Knowledge cutoff: ", system.knowledge_cutoff);
  add_line("Current date: ", system.current_date);
  std::string text = top;
  if (!effort.empty()) join_section(text, "Reasoning: " + effort);
  if (!system.builtin_tools.empty()) join_section(text, tools_section(system.builtin_tools));
  join_section(text, "# Valid channels: analysis, commentary, final. Channel must be included for every message.");
  if (with_functions) text += "\nCalls to these tools must go to the commentary channel: 'functions'.";
  return text;
}

std::string developer_text(const DeveloperContent& developer, HarmonyTemplate format) {
  if (format == HarmonyTemplate::kHfJinja) return jinja_developer(developer);
  std::string text;
  if (!developer.instructions.empty()) text = "# Instructions\n\n" + developer.instructions;
  if (!developer.tools.empty()) join_section(text, tools_section(developer.tools));
  if (developer.response_format) join_section(text, response_format_section(*developer.response_format));
  return text;
}

ToolNamespace browser_tool() {
  return {"browser",
          "Tool for browsing.\n"
          "The `cursor` appears in brackets before each browsing display: `[{cursor}]`.\n"
          "Cite information from the tool using the following format:\n"
          "`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.\n"
          "Do not quote more than 10 words directly from the tool output.\n"
          "sources=web (default: web)",
          {function("search", "Searches for information related to `query` and displays `topn` results.",
                    R"({"type":"object","properties":{"query":{"type":"string"},"topn":{"type":"number","default":10},)"
                    R"("source":{"type":"string"}},"required":["query"]})"),
           function("open",
                    "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing "
                    "`num_lines` lines.\n"
                    "Valid link ids are displayed with the formatting: `【{id}†.*】`.\n"
                    "If `cursor` is not provided, the most recent page is implied.\n"
                    "If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n"
                    "If `loc` is not provided, the viewport will be positioned at the beginning of the document or "
                    "centered on the most relevant passage, if available.\n"
                    "Use this function without `id` to scroll to a new location of an opened page.",
                    R"({"type":"object","properties":{"id":{"type":["number","string"],"default":-1},)"
                    R"("cursor":{"type":"number","default":-1},"loc":{"type":"number","default":-1},)"
                    R"("num_lines":{"type":"number","default":-1},"view_source":{"type":"boolean","default":false},)"
                    R"("source":{"type":"string"}}})"),
           function("find", "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
                    R"({"type":"object","properties":{"pattern":{"type":"string"},)"
                    R"("cursor":{"type":"number","default":-1}},"required":["pattern"]})")}};
}

ToolNamespace python_tool() {
  return {
      "python",
      "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. This "
      "tool should be used for internal reasoning, but not for code that is intended to be visible to the user "
      "(e.g. when creating plots, tables, or files).\n\n"
      "When you send a message containing Python code to python, it will be executed in a stateful Jupyter notebook "
      "environment. python will respond with the output of the execution or time out after 120.0 seconds. The "
      "drive at '/mnt/data' can be used to save and persist user files. Internet access for this session is "
      "UNKNOWN. Depends on the cluster.",
      {}};
}

}  // namespace gov

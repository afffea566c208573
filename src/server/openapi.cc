#include "server/openapi.h"

#include <algorithm>

#include "server/params.h"

namespace gov::server {
namespace {

constexpr std::pair<unsigned, const char*> kTypes[] = {{kBool, "boolean"},  {kInt, "integer"}, {kNumber, "number"},
                                                       {kString, "string"}, {kArray, "array"}, {kObject, "object"}};

Json one_of_kinds(unsigned kinds) {
  Json::Array types;
  for (const auto& [bit, name] : kTypes) {
    if (kinds & bit) types.push_back(name);
  }
  types.push_back("null");
  return types;
}

Json number_json(double x) {
  return x == static_cast<double>(static_cast<std::int64_t>(x)) ? Json(static_cast<std::int64_t>(x)) : Json(x);
}

void set_bounds(const Param& param, Json& schema) {
  const bool number = (param.kinds & (kInt | kNumber)) != 0;
  const char* low = number                  ? "minimum"
                    : param.kinds & kString ? "minLength"
                    : param.kinds & kArray  ? "minItems"
                                            : "minProperties";
  const char* high = number                  ? "maximum"
                     : param.kinds & kString ? "maxLength"
                     : param.kinds & kArray  ? "maxItems"
                                             : "maxProperties";
  if (param.min == param.min) schema.set(low, number_json(param.min));
  if (param.max == param.max) schema.set(high, number_json(param.max));
}

Json schema_of(const Param& param) {
  Json schema;
  std::string what(param.what);
  if (param.use == Use::kRefused) what = "Not supported: " + what;
  schema.set("description", std::move(what));
  if (param.use == Use::kRefused) {
    schema.set("x-support", "refused");
    return schema;
  }
  schema.set("type", one_of_kinds(param.kinds));
  set_bounds(param, schema);
  if (!param.choices.empty()) {
    Json::Array words;
    std::string_view rest = param.choices;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('|'), rest.size());
      words.push_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    words.push_back(Json());
    schema.set("enum", std::move(words));
  }
  if (!param.fallback.empty()) schema.set("default", Json::parse(param.fallback));
  schema.set("x-support", param.use == Use::kHonoured ? "honoured" : "noted");
  return schema;
}

Json body_of(const ParamTable& table) {
  Json properties = Json(Json::Object{});
  Json::Array required;
  for (const Param& param : table.params) {
    properties.set(param.name, schema_of(param));
    if (param.required) required.push_back(param.name);
  }
  Json schema;
  schema.set("type", "object").set("properties", std::move(properties));
  if (!required.empty()) schema.set("required", std::move(required));
  Json json, content, body;
  json.set("schema", std::move(schema));
  content.set("application/json", std::move(json));
  body.set("required", true).set("content", std::move(content));
  return body;
}

std::string operation_id(const Route& route) {
  std::string id = route.method;
  std::transform(id.begin(), id.end(), id.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const char c : route.pattern)
    id += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
  return id;
}

Json operation_of(const Route& route) {
  Json operation, answers, answer;
  operation.set("operationId", operation_id(route));
  const std::vector<ParamTable>& tables = param_tables();
  const auto table = std::find_if(tables.begin(), tables.end(), [&](const ParamTable& t) {
    return t.method == route.method && t.path == route.pattern;
  });
  if (table != tables.end()) {
    operation.set("summary", table->what);
    operation.set("requestBody", body_of(*table));
  }
  if (const std::size_t brace = route.pattern.find('{'); brace != std::string::npos) {
    Json parameter, schema;
    schema.set("type", "string");
    parameter.set("name", route.pattern.substr(brace + 1, route.pattern.find('}') - brace - 1)).set("in", "path");
    parameter.set("required", true).set("schema", std::move(schema));
    operation.set("parameters", Json::Array{parameter});
  }
  answer.set("description", "The answer.");
  answers.set("200", answer);
  answer.set("description", "An error: {\"error\": {\"message\", \"type\", \"param\", \"code\"}}.");
  answers.set("default", std::move(answer));
  operation.set("responses", std::move(answers));
  return operation;
}

std::string range_text(const Param& param) {
  if (!param.choices.empty()) {
    std::string out(param.choices);
    for (std::size_t at = out.find('|'); at != std::string::npos; at = out.find('|', at + 2)) out.replace(at, 1, ", ");
    return out;
  }
  const auto text = [](double x) { return number_json(x).dump(); };
  if (param.min == param.min && param.max == param.max) return text(param.min) + " to " + text(param.max);
  if (param.min == param.min) return "at least " + text(param.min);
  return param.max == param.max ? "at most " + text(param.max) : "";
}

std::string short_kinds(unsigned kinds) {
  std::string out;
  for (const auto& [bit, name] : kTypes) {
    if (kinds & bit) out += (out.empty() ? "" : " or ") + std::string(name);
  }
  return out;
}

}  // namespace

std::string openapi_document(const std::vector<Route>& routes) {
  Json info, paths = Json(Json::Object{}), document;
  info.set("title", "gpt-oss-vision").set("version", GOV_VERSION);
  info.set("description", "OpenAI's protocol, and Anthropic's messages, over one GPT-OSS-Vision model.");
  for (const Route& route : routes) {
    if (route.admin) continue;
    const Json* found = paths.find(route.pattern);
    Json path = found ? *found : Json(Json::Object{});
    std::string method = route.method;
    std::transform(method.begin(), method.end(), method.begin(), [](char c) { return static_cast<char>(c + 32); });
    path.set(method, operation_of(route));
    paths.set(route.pattern, std::move(path));
  }
  document.set("openapi", "3.1.0").set("info", std::move(info)).set("paths", std::move(paths));
  Json scheme, schemes, components;
  scheme.set("type", "http").set("scheme", "bearer");
  schemes.set("key", std::move(scheme));
  components.set("securitySchemes", std::move(schemes));
  document.set("components", std::move(components));
  return document.dump();
}

std::string parameter_markdown() {
  std::string out;
  for (const ParamTable& table : param_tables()) {
    if (table.id == "apply_template") continue;  // those of chat completions
    out += "\n### " + std::string(table.method) + " " + std::string(table.path) + "\n\n" + std::string(table.what) +
           "\n\n";
    out += "| parameter | type | range | default | meaning |\n|---|---|---|---|---|\n";
    std::string refused;
    for (const Param& param : table.params) {
      if (param.use == Use::kRefused) {
        refused +=
            (refused.empty() ? "" : ", ") + ("`" + std::string(param.name) + "` (" + std::string(param.what) + ")");
        continue;
      }
      out += "| `" + std::string(param.name) + "`" + (param.required ? ", required" : "") + " | " +
             short_kinds(param.kinds) + " | ";
      out += range_text(param) + " | " + std::string(param.fallback) + " | " + std::string(param.what);
      out += std::string(param.use == Use::kNoted ? " (taken, without effect)" : "") + " |\n";
    }
    if (!refused.empty()) out += "\nRefused by name: " + refused + ".\n";
  }
  return out;
}

}  // namespace gov::server

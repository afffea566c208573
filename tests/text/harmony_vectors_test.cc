// Ids of openai-harmony 0.0.8 and of the released Jinja template, see make_harmony_vectors.py.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/json.h"
#include "tests/text/text_test_data.h"
#include "text/harmony.h"

namespace gov {
namespace {

using namespace text_test;

// The first line: what the other lines point into.
struct Pool {
  std::vector<std::string> texts;
  std::vector<ToolFunction> functions;
  std::vector<HarmonyMessage> messages;
};

HarmonyRole role_of(const std::string& name) {
  for (const auto role : {HarmonyRole::kSystem, HarmonyRole::kDeveloper, HarmonyRole::kUser, HarmonyRole::kAssistant,
                          HarmonyRole::kTool}) {
    if (name == harmony_role_name(role)) return role;
  }
  ADD_FAILURE() << name;
  return HarmonyRole::kUser;
}

HarmonyMessage text_message(HarmonyRole role, std::string text) {
  return {.role = role, .content = {{ContentPart::Kind::kText, std::move(text)}}};
}

Pool read_pool(const Json& line) {
  Pool pool;
  for (const Json& text : line.find("texts")->array()) pool.texts.push_back(text.string());
  for (const Json& entry : line.find("functions")->array()) {
    ToolFunction function{entry.find("name")->string(), entry.find("description")->string()};
    if (const Json* parameters = entry.find("parameters")) function.parameters = *parameters;
    pool.functions.push_back(std::move(function));
  }
  for (const Json& entry : line.find("messages")->array()) {
    const Json::Array& fields = entry.array();
    HarmonyMessage message{.role = role_of(fields[0].string()),
                           .name = fields[1].string(),
                           .recipient = fields[2].string(),
                           .channel = fields[3].string(),
                           .content_type = fields[4].string()};
    for (const Json& text : fields[5].array()) {
      message.content.push_back({ContentPart::Kind::kText, pool.texts[static_cast<std::size_t>(text.integer())]});
    }
    pool.messages.push_back(std::move(message));
  }
  return pool;
}

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

DeveloperContent developer_of(const Json::Array& row, const Pool& pool) {
  DeveloperContent developer;
  if (row[1].integer() >= 0) developer.instructions = pool.texts[static_cast<std::size_t>(row[1].integer())];
  for (const Json& entry : row[2].array()) {
    ToolNamespace tools{entry.array()[0].string()};
    if (entry.array()[1].is_string()) tools.description = entry.array()[1].string();
    for (const Json& function : entry.array()[2].array()) {
      tools.functions.push_back(pool.functions[static_cast<std::size_t>(function.integer())]);
    }
    developer.tools.push_back(std::move(tools));
  }
  return developer;
}

// [template mode effort date builtin tools..., instructions, namespaces, messages, count of ids, hash, ids?]
void check_row(const Json::Array& row, const Pool& pool) {
  const std::vector<std::string> head = words(row[0].string());
  HarmonyRenderOptions options{.order = HarmonyRenderOptions::Order::kRecipientFirst};
  if (head[0] == "jinja") options.format = HarmonyTemplate::kHfJinja;
  options.preserve_thinking = head[1] == "preserve";
  options.training = head[1] == "training";
  options.add_generation_prompt = head[1] == "completion" || head[1] == "preserve";

  SystemContent system{.current_date = head[3] == "-" ? "" : head[3], .reasoning_effort = head[2]};
  for (std::size_t i = 4; i < head.size(); ++i) {
    system.builtin_tools.push_back(head[i] == "browser" ? browser_tool() : python_tool());
  }
  const DeveloperContent developer = developer_of(row, pool);
  std::vector<HarmonyMessage> messages{
      text_message(HarmonyRole::kSystem, system_text(system, developer.has_functions()))};
  const std::string text = developer_text(developer, options.format);
  if (!text.empty()) messages.push_back(text_message(HarmonyRole::kDeveloper, text));
  for (const Json& index : row[3].array()) messages.push_back(pool.messages[static_cast<std::size_t>(index.integer())]);

  const auto ids = render_harmony(o200k(), *HarmonyTokens::find(o200k()), messages, options);
  EXPECT_EQ(digest(ids), fmt::format("{} {}", row[4].integer(), row[5].string())) << Json(row).dump() << "\n"
                                                                                  << o200k().decode(ids);
  if (row.size() <= 6) return;
  std::vector<std::int32_t> full;
  for (const Json& id : row[6].array()) full.push_back(static_cast<std::int32_t>(id.integer()));
  EXPECT_EQ(ids, full);
}

TEST(HarmonyVectors, AsTheReferencesRender) {
  std::ifstream file(data_path("harmony_vectors.jsonl"), std::ios::binary);
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  const Pool pool = read_pool(Json::parse(line));
  int rows = 0;
  for (; std::getline(file, line); ++rows) check_row(Json::parse(line).array(), pool);
  EXPECT_EQ(rows, 320);
}

}  // namespace
}  // namespace gov

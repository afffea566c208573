// Ids of openai-harmony 0.0.8 and of the released Jinja template, see make_harmony_vectors.py.
#include <gtest/gtest.h>

#include <fstream>

#include "base/json.h"
#include "tests/text/harmony_test_data.h"
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

// The word that begins with the letter.
std::string long_form(std::string_view letter, std::initializer_list<const char*> words) {
  for (const char* word : words) {
    if (!letter.empty() && word[0] == letter[0]) return word;
  }
  EXPECT_EQ(letter, "");
  return {};
}

HarmonyRole role_of(std::string_view letter) {
  for (const auto role : {HarmonyRole::kSystem, HarmonyRole::kDeveloper, HarmonyRole::kUser, HarmonyRole::kAssistant,
                          HarmonyRole::kTool}) {
    if (letter[0] == harmony_role_name(role)[0]) return role;
  }
  ADD_FAILURE() << letter;
  return HarmonyRole::kUser;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at) parts.emplace_back();
    else parts.back() += c;
  }
  return parts;
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
    const std::vector<std::string> fields = split(entry.string(), '/');  // role/name/recipient/channel/type/texts
    HarmonyMessage message{.role = role_of(fields[0]),
                           .name = fields[1],
                           .recipient = fields[2],
                           .channel = long_form(fields[3], {"analysis", "commentary", "final"}),
                           .content_type = fields[4]};
    for (const std::string& index : split(fields[5], ' ')) {
      if (!index.empty()) message.content.push_back({ContentPart::Kind::kText, pool.texts[std::stoul(index)]});
    }
    pool.messages.push_back(std::move(message));
  }
  return pool;
}

DeveloperContent developer_of(const Json::Array& row, const Pool& pool) {
  DeveloperContent developer;
  if (row[2].integer() >= 0) developer.instructions = pool.texts[static_cast<std::size_t>(row[2].integer())];
  for (const Json& entry : row[3].array()) {
    const Json::Array* functions = &entry.array();  // of "functions", or [name, description, functions]
    ToolNamespace tools{"functions"};
    if (functions->front().is_string()) {
      tools.name = entry.array()[0].string();
      if (entry.array()[1].is_string()) tools.description = entry.array()[1].string();
      functions = &entry.array()[2].array();
    }
    for (const Json& function : *functions) {
      tools.functions.push_back(pool.functions[static_cast<std::size_t>(function.integer())]);
    }
    developer.tools.push_back(std::move(tools));
  }
  return developer;
}

// [letters of template, mode, effort and built-in tools; date, instructions, namespaces, messages, count of ids, hash,
// ids?]
void check_row(const Json::Array& row, const Pool& pool) {
  const std::string& letters = row[0].string();
  HarmonyRenderOptions options{.order = HarmonyRenderOptions::Order::kRecipientFirst};
  if (letters[0] == 'j') options.format = HarmonyTemplate::kHfJinja;
  // completion, history, preserve, training
  options.preserve_thinking = letters[1] == 'p';
  options.training = letters[1] == 't';
  options.add_generation_prompt = letters[1] == 'c' || letters[1] == 'p';

  SystemContent system{.current_date = row[1].string(),
                       .reasoning_effort = long_form(letters.substr(2, 1), {"low", "medium", "high"})};
  for (const char tool : letters.substr(3))
    system.builtin_tools.push_back(tool == 'b' ? browser_tool() : python_tool());
  const DeveloperContent developer = developer_of(row, pool);
  const bool has_functions =
      std::any_of(developer.tools.begin(), developer.tools.end(),
                  [](const ToolNamespace& space) { return space.name == "functions" && !space.functions.empty(); });
  std::vector<HarmonyMessage> messages{text_message(HarmonyRole::kSystem, system_text(system, has_functions))};
  const std::string text = developer_text(developer, options.format);
  if (!text.empty()) messages.push_back(text_message(HarmonyRole::kDeveloper, text));
  for (const Json& index : row[4].array()) messages.push_back(pool.messages[static_cast<std::size_t>(index.integer())]);

  const auto ids = render_harmony(o200k(), *HarmonyTokens::find(o200k()), messages, options);
  EXPECT_EQ(digest(ids), fmt::format("{} {}", row[5].integer(), row[6].string())) << Json(row).dump() << "\n"
                                                                                  << o200k().decode(ids);
  if (row.size() <= 7) return;
  std::vector<std::int32_t> full;
  for (const Json& id : row[7].array()) full.push_back(static_cast<std::int32_t>(id.integer()));
  EXPECT_EQ(ids, full);
}

// ["parse", ids, ["role/name/recipient/channel/type/content", ...]]
void check_parse(const Json::Array& row) {
  std::vector<std::int32_t> ids;
  for (const Json& id : row[1].array()) ids.push_back(static_cast<std::int32_t>(id.integer()));
  const harmony_test::Parse parse =
      harmony_test::parse(o200k(), ids, {.tools = {"functions.f", "browser.open", "python"}});
  EXPECT_TRUE(parse.is_well_formed);
  EXPECT_EQ(parse.repairs, HarmonyRepairs{}) << Json(row).dump();
  std::vector<std::string> got, want;
  for (const HarmonyMessage& m : parse.messages) {
    got.push_back(fmt::format("{:.1}/{}/{}/{}/{}/{}", harmony_role_name(m.role), m.name, m.recipient, m.channel,
                              m.content_type, m.text()));
  }
  for (const Json& message : row[2].array()) want.push_back(message.string());
  EXPECT_EQ(got, want);
}

TEST(HarmonyVectors, AsTheReferences) {
  std::ifstream file(data_path("harmony_vectors.jsonl"), std::ios::binary);
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  const Pool pool = read_pool(Json::parse(line));
  int rows = 0;
  for (; std::getline(file, line); ++rows) {
    const Json row = Json::parse(line);
    if (row.array()[0] == Json("parse")) check_parse(row.array());
    else check_row(row.array(), pool);
  }
  EXPECT_EQ(rows, 370);
}

}  // namespace
}  // namespace gov

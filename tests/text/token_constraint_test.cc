// Token constraints under grammars: masks against brute force, random walks that always end in valid documents.

#include <gtest/gtest.h>

#include "tests/text/grammar_test_support.h"
#include "tests/text/text_test_data.h"
#include "text/grammar/run.h"
#include "text/token_masks.h"

namespace gov {
namespace {

using namespace text_test;

TokenConstraint plain(const Tokenizer& tokenizer, std::shared_ptr<const Grammar> grammar) {
  OutputRules rules;
  rules.in_header = false;
  rules.final_format = std::move(grammar);
  const std::int32_t end = *tokenizer.find_special("<|return|>");
  return TokenConstraint(tokenizer, HarmonyTokens::find(tokenizer), std::span(&end, 1), std::move(rules));
}

// Every token, tried on a copy.
void expect_brute_force(const TokenConstraint& constraint, const Tokenizer& tokenizer, const std::string& where) {
  std::vector<std::int32_t> tried;
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.has_token(id)) continue;
    TokenConstraint copy = constraint;
    const bool end = id == *tokenizer.find_special("<|return|>");
    copy.accept(id);
    // A forbidden token ends the constraint too; the token that ends it rightly is looked at by the grammar's own
    // state.
    if (!copy.ended()) tried.push_back(id);
    else if (end) tried.push_back(id);
  }
  std::vector<std::int32_t> masked = allowed_tokens(constraint, tokenizer.vocab_size());
  const std::int32_t end = *tokenizer.find_special("<|return|>");
  if (std::find(masked.begin(), masked.end(), end) == masked.end()) std::erase(tried, end);
  ASSERT_EQ(masked, tried) << where;
}

TEST(TokenConstraint, MasksAreWhatBruteForceFinds) {
  Random random(11);
  std::size_t states = 0;
  for (const SchemaCase& c : schema_cases()) {
    SCOPED_TRACE(c.text.substr(0, 300));
    const auto grammar = Grammar::json_schema(c.schema);
    std::size_t step = 0;
    random_walk(nano(), grammar, plain(nano(), grammar), 12, random, [&](const TokenConstraint& at) {
      if (++step > 14) return;
      expect_brute_force(at, nano(), c.text.substr(0, 200));
      ++states;
    });
    if (::testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GE(states, 1000u);
}

// The masks of one compiled grammar are made once, whoever asks; the oldest go when they hold too much.
TEST(TokenTables, MasksOfAGrammarAreShared) {
  const auto tables = TokenTables::of(nano());
  const auto grammar = Grammar::json_object();
  EXPECT_EQ(tables->masks_of(grammar), tables->masks_of(grammar));
  EXPECT_NE(tables->masks_of(grammar), tables->masks_of(Grammar::json_object()));
  std::weak_ptr<const Grammar> first, last;
  for (int i = 0; i < 4; ++i) {
    auto impl = std::make_shared<Grammar::Impl>(grammar->impl());
    impl->bytes = 100 << 20;
    const auto large = std::make_shared<const Grammar>(std::move(impl));
    (void)tables->masks_of(large);
    (i == 0 ? first : last) = large;
  }
  EXPECT_TRUE(first.expired());
  EXPECT_FALSE(last.expired());
}

TEST(TokenConstraint, RandomWalksAreValidDocuments) {
  Random random(12);
  std::ofstream dump;
  if (const char* path = std::getenv("GOV_DUMP_WALKS")) dump.open(path);
  constexpr int kWalks = 10'000;
  for (int i = 0; i < kWalks; ++i) {
    const SchemaCase& c = schema_cases()[static_cast<std::size_t>(i) % schema_cases().size()];
    static std::vector<std::shared_ptr<const Grammar>> grammars(schema_cases().size());
    auto& grammar = grammars[static_cast<std::size_t>(i) % schema_cases().size()];
    if (grammar == nullptr) grammar = Grammar::json_schema(c.schema);
    const std::string text = random_walk(nano(), grammar, plain(nano(), grammar), 2 + random.below(40), random);
    SCOPED_TRACE(c.text.substr(0, 300) + "\n" + text);
    Json document;
    ASSERT_NO_THROW(document = Json::parse(text));
    ASSERT_EQ(schema_error(c.schema, document), std::nullopt);
    if (dump.is_open()) dump << Json(Json::Object{{"schema", c.schema}, {"text", text}}).dump() << '\n';
  }
}

}  // namespace
}  // namespace gov

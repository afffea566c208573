#pragma once
// Small random models, and the plainest possible generation over forward() to compare the engine with.

#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/sequence.h"

namespace gov::test {

// 260 ids (256 bytes, 3 without token, the image token 259); 3 layers (sliding, full, sliding), window 8. With vision:
// an image of 28 x 28 takes 6 rows.
Config small_config(bool vision = false);
inline constexpr std::int32_t kImageToken = 259;

// One id for each byte.
Tokenizer byte_tokenizer();

// `count` ids below 256 from a seed.
std::vector<std::int32_t> random_prompt(std::int64_t count, std::uint64_t seed);
std::vector<float> random_image(const Config& config, std::uint64_t seed);

// What a row of the model's input is: a token, or an image's row.
struct InputRow {
  std::int32_t token = 0;
  std::vector<float> embed;  // [hidden_size], empty for a token
};
std::vector<InputRow> text_rows(const std::vector<std::int32_t>& tokens);
std::vector<InputRow> encode_image(const Model& model, ThreadPool& pool, std::vector<float> pixels);

// Tokens and log-probabilities drawn one by one, each from its own call of forward() for one row, without an engine:
// one sequence, every layer keeps everything, nothing is freed. Ends after options.max_new_tokens.
Completion plain_generate(const Model& model, ThreadPool& pool, std::vector<InputRow> rows,
                          const GenerationOptions& options, const std::vector<std::int32_t>& forbidden, int choice = 0,
                          std::optional<TokenConstraint> constraint = {});

// Ids that an engine with byte_tokenizer() never draws.
std::vector<std::int32_t> undrawable();

// Bit for bit: tokens, log-probabilities, the likeliest tokens.
void expect_same(const Completion& a, const Completion& b, const std::string& what);

Request make_request(std::vector<std::int32_t> prompt, const GenerationOptions& options);
GenerationOptions greedy(std::int64_t max_new_tokens);
GenerationOptions sampled(std::int64_t max_new_tokens, std::uint64_t seed);

}  // namespace gov::test

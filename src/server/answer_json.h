#pragma once
// Pieces of JSON that several answers have.

#include <span>

#include "base/json_writer.h"
#include "server/generation.h"

namespace gov::server {

// {"token","bytes","logprob","top_logprobs"} of each, as chat completions and responses have them. The text of a token
// that is not whole UTF-8 has U+FFFD; `bytes` are exact.
void write_scores(JsonWriter& w, const Tokenizer& tokenizer, std::span<const TokenScore> scores);
// OpenAI's usage of chat completions and completions.
void write_usage(JsonWriter& w, const Usage& usage);
const char* chat_finish_reason(FinishReason reason, const OutputReader& reader);

}  // namespace gov::server

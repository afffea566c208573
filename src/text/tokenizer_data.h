#pragma once
// What a Tokenizer holds, and the readers of the three file forms. Private to src/text.

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenize.h"
#include "text/vocabulary.h"

namespace gov {

// See Tokenizer::derived.
struct DerivedTables {
  std::mutex mutex;
  std::shared_ptr<const void> value;
};

struct TokenizerData {
  Vocabulary vocabulary;
  Bpe bpe;
  AddedTokens added;
  SplitPattern pattern = SplitPattern::kO200k;
  bool whole_piece_first = false;  // a piece that is a token is emitted at once, whatever the merges say
  bool add_prefix_space = false;  // ByteLevel's option: a stretch of ordinary text gets a space in front if it has none
  std::shared_ptr<DerivedTables> derived = std::make_shared<DerivedTables>();
  bool has_all_bytes = false;  // every byte has a token; otherwise unknown bytes give no token

  // Fills bpe.byte_ids and has_all_bytes from the vocabulary.
  void find_byte_tokens();
};

TokenizerData read_tokenizer_json(std::string_view json);
TokenizerData read_vocab_and_merges(std::string_view vocab_json, std::string_view merges);
TokenizerData read_tiktoken(std::string_view ranks, SplitPattern pattern);

}  // namespace gov

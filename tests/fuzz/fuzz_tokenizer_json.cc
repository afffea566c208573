// Any bytes as a tokenizer.json, as vocab.json and as a rank file: a gov::Error, or a tokenizer whose encodings are in
// order, inside the text, and can be decoded, whole and as a stream.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "text/tokenizer.h"

namespace {

void use(const gov::Tokenizer& tokenizer) {
  const std::string text =
      "ab aab's AB\n\n 12345 <|end|>\xC3\xA9\xE3\x81\x82\xFF" + std::string(300, 'a') + std::string(40, ' ') + "abab";
  for (const auto mode : {gov::SpecialTokens::kOrdinary, gov::SpecialTokens::kAllow}) {
    std::size_t at = 0;
    std::string streamed;
    std::vector<std::int32_t> ids;
    gov::StreamDecoder decoder(tokenizer, false);
    for (const gov::TokenSpan& span : tokenizer.encode_with_offsets(text, mode)) {
      if (span.begin < at || span.end < span.begin || span.end > text.size()) std::abort();
      at = span.end;
      ids.push_back(span.id);
      streamed += decoder.append(span.id);
    }
    streamed += decoder.flush();
    if (ids != tokenizer.encode(text, mode) || streamed != tokenizer.decode_utf8(ids)) std::abort();
  }
}

template <class Read>
void try_read(Read read) {
  try {
    use(read());
  } catch (const gov::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try_read([&] { return gov::Tokenizer::from_json(bytes); });
  const std::size_t cut = std::min(bytes.find('\n'), size);
  try_read([&] { return gov::Tokenizer::from_vocab_and_merges(bytes.substr(0, cut), bytes.substr(cut)); });
  // A rank file needs all bytes, so these come first and the input follows.
  static const std::string byte_ranks = [] {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string ranks;
    for (unsigned b = 0; b < 256; ++b) ranks += fmt::format("{}{}== {}\n", kDigits[b >> 2], kDigits[(b & 3) << 4], b);
    return ranks;
  }();
  try_read([&] { return gov::Tokenizer::from_tiktoken(byte_ranks + std::string(bytes)); });
  return 0;
}

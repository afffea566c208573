// Any bytes as a token stream and as a text: the stream's parts are valid UTF-8 and joined equal the whole decoding;
// the encoding covers the text and decodes to it, byte for byte.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/utf8.h"
#include "text/tokenizer.h"

namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

// Every byte, and some longer tokens that end or start inside a character.
gov::Tokenizer make_tokenizer() {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (unsigned b = 0; b < 256; ++b) ranks += fmt::format("{}{}== {}\n", kDigits[b >> 2], kDigits[(b & 3) << 4], b);
  ranks += "44E= 256\n8J+R 257\nICA= 258\nYWE= 259\n8J8= 260\nYWFhYQ== 261\nw6k= 262\n";
  return gov::Tokenizer::from_tiktoken(ranks);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const gov::Tokenizer tokenizer = make_tokenizer();
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);

  for (const bool merged : {false, true}) {
    std::vector<std::int32_t> ids;
    if (merged) ids = tokenizer.encode(bytes);
    else ids.assign(data, data + size);  // the ids of single bytes are their values
    check(tokenizer.decode(ids) == bytes);
    gov::StreamDecoder decoder(tokenizer, true);
    std::string joined;
    for (const std::int32_t id : ids) {
      const std::string part = decoder.append(id);
      check(gov::utf8_valid(part));
      joined += part;
    }
    joined += decoder.flush();
    check(!decoder.has_pending());
    check(joined == tokenizer.decode_utf8(ids));
    if (gov::utf8_valid(bytes)) check(joined == bytes);
  }

  std::size_t at = 0;
  for (const gov::TokenSpan& span : tokenizer.encode_with_offsets(bytes)) {
    check(span.begin == at && span.end > at);
    check(bytes.substr(at, span.end - at) == tokenizer.token_bytes(span.id));
    at = span.end;
  }
  check(at == size);
  return 0;
}

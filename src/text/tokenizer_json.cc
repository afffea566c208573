// tokenizer.json and vocab.json + merges.txt. Whatever would change ids and is not implemented is refused by name.

#include <simdjson.h>

#include <optional>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_level.h"
#include "text/tokenizer_data.h"
#include "text/unicode_class.h"

namespace gov {
namespace {

namespace dom = simdjson::dom;

[[noreturn]] void fail_field(std::string_view field, std::string_view expected) {
  fail(ErrorCode::kCorrupt, "tokenizer: {} is not {}", field, expected);
}

// A field of an object; null and absent are both empty.
std::optional<dom::element> find_field(const dom::object& object, std::string_view key) {
  dom::element value;
  if (object.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

dom::object need_object(std::optional<dom::element> value, std::string_view field) {
  dom::object out;
  if (!value || value->get(out) != simdjson::SUCCESS) fail_field(field, "an object");
  return out;
}

dom::array need_array(std::optional<dom::element> value, std::string_view field) {
  dom::array out;
  if (!value || value->get(out) != simdjson::SUCCESS) fail_field(field, "an array");
  return out;
}

std::string_view need_string(std::optional<dom::element> value, std::string_view field) {
  std::string_view out;
  if (!value || value->get(out) != simdjson::SUCCESS) fail_field(field, "a string");
  return out;
}

std::int32_t need_id(std::optional<dom::element> value, std::string_view field) {
  std::int64_t out;
  if (!value || value->get(out) != simdjson::SUCCESS || out < 0 || out >= kMaxTokenIds) {
    fail_field(field, "a token id below 4,194,304");
  }
  return static_cast<std::int32_t>(out);
}

// A truth value; without a default it must be there.
bool need_bool(const dom::object& object, std::string_view key, std::optional<bool> if_absent = std::nullopt) {
  const auto value = find_field(object, key);
  if (!value && if_absent) return *if_absent;
  bool out;
  if (!value || value->get(out) != simdjson::SUCCESS) fail_field(key, "true or false");
  return out;
}

std::string_view type_of(const dom::object& object, std::string_view field) {
  return need_string(find_field(object, "type"), field);
}

// Tokens by the text that stands in the file, for entries outside the byte-level alphabet.
using RawTokens = std::unordered_map<std::string, std::int32_t>;

RawTokens read_vocab(const dom::object& vocab, TokenizerData& data) {
  RawTokens raw;
  for (const auto& [key, value] : vocab) {
    const std::int32_t id = need_id(value, "the id of a vocabulary entry");
    if (const auto bytes = bytes_from_byte_level(key)) {
      data.vocabulary.add(id, *bytes, TokenKind::kBytes);
    } else {
      data.vocabulary.add(id, key, TokenKind::kRaw);
      if (!raw.try_emplace(std::string(key), id).second) {
        fail(ErrorCode::kCorrupt, "tokenizer: token \"{}\" stands twice", printable(key, 40));
      }
    }
  }
  data.find_byte_tokens();
  return raw;
}

void add_merge(TokenizerData& data, std::uint32_t rank, std::string_view left, std::string_view right) {
  const auto left_bytes = bytes_from_byte_level(left), right_bytes = bytes_from_byte_level(right);
  const std::int32_t l = left_bytes ? data.vocabulary.find(*left_bytes) : -1;
  const std::int32_t r = right_bytes ? data.vocabulary.find(*right_bytes) : -1;
  const std::int32_t joined = l >= 0 && r >= 0 ? data.vocabulary.find(*left_bytes + *right_bytes) : -1;
  if (left.empty() || right.empty() || joined < 0) {
    fail(ErrorCode::kCorrupt, "tokenizer: merge {} \"{} {}\" names a token that the vocabulary lacks", rank,
         printable(left, 40), printable(right, 40));
  }
  data.bpe.merges.set(l, r, {rank, joined});
}

void add_merge_line(TokenizerData& data, std::uint32_t rank, std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    fail(ErrorCode::kCorrupt, "tokenizer: merge {} \"{}\" is not two tokens with one space between", rank,
         printable(line, 40));
  }
  add_merge(data, rank, line.substr(0, space), line.substr(space + 1));
}

void read_merges(const dom::array& merges, TokenizerData& data) {
  std::uint32_t rank = 0;
  for (const dom::element merge : merges) {
    std::string_view line;
    if (merge.get(line) == simdjson::SUCCESS) {
      // Old files keep the first line of merges.txt.
      if (line.starts_with("#version")) continue;
      add_merge_line(data, rank++, line);
      continue;
    }
    const dom::array pair = need_array(merge, "a merge");
    std::string_view side[2];
    std::size_t count = 0;
    for (const dom::element item : pair) {
      if (count == 2) fail_field("a merge", "a pair of tokens");
      side[count++] = need_string(item, "a merge's token");
    }
    if (count != 2) fail_field("a merge", "a pair of tokens");
    add_merge(data, rank++, side[0], side[1]);
  }
}

RawTokens read_model(const dom::object& model, TokenizerData& data) {
  if (const auto type = find_field(model, "type")) {
    const std::string_view name = need_string(type, "model.type");
    if (name != "BPE") {
      fail(ErrorCode::kUnsupported, "tokenizer: model type \"{}\", only BPE is supported", printable(name, 40));
    }
  }
  if (const auto dropout = find_field(model, "dropout")) {
    double rate;
    if (dropout->get(rate) != simdjson::SUCCESS) fail_field("model.dropout", "a number");
    if (rate != 0) fail(ErrorCode::kUnsupported, "tokenizer: BPE dropout {} is not supported", rate);
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto affix = find_field(model, key);
    if (affix && !need_string(affix, key).empty()) {
      fail(ErrorCode::kUnsupported, "tokenizer: {} is not supported (byte-level BPE has none)", key);
    }
  }
  RawTokens raw = read_vocab(need_object(find_field(model, "vocab"), "model.vocab"), data);
  // With a token for every byte nothing is ever unknown, so these options have no effect.
  if (!data.has_all_bytes && (find_field(model, "unk_token") || need_bool(model, "byte_fallback", false))) {
    fail(ErrorCode::kUnsupported, "tokenizer: unk_token or byte_fallback with a vocabulary that lacks some bytes");
  }
  read_merges(need_array(find_field(model, "merges"), "model.merges"), data);
  data.whole_piece_first = need_bool(model, "ignore_merges", false);
  return raw;
}

// The Split step: one of the known patterns, as it stands.
SplitPattern read_split(const dom::object& split) {
  const dom::object pattern = need_object(find_field(split, "pattern"), "pre_tokenizer Split.pattern");
  const auto regex = find_field(pattern, "Regex");
  const auto known = regex ? find_split_pattern(need_string(regex, "pre_tokenizer Split.pattern.Regex")) : std::nullopt;
  if (!known) {
    fail(ErrorCode::kUnsupported, "tokenizer: the split pattern is neither o200k's nor GPT-2's: {}",
         regex ? printable(need_string(regex, "Regex"), 60) : "not a Regex");
  }
  if (need_string(find_field(split, "behavior"), "Split.behavior") != "Isolated" || need_bool(split, "invert", false)) {
    fail(ErrorCode::kUnsupported, "tokenizer: Split is supported with behavior Isolated, not inverted");
  }
  return *known;
}

void read_pre_tokenizer(std::optional<dom::element> value, TokenizerData& data) {
  dom::object step = need_object(value, "pre_tokenizer");
  std::optional<SplitPattern> split;
  if (type_of(step, "pre_tokenizer.type") == "Sequence") {
    std::vector<dom::object> steps;
    for (const dom::element item : need_array(find_field(step, "pretokenizers"), "pre_tokenizer.pretokenizers")) {
      steps.push_back(need_object(item, "a pre_tokenizer"));
      if (steps.size() > 2) break;
    }
    const bool splits_first = steps.size() == 2 && type_of(steps[0], "pre_tokenizer.type") == "Split";
    if (!splits_first && steps.size() != 1) {
      fail(ErrorCode::kUnsupported, "tokenizer: a pre_tokenizer Sequence other than Split, ByteLevel");
    }
    if (splits_first) split = read_split(steps[0]);
    step = steps.back();
  }
  const std::string_view type = type_of(step, "pre_tokenizer.type");
  if (type != "ByteLevel") {
    fail(ErrorCode::kUnsupported, "tokenizer: pre_tokenizer \"{}\", only ByteLevel or Split, ByteLevel is supported",
         printable(type, 40));
  }
  data.add_prefix_space = need_bool(step, "add_prefix_space");
  const bool use_regex = need_bool(step, "use_regex", true);
  if (split.has_value() == use_regex) {
    fail(ErrorCode::kUnsupported, "tokenizer: ByteLevel must have use_regex {}",
         use_regex ? "false after Split" : "true alone");
  }
  if (split && data.add_prefix_space) {
    fail(ErrorCode::kUnsupported, "tokenizer: ByteLevel with add_prefix_space after Split");
  }
  data.pattern = split.value_or(SplitPattern::kGpt2);
}

// Decoding joins bytes; a decoder that does something else is refused.
void check_decoder(std::optional<dom::element> value) {
  if (!value) return;
  dom::object decoder = need_object(value, "decoder");
  if (type_of(decoder, "decoder.type") == "Sequence") {
    std::size_t count = 0;
    for (const dom::element item : need_array(find_field(decoder, "decoders"), "decoder.decoders")) {
      decoder = need_object(item, "a decoder");
      if (++count > 1) break;
    }
    if (count != 1) fail(ErrorCode::kUnsupported, "tokenizer: a decoder Sequence other than ByteLevel alone");
  }
  const std::string_view type = type_of(decoder, "decoder.type");
  if (type != "ByteLevel") {
    fail(ErrorCode::kUnsupported, "tokenizer: decoder \"{}\", only ByteLevel is supported", printable(type, 40));
  }
}

bool starts_with_space(std::string_view text) {
  return in_classes(char_class(utf8_next(text).code_point), class_bits(CharClass::kSpace, CharClass::kNewline));
}

AddedToken read_added_token(const dom::object& item) {
  AddedToken token;
  token.id = need_id(find_field(item, "id"), "added_tokens.id");
  token.content = need_string(find_field(item, "content"), "added_tokens.content");
  token.special = need_bool(item, "special");
  token.normalized = need_bool(item, "normalized");
  token.lstrip = need_bool(item, "lstrip");
  token.rstrip = need_bool(item, "rstrip");
  if (need_bool(item, "single_word")) {
    fail(ErrorCode::kUnsupported, "tokenizer: added token \"{}\" with single_word", printable(token.content, 40));
  }
  return token;
}

// Puts the token into the vocabulary, or checks that it stands there under the same id.
void place_added_token(const AddedToken& token, const RawTokens& raw, TokenizerData& data) {
  std::int32_t in_vocab = -1;
  if (const auto bytes = bytes_from_byte_level(token.content)) {
    in_vocab = data.vocabulary.find(*bytes);
  } else if (const auto found = raw.find(token.content); found != raw.end()) {
    in_vocab = found->second;
  }
  if (in_vocab < 0) {
    data.vocabulary.add(token.id, token.content, TokenKind::kAdded);
  } else if (in_vocab != token.id) {
    fail(ErrorCode::kCorrupt, "tokenizer: added token \"{}\" has id {}, but {} in the vocabulary",
         printable(token.content, 40), token.id, in_vocab);
  }
  if (token.special) data.vocabulary.set_special(token.id);
}

void read_added_tokens(std::optional<dom::element> value, const RawTokens& raw, TokenizerData& data) {
  if (!value) return;
  bool any_rstrip = false, any_space = false;
  for (const dom::element element : need_array(value, "added_tokens")) {
    AddedToken token = read_added_token(need_object(element, "an added token"));
    if (token.content.empty()) fail(ErrorCode::kCorrupt, "tokenizer: added token {} is empty", token.id);
    any_rstrip = any_rstrip || token.rstrip;
    any_space = any_space || starts_with_space(token.content);
    data.added.add(token);
    place_added_token(token, raw, data);
  }
  // The reference finds the second token inside the white space that the first one took, and gives both.
  if (any_rstrip && any_space) {
    fail(ErrorCode::kUnsupported, "tokenizer: an added token with rstrip beside one that starts with white space");
  }
}

// `parser` owns what the result refers to.
dom::object parse_object(dom::parser& parser, std::string_view json, std::string_view what) {
  dom::element root;
  if (const auto code = parser.parse(json.data(), json.size()).get(root); code != simdjson::SUCCESS) {
    fail(ErrorCode::kCorrupt, "{}: not valid JSON: {}", what, simdjson::error_message(code));
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS) fail(ErrorCode::kCorrupt, "{}: not a JSON object", what);
  return object;
}

}  // namespace

TokenizerData read_tokenizer_json(std::string_view json) {
  dom::parser parser;
  const dom::object root = parse_object(parser, json, "tokenizer.json");
  if (const auto normalizer = find_field(root, "normalizer")) {
    const std::string_view type = type_of(need_object(normalizer, "normalizer"), "normalizer.type");
    fail(ErrorCode::kUnsupported, "tokenizer: normalizer \"{}\", only null is supported", printable(type, 40));
  }
  TokenizerData data;
  read_pre_tokenizer(find_field(root, "pre_tokenizer"), data);
  check_decoder(find_field(root, "decoder"));
  const RawTokens raw = read_model(need_object(find_field(root, "model"), "model"), data);
  read_added_tokens(find_field(root, "added_tokens"), raw, data);
  return data;
}

TokenizerData read_vocab_and_merges(std::string_view vocab_json, std::string_view merges) {
  TokenizerData data;
  data.pattern = SplitPattern::kGpt2;
  dom::parser parser;
  read_vocab(parse_object(parser, vocab_json, "vocab.json"), data);
  std::uint32_t rank = 0;
  while (!merges.empty()) {
    const std::size_t end = std::min(merges.find('\n'), merges.size());
    std::string_view line = merges.substr(0, end);
    merges.remove_prefix(std::min(end + 1, merges.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) add_merge_line(data, rank++, line);
  }
  constexpr std::string_view kEndOfText = "<|endoftext|>";
  if (const std::int32_t id = data.vocabulary.find(kEndOfText); id >= 0) {
    data.added.add({.id = id, .content = std::string(kEndOfText)});
    data.vocabulary.set_special(id);
  }
  return data;
}

}  // namespace gov

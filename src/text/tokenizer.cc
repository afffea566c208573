#include "text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/tokenizer_data.h"

namespace gov {
namespace {

constexpr std::uintmax_t kMaxFileBytes = 256u << 20;
constexpr std::size_t kMaxTextBytes = (std::size_t{1} << 31) - 1;

// One encode call: text in, (id, begin, end) out through the sink.
template <class Sink>
class Encoder {
 public:
  Encoder(const TokenizerData& data, const std::atomic<bool>* cancel, Sink sink)
      : data_(data), cancel_(cancel), sink_(std::move(sink)) {}

  void encode(std::string_view text, SpecialTokens special) {
    // One byte is left for a prefix space.
    if (text.size() >= kMaxTextBytes) {
      fail(ErrorCode::kInvalidArgument, "tokenizer: a text of {} bytes, at most {} are taken", text.size(),
           kMaxTextBytes - 1);
    }
    for (const TextSegment& segment : data_.added.split(text, special)) {
      const std::string_view part = text.substr(segment.begin, segment.end - segment.begin);
      if (segment.id >= 0) {
        sink_(segment.id, segment.begin, segment.end);
      } else if (data_.add_prefix_space && part[0] != ' ') {
        std::string with_space(1, ' ');
        with_space += part;
        prefix_ = 1;
        encode_segment(with_space, segment.begin);
        prefix_ = 0;
      } else {
        encode_segment(part, segment.begin);
      }
    }
  }

 private:
  void encode_segment(std::string_view text, std::size_t offset) {
    std::size_t valid = 0;
    while (valid < text.size()) {
      const Utf8Char c = utf8_next(text.substr(valid));
      if (!c.valid) break;
      valid += c.length;
    }
    if (valid == text.size()) {
      for (std::size_t at = 0, count = 0; at < text.size(); ++count) {
        if ((count & 0x3FFF) == 0) check_cancelled(cancel_);
        const std::size_t end = next_piece(data_.pattern, text, at);
        encode_piece(text.substr(at, end - at), at,
                     [&](std::int32_t id, std::size_t from, std::size_t to) { emit(id, offset, from, to); });
        at = end;
      }
    } else {
      encode_invalid(text, valid, offset);
    }
  }

  // tiktoken's encode_bytes: the last piece before the first invalid byte is reopened (with the white space before it,
  // when it is white space), and from there to the end all is one piece.
  void encode_invalid(std::string_view text, std::size_t valid, std::size_t offset) {
    std::vector<TokenSpan> spans;
    std::size_t last_piece = 0;  // index of its first span
    const auto collect = [&](std::int32_t id, std::size_t from, std::size_t to) { spans.push_back({id, from, to}); };
    const std::string_view prefix = text.substr(0, valid);
    for (std::size_t at = 0; at < valid;) {
      last_piece = spans.size();
      const std::size_t end = next_piece(data_.pattern, prefix, at);
      encode_piece(prefix.substr(at, end - at), at, collect);
      at = end;
    }
    const auto is_space = [&](std::size_t span) {
      return data_.vocabulary.bytes(spans[span].id).find_first_not_of(" \n\t") == std::string_view::npos;
    };
    if (last_piece < spans.size() && is_space(last_piece)) {
      while (last_piece > 0 && is_space(last_piece - 1)) --last_piece;
    }
    const std::size_t tail = last_piece < spans.size() ? spans[last_piece].begin : valid;
    for (std::size_t i = 0; i < last_piece; ++i) emit(spans[i].id, offset, spans[i].begin, spans[i].end);
    encode_piece(text.substr(tail), tail,
                 [&](std::int32_t id, std::size_t from, std::size_t to) { emit(id, offset, from, to); });
  }

  template <class Emit>
  void encode_piece(std::string_view piece, std::size_t at, Emit emit_span) {
    if (data_.whole_piece_first || piece.size() == 1) {
      const std::int32_t id = data_.vocabulary.find(piece);
      if (id >= 0) return emit_span(id, at, at + piece.size());
    }
    ids_.clear();
    if (data_.has_all_bytes) {
      bpe_encode(data_.bpe, data_.vocabulary, piece, ids_, cancel_);
      for (const std::int32_t id : ids_) {
        const std::size_t end = at + data_.vocabulary.length(id);
        emit_span(id, at, end);
        at = end;
      }
      return;
    }
    // Bytes without token fall out first, and their neighbours can merge.
    std::string known;
    std::vector<std::size_t> position;
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (data_.bpe.byte_ids[static_cast<unsigned char>(piece[i])] < 0) continue;
      known += piece[i];
      position.push_back(at + i);
    }
    bpe_encode(data_.bpe, data_.vocabulary, known, ids_, cancel_);
    std::size_t first = 0;
    for (const std::int32_t id : ids_) {
      const std::size_t last = first + data_.vocabulary.length(id) - 1;
      emit_span(id, position[first], position[last] + 1);
      first = last + 1;
    }
  }

  void emit(std::int32_t id, std::size_t offset, std::size_t from, std::size_t to) {
    sink_(id, offset + from - std::min(from, prefix_), offset + to - prefix_);
  }

  const TokenizerData& data_;
  const std::atomic<bool>* cancel_;
  Sink sink_;
  std::size_t prefix_ = 0;         // bytes put in front of the segment
  std::vector<std::int32_t> ids_;  // of the current piece
};

std::string read_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::string name = printable(path.string(), 200);
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail(ErrorCode::kNotFound, "tokenizer: no file {}", name);
  if (!std::filesystem::is_regular_file(status)) fail(ErrorCode::kIo, "tokenizer: {} is not a regular file", name);
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail(ErrorCode::kIo, "tokenizer: cannot read {}: {}", name, error.message());
  if (size > kMaxFileBytes) {
    fail(ErrorCode::kCorrupt, "tokenizer: {} has {} bytes, at most {} are allowed", name, size, kMaxFileBytes);
  }
  std::string bytes(static_cast<std::size_t>(size), '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    fail(ErrorCode::kIo, "tokenizer: cannot read {}", name);
  }
  return bytes;
}

// The tokenizer file of a folder.
std::filesystem::path find_in_folder(const std::filesystem::path& folder) {
  std::error_code error;
  for (const char* name : {"tokenizer.json", "vocab.json"}) {
    if (std::filesystem::exists(folder / name, error)) return folder / name;
  }
  std::vector<std::filesystem::path> found;
  for (auto it = std::filesystem::directory_iterator(folder, error); !error && it != std::filesystem::end(it);
       it.increment(error)) {
    if (it->path().extension() == ".tiktoken") found.push_back(it->path());
  }
  if (found.size() == 1) return found[0];
  fail(ErrorCode::kNotFound, "tokenizer: {} holds {}", printable(folder.string(), 200),
       found.empty() ? "no tokenizer.json, vocab.json or .tiktoken file" : "several .tiktoken files, name one");
}

}  // namespace

void TokenizerData::find_byte_tokens() {
  has_all_bytes = true;
  for (unsigned b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    bpe.byte_ids[b] = vocabulary.find(std::string_view(&byte, 1));
    has_all_bytes = has_all_bytes && bpe.byte_ids[b] >= 0;
  }
}

Tokenizer Tokenizer::load(const std::filesystem::path& file_or_folder) {
  std::error_code error;
  const std::filesystem::path path =
      std::filesystem::is_directory(file_or_folder, error) ? find_in_folder(file_or_folder) : file_or_folder;
  try {
    if (path.extension() == ".tiktoken") return from_tiktoken(read_file(path));
    if (path.filename() == "vocab.json") {
      return from_vocab_and_merges(read_file(path), read_file(path.parent_path() / "merges.txt"));
    }
    return from_json(read_file(path));
  } catch (const Error& e) {
    const std::string name = printable(path.string(), 200);
    if (std::string_view(e.what()).find(name) != std::string_view::npos) throw;
    throw Error(e.code(), name + ": " + e.what());
  }
}

Tokenizer Tokenizer::from_json(std::string_view json) {
  return Tokenizer(std::make_shared<const TokenizerData>(read_tokenizer_json(json)));
}

Tokenizer Tokenizer::from_vocab_and_merges(std::string_view vocab_json, std::string_view merges) {
  return Tokenizer(std::make_shared<const TokenizerData>(read_vocab_and_merges(vocab_json, merges)));
}

Tokenizer Tokenizer::from_tiktoken(std::string_view ranks, SplitPattern pattern) {
  return Tokenizer(std::make_shared<const TokenizerData>(read_tiktoken(ranks, pattern)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, SpecialTokens special,
                                            const std::atomic<bool>* cancel) const {
  std::vector<std::int32_t> ids;
  // As many as there can be: pages that stay unused cost nothing, while growing step by step copies a long text's ids.
  ids.reserve(text.size());
  Encoder encoder(*data_, cancel, [&](std::int32_t id, std::size_t, std::size_t) { ids.push_back(id); });
  encoder.encode(text, special);
  return ids;
}

std::vector<TokenSpan> Tokenizer::encode_with_offsets(std::string_view text, SpecialTokens special,
                                                      const std::atomic<bool>* cancel) const {
  std::vector<TokenSpan> spans;
  Encoder encoder(*data_, cancel, [&](std::int32_t id, std::size_t begin, std::size_t end) {
    spans.push_back({id, begin, end});
  });
  encoder.encode(text, special);
  return spans;
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  if (!has_token(id)) fail(ErrorCode::kInvalidArgument, "tokenizer: no token has the id {}", id);
  return data_->vocabulary.bytes(id);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string out;
  for (const std::int32_t id : ids) {
    const std::string_view bytes = token_bytes(id);
    if (!skip_special || !is_special(id)) out += bytes;
  }
  return out;
}

std::string Tokenizer::decode_utf8(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes = decode(ids, skip_special);
  return utf8_take(bytes, true);
}

bool Tokenizer::has_token(std::int32_t id) const { return data_->vocabulary.contains(id); }

bool Tokenizer::is_special(std::int32_t id) const { return has_token(id) && data_->vocabulary.special(id); }

std::optional<std::int32_t> Tokenizer::find_special(std::string_view text) const {
  const std::int32_t id = data_->added.find_special(text);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::int32_t> Tokenizer::find_token(std::string_view bytes) const {
  const std::int32_t id = data_->vocabulary.find(bytes);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::int32_t Tokenizer::vocab_size() const { return data_->vocabulary.size(); }

SplitPattern Tokenizer::pattern() const { return data_->pattern; }

std::shared_ptr<const void> Tokenizer::derived(const std::function<std::shared_ptr<const void>()>& make) const {
  const std::lock_guard lock(data_->derived->mutex);
  if (data_->derived->value == nullptr) data_->derived->value = make();
  return data_->derived->value;
}

std::string StreamDecoder::append(std::int32_t id) {
  const std::string_view bytes = tokenizer_.token_bytes(id);
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  pending_ += bytes;
  return utf8_take(pending_, false);
}

std::string StreamDecoder::flush() { return utf8_take(pending_, true); }

}  // namespace gov

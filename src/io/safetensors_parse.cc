// The validator: one pass over the header that keeps 32 bytes per tensor, checks over these records, and only then a
// second pass that builds the entries. It is written by hand, not on a JSON library, because memory and time must be
// bounded by the header's size whatever it holds, and because every refusal names its rule and its byte. The grammar
// needs no nesting beyond three levels, so there is no recursion.

#include <algorithm>
#include <array>
#include <cstring>

#include "base/checked.h"
#include "base/utf8.h"
#include "io/json_string.h"
#include "io/safetensors.h"

namespace gov {
namespace {

using Rule = SafetensorsRule;

struct StoredType {
  std::string_view name;
  unsigned bits;
  std::optional<DType> dtype;
};

constexpr std::array<StoredType, 22> kStoredTypes = {{
    {"BF16", 16, DType::kBF16},
    {"F32", 32, DType::kF32},
    {"F16", 16, DType::kF16},
    {"U8", 8, DType::kU8},
    {"BOOL", 8, DType::kBool},
    {"I8", 8, DType::kI8},
    {"I16", 16, DType::kI16},
    {"I32", 32, DType::kI32},
    {"I64", 64, DType::kI64},
    {"F64", 64, DType::kF64},
    {"U16", 16, {}},
    {"U32", 32, {}},
    {"U64", 64, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"F4", 4, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"C64", 64, {}},
}};

constexpr std::size_t kPrefixBytes = 8;
constexpr std::string_view kMetadataKey = "__metadata__";
// The shortest possible entry, comma included: "":{"dtype":"U8","shape":[],"data_offsets":[0,1]},
constexpr std::size_t kShortestEntry = 50;
constexpr std::size_t kShortestPair = 6;  // "":"",

// Where a key stands in the header, and its hash.
struct Key {
  std::uint64_t hash;
  std::uint32_t begin, length;  // the header is at most 100 MB
};

struct Record {
  std::uint64_t begin, end;  // data offsets
  Key key;
};

struct Fields {
  const StoredType* type = nullptr;
  std::array<std::int64_t, kMaxRank> extents{};
  std::size_t rank = 0;
  std::uint64_t begin = 0, end = 0;
};

class HeaderScanner {
 public:
  HeaderScanner(std::string_view header, std::uint64_t data_bytes) : text_(header), data_bytes_(data_bytes) {}

  void validate();
  std::vector<SafetensorsEntry> build_entries();
  std::map<std::string, std::string> build_metadata();

 private:
  template <class... Args>
  [[noreturn]] void fault(Rule rule, std::uint64_t header_offset, fmt::format_string<Args...> format, Args&&... args);

  char peek() const { return pos_ < text_.size() ? text_[pos_] : '\0'; }
  void skip_space();
  void expect(char c);
  // After a member or element: true if another follows, false if `close` ended the container.
  bool more(char close);
  // Faults with `rule` if some other JSON value stands here, with kHeaderNotJson if none does.
  [[noreturn]] void wrong_value(Rule rule, std::string_view expected);
  std::string_view scan_string();
  void scan_escape();
  char32_t scan_hex4();
  std::uint64_t scan_integer(Rule rule, Rule overflow, std::string_view what);

  void scan_members();
  void scan_metadata(std::map<std::string, std::string>* out);
  Fields scan_entry(std::string_view key);
  void scan_field(std::string_view name, Fields& fields, unsigned& seen, std::string_view key);
  void scan_dtype(Fields& fields, std::string_view key);
  void scan_shape(Fields& fields, std::string_view key);
  void scan_offsets(Fields& fields, std::string_view key);
  void check_sizes(const Fields& fields, std::size_t entry_at, std::string_view key);
  template <class T, class Projection>
  void check_duplicates(std::vector<T>& items, Projection key_of);
  void check_coverage();

  std::size_t position_of(std::string_view part) const { return static_cast<std::size_t>(part.data() - text_.data()); }
  Key key_at(std::string_view raw) const {
    return {hash_json_string(raw), static_cast<std::uint32_t>(position_of(raw)),
            static_cast<std::uint32_t>(raw.size())};
  }
  std::string_view raw(const Key& key) const { return text_.substr(key.begin, key.length); }
  std::string shown(std::string_view raw) const { return printable(raw.substr(0, 200)); }

  std::string_view text_;
  std::uint64_t data_bytes_;
  std::size_t pos_ = 0;
  std::optional<std::size_t> metadata_at_;
  std::vector<Record> records_;
};

template <class... Args>
void HeaderScanner::fault(Rule rule, std::uint64_t header_offset, fmt::format_string<Args...> format, Args&&... args) {
  const std::uint64_t offset = kPrefixBytes + header_offset;
  throw SafetensorsError(
      rule, offset,
      fmt::format("safetensors: {} (at byte {}, rule {})", fmt::format(format, std::forward<Args>(args)...), offset,
                  safetensors_rule_name(rule)));
}

void HeaderScanner::skip_space() {
  while (pos_ < text_.size() &&
         (text_[pos_] == ' ' || text_[pos_] == '\n' || text_[pos_] == '\t' || text_[pos_] == '\r')) {
    ++pos_;
  }
}

void HeaderScanner::expect(char c) {
  skip_space();
  if (peek() != c) fault(Rule::kHeaderNotJson, pos_, "the header is not JSON: expected '{}'", c);
  ++pos_;
  skip_space();
}

bool HeaderScanner::more(char close) {
  skip_space();
  const char c = peek();
  if (c != ',' && c != close) fault(Rule::kHeaderNotJson, pos_, "the header is not JSON: expected ',' or '{}'", close);
  ++pos_;
  if (c == ',') skip_space();
  return c == ',';
}

void HeaderScanner::wrong_value(Rule rule, std::string_view expected) {
  constexpr std::string_view kValueStarts = "{[\"-0123456789tfn";
  const bool is_value = pos_ < text_.size() && kValueStarts.find(text_[pos_]) != std::string_view::npos;
  fault(is_value ? rule : Rule::kHeaderNotJson, pos_, "expected {}", expected);
}

std::string_view HeaderScanner::scan_string() {
  if (peek() != '"') fault(Rule::kHeaderNotJson, pos_, "the header is not JSON: expected a string");
  const std::size_t begin = ++pos_;
  for (;;) {
    if (pos_ >= text_.size()) fault(Rule::kHeaderNotJson, pos_, "the header is not JSON: a string does not end");
    const auto c = static_cast<unsigned char>(text_[pos_]);
    if (c == '"') return text_.substr(begin, pos_++ - begin);
    if (c < 0x20) fault(Rule::kHeaderNotJson, pos_, "the header is not JSON: control byte {} in a string", c);
    if (c == '\\') scan_escape();
    else ++pos_;
  }
}

void HeaderScanner::scan_escape() {
  const std::size_t at = pos_++;
  const char c = peek();
  if (c != 'u') {
    if (c == '\0' || std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) {
      fault(Rule::kHeaderNotJson, at, "the header is not JSON: unknown escape in a string");
    }
    ++pos_;
    return;
  }
  ++pos_;
  const char32_t high = scan_hex4();
  if (high < 0xD800 || high > 0xDFFF) return;
  if (high < 0xDC00 && text_.substr(pos_, 2) == "\\u") {
    pos_ += 2;
    const char32_t low = scan_hex4();
    if (low >= 0xDC00 && low <= 0xDFFF) return;
  }
  fault(Rule::kHeaderNotJson, at, "the header is not JSON: half a surrogate pair in a string");
}

char32_t HeaderScanner::scan_hex4() {
  char32_t value = 0;
  for (int i = 0; i < 4; ++i, ++pos_) {
    const char c = peek();
    const bool digit = c >= '0' && c <= '9', letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!digit && !letter)
      fault(Rule::kHeaderNotJson, pos_, "the header is not JSON: expected four hexadecimal digits");
    value = value * 16 + static_cast<char32_t>(digit ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

std::uint64_t HeaderScanner::scan_integer(Rule rule, Rule overflow, std::string_view what) {
  const std::size_t at = pos_;
  const auto digit = [&] { return peek() >= '0' && peek() <= '9'; };
  if (!digit()) wrong_value(rule, what);
  CheckedSize value = 0;
  while (digit()) value = value * 10 + static_cast<std::uint64_t>(text_[pos_++] - '0');
  if (text_[at] == '0' && pos_ > at + 1)
    fault(Rule::kHeaderNotJson, at, "the header is not JSON: a number starts with 0");
  if (peek() == '.' || peek() == 'e' || peek() == 'E') fault(rule, at, "expected {}", what);
  if (!value.valid()) fault(overflow, at, "{} does not fit 64 bits", what);
  return *value.value();
}

void HeaderScanner::validate() {
  if (text_.empty() || text_[0] != '{') fault(Rule::kHeaderNotJson, 0, "the header does not start with '{{'");
  records_.reserve(std::min(text_.size() / kShortestEntry + 1, kMaxSafetensorsTensors));
  scan_members();
  const std::size_t rest = text_.find_first_not_of(' ', pos_);
  if (rest != std::string_view::npos) {
    fault(Rule::kHeaderNotJson, rest, "the header's JSON is followed by something other than spaces");
  }
  check_duplicates(records_, [](const Record& r) { return r.key; });
  check_coverage();
}

void HeaderScanner::scan_members() {
  pos_ = 1;
  skip_space();
  if (peek() == '}') {
    ++pos_;
    return;
  }
  do {
    const std::size_t key_offset = pos_;
    const std::string_view key = scan_string();
    expect(':');
    if (compare_json_strings(key, kMetadataKey) == 0) {
      if (metadata_at_) fault(Rule::kDuplicateKey, key_offset, "{} is there twice", kMetadataKey);
      metadata_at_ = pos_;
      scan_metadata(nullptr);
      continue;
    }
    if (records_.size() == kMaxSafetensorsTensors) {
      fault(Rule::kTooManyTensors, key_offset, "more than {} tensors", kMaxSafetensorsTensors);
    }
    const Fields fields = scan_entry(key);
    records_.push_back({fields.begin, fields.end, key_at(key)});
  } while (more('}'));
}

void HeaderScanner::scan_metadata(std::map<std::string, std::string>* out) {
  if (peek() != '{') wrong_value(Rule::kBadMetadata, "an object of strings as __metadata__");
  ++pos_;
  skip_space();
  if (peek() == '}') {
    ++pos_;
    return;
  }
  std::vector<Key> keys;
  keys.reserve(std::min(text_.size() / kShortestPair + 1, kMaxSafetensorsMetadata));
  do {
    if (keys.size() == kMaxSafetensorsMetadata) {
      fault(Rule::kBadMetadata, pos_, "__metadata__ has more than {} pairs", kMaxSafetensorsMetadata);
    }
    const std::string_view key = scan_string();
    keys.push_back(key_at(key));
    expect(':');
    if (peek() != '"') wrong_value(Rule::kBadMetadata, "a string as value in __metadata__");
    const std::string_view value = scan_string();
    if (out) out->emplace(decode_json_string(key), decode_json_string(value));
  } while (more('}'));
  check_duplicates(keys, [](const Key& key) { return key; });
}

Fields HeaderScanner::scan_entry(std::string_view key) {
  if (peek() != '{') wrong_value(Rule::kBadEntry, "an object with dtype, shape and data_offsets");
  const std::size_t entry_at = pos_++;
  Fields fields;
  unsigned seen = 0;
  skip_space();
  if (peek() == '}') {
    ++pos_;
  } else {
    do {
      const std::string_view name = scan_string();
      expect(':');
      scan_field(name, fields, seen, key);
    } while (more('}'));
  }
  if (seen != 7) fault(Rule::kBadEntry, entry_at, "tensor '{}' needs dtype, shape and data_offsets", shown(key));
  check_sizes(fields, entry_at, key);
  return fields;
}

void HeaderScanner::scan_field(std::string_view name, Fields& fields, unsigned& seen, std::string_view key) {
  constexpr std::array<std::string_view, 3> kNames = {"dtype", "shape", "data_offsets"};
  const auto known =
      std::find_if(kNames.begin(), kNames.end(), [&](auto n) { return compare_json_strings(name, n) == 0; });
  if (known == kNames.end()) {
    fault(Rule::kBadEntry, position_of(name), "tensor '{}' has the unknown field '{}'", shown(key), shown(name));
  }
  const auto which = static_cast<unsigned>(known - kNames.begin());
  if (seen & (1u << which)) {
    fault(Rule::kDuplicateKey, position_of(name), "tensor '{}' has {} twice", shown(key), *known);
  }
  seen |= 1u << which;
  if (which == 0) scan_dtype(fields, key);
  else if (which == 1) scan_shape(fields, key);
  else scan_offsets(fields, key);
}

void HeaderScanner::scan_dtype(Fields& fields, std::string_view key) {
  const std::size_t at = pos_;
  if (peek() != '"') wrong_value(Rule::kBadDType, "a string as dtype");
  const std::string_view text = scan_string();
  for (const StoredType& type : kStoredTypes) {
    if (compare_json_strings(text, type.name) == 0) fields.type = &type;
  }
  if (!fields.type) fault(Rule::kBadDType, at, "tensor '{}' has the unknown dtype '{}'", shown(key), shown(text));
}

void HeaderScanner::scan_shape(Fields& fields, std::string_view key) {
  if (peek() != '[') wrong_value(Rule::kBadShape, "a list of extents as shape");
  ++pos_;
  skip_space();
  if (peek() == ']') {
    ++pos_;
    return;
  }
  do {
    const std::size_t at = pos_;
    const std::uint64_t extent = scan_integer(Rule::kBadShape, Rule::kShapeOverflow, "a non-negative extent");
    if (fields.rank == kMaxRank)
      fault(Rule::kTooManyAxes, at, "tensor '{}' has more than {} axes", shown(key), kMaxRank);
    if (extent > INT64_MAX)
      fault(Rule::kShapeOverflow, at, "tensor '{}': the extent {} is too large", shown(key), extent);
    fields.extents[fields.rank++] = static_cast<std::int64_t>(extent);
  } while (more(']'));
}

void HeaderScanner::scan_offsets(Fields& fields, std::string_view key) {
  const std::size_t at = pos_;
  if (peek() != '[') wrong_value(Rule::kBadOffsets, "[begin, end] as data_offsets");
  ++pos_;
  skip_space();
  std::array<std::uint64_t, 2> offsets{};
  std::size_t count = 0;
  if (peek() != ']') {
    do {
      const std::uint64_t offset = scan_integer(Rule::kBadOffsets, Rule::kBadOffsets, "a non-negative offset");
      if (count == 2) fault(Rule::kBadOffsets, at, "tensor '{}' has more than two data_offsets", shown(key));
      offsets[count++] = offset;
    } while (more(']'));
  } else {
    ++pos_;
  }
  if (count != 2) fault(Rule::kBadOffsets, at, "tensor '{}' needs two data_offsets", shown(key));
  if (offsets[0] > offsets[1]) {
    fault(Rule::kBadOffsets, at, "tensor '{}': data_offsets end at {} before they begin at {}", shown(key), offsets[1],
          offsets[0]);
  }
  fields.begin = offsets[0];
  fields.end = offsets[1];
}

void HeaderScanner::check_sizes(const Fields& fields, std::size_t entry_at, std::string_view key) {
  // Axes of extent 0 are left out of the overflow check's product, so that no partial product of a Shape can overflow.
  CheckedSize bits = fields.type->bits;
  bool empty = false;
  for (std::size_t axis = 0; axis < fields.rank; ++axis) {
    if (fields.extents[axis] == 0) empty = true;
    else bits *= static_cast<std::uint64_t>(fields.extents[axis]);
  }
  if (!bits.valid() || *bits.value() > INT64_MAX) {
    fault(Rule::kShapeOverflow, entry_at, "tensor '{}': its shape is too large", shown(key));
  }
  const std::uint64_t needed_bits = empty ? 0 : *bits.value();
  const std::uint64_t given = fields.end - fields.begin;
  if (needed_bits % 8 != 0 || given != needed_bits / 8) {
    fault(Rule::kSizeMismatch, entry_at, "tensor '{}' needs {} bits of data but data_offsets give {} bytes", shown(key),
          needed_bits, given);
  }
  if (fields.end > data_bytes_) {
    fault(Rule::kDataTruncated, entry_at, "tensor '{}' ends at data byte {} but the file holds {}", shown(key),
          fields.end, data_bytes_);
  }
}

template <class T, class Projection>
void HeaderScanner::check_duplicates(std::vector<T>& items, Projection key_of) {
  // Equal hashes are told apart by the names themselves, so a crafted collision costs time within the sort, no more.
  std::sort(items.begin(), items.end(), [&](const T& x, const T& y) {
    const Key a = key_of(x), b = key_of(y);
    if (a.hash != b.hash) return a.hash < b.hash;
    const int order = compare_json_strings(raw(a), raw(b));
    return order != 0 ? order < 0 : a.begin < b.begin;
  });
  for (std::size_t i = 1; i < items.size(); ++i) {
    const Key a = key_of(items[i - 1]), b = key_of(items[i]);
    if (a.hash == b.hash && compare_json_strings(raw(a), raw(b)) == 0) {
      fault(Rule::kDuplicateKey, b.begin, "the name '{}' is there twice", shown(raw(b)));
    }
  }
}

void HeaderScanner::check_coverage() {
  std::sort(records_.begin(), records_.end(), [](const Record& a, const Record& b) {
    if (a.begin != b.begin) return a.begin < b.begin;
    return a.end != b.end ? a.end < b.end : a.key.begin < b.key.begin;
  });
  const std::uint64_t data_at = text_.size();
  std::uint64_t covered = 0;
  for (const Record& record : records_) {
    if (record.begin > covered) {
      fault(Rule::kHole, data_at + covered, "data bytes {} to {} before tensor '{}' belong to no tensor", covered,
            record.begin, shown(raw(record.key)));
    }
    if (record.begin < covered) {
      fault(Rule::kOverlap, data_at + record.begin, "tensor '{}' begins at data byte {} inside another tensor",
            shown(raw(record.key)), record.begin);
    }
    covered = record.end;
  }
  if (covered < data_bytes_) {
    fault(Rule::kTrailingBytes, data_at + covered, "{} bytes follow the last tensor", data_bytes_ - covered);
  }
}

std::vector<SafetensorsEntry> HeaderScanner::build_entries() {
  std::vector<SafetensorsEntry> entries;
  entries.reserve(records_.size());
  const std::uint64_t data_at = kPrefixBytes + text_.size();
  for (const Record& record : records_) {
    const std::string_view key = raw(record.key);
    pos_ = record.key.begin + record.key.length + 1;  // after the closing quote
    expect(':');
    const Fields fields = scan_entry(key);
    entries.push_back({decode_json_string(key), fields.type->name, fields.type->dtype,
                       Shape(std::span<const std::int64_t>(fields.extents.data(), fields.rank)), data_at + fields.begin,
                       data_at + fields.end});
  }
  return entries;
}

std::map<std::string, std::string> HeaderScanner::build_metadata() {
  std::map<std::string, std::string> metadata;
  if (metadata_at_) {
    pos_ = *metadata_at_;
    scan_metadata(&metadata);
  }
  return metadata;
}

// The first byte that is not part of valid UTF-8, or npos.
std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t pos = 0;
  while (pos < text.size()) {
    std::uint64_t word;
    if (text.size() - pos >= sizeof word) {
      std::memcpy(&word, text.data() + pos, sizeof word);
      if ((word & 0x8080808080808080u) == 0) {  // eight ASCII bytes
        pos += sizeof word;
        continue;
      }
    }
    const Utf8Char c = utf8_next(text.substr(pos));
    if (!c.valid) return pos;
    pos += c.length;
  }
  return std::string_view::npos;
}

}  // namespace

const char* safetensors_rule_name(SafetensorsRule rule) {
  switch (rule) {
    case Rule::kTooShort: return "too_short";
    case Rule::kHeaderTooLarge: return "header_too_large";
    case Rule::kHeaderTruncated: return "header_truncated";
    case Rule::kHeaderNotUtf8: return "header_not_utf8";
    case Rule::kHeaderNotJson: return "header_not_json";
    case Rule::kDuplicateKey: return "duplicate_key";
    case Rule::kBadMetadata: return "bad_metadata";
    case Rule::kBadEntry: return "bad_entry";
    case Rule::kBadDType: return "bad_dtype";
    case Rule::kBadShape: return "bad_shape";
    case Rule::kTooManyAxes: return "too_many_axes";
    case Rule::kShapeOverflow: return "shape_overflow";
    case Rule::kBadOffsets: return "bad_offsets";
    case Rule::kSizeMismatch: return "size_mismatch";
    case Rule::kDataTruncated: return "data_truncated";
    case Rule::kTooManyTensors: return "too_many_tensors";
    case Rule::kHole: return "hole";
    case Rule::kOverlap: return "overlap";
    case Rule::kTrailingBytes: return "trailing_bytes";
  }
  return "unknown";
}

SafetensorsError::SafetensorsError(SafetensorsRule rule, std::uint64_t offset, const std::string& message)
    : Error(rule == Rule::kTooManyAxes ? ErrorCode::kUnsupported : ErrorCode::kCorrupt, message),
      rule_(rule),
      offset_(offset) {}

std::uint64_t safetensors_header_bytes(std::span<const std::byte> start, std::uint64_t file_bytes) {
  if (start.size() < kPrefixBytes || file_bytes < kPrefixBytes) {
    throw SafetensorsError(
        Rule::kTooShort, file_bytes,
        fmt::format("safetensors: {} bytes are too few for a header length (rule too_short)", file_bytes));
  }
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 0; i < kPrefixBytes; ++i) header_bytes |= std::to_integer<std::uint64_t>(start[i]) << (8 * i);
  if (header_bytes > kMaxSafetensorsHeader) {
    throw SafetensorsError(
        Rule::kHeaderTooLarge, 0,
        fmt::format("safetensors: a header of {} bytes is beyond the limit of {} (rule header_too_large)", header_bytes,
                    kMaxSafetensorsHeader));
  }
  if (header_bytes > file_bytes - kPrefixBytes) {
    throw SafetensorsError(Rule::kHeaderTruncated, file_bytes,
                           fmt::format("safetensors: the file ends at byte {} inside its header of {} bytes "
                                       "(rule header_truncated)",
                                       file_bytes, header_bytes));
  }
  return header_bytes;
}

std::vector<SafetensorsEntry> parse_safetensors_header(std::span<const std::byte> header, std::uint64_t file_bytes,
                                                       std::map<std::string, std::string>* metadata) {
  GOV_DCHECK(header.size() <= kMaxSafetensorsHeader && header.size() + kPrefixBytes <= file_bytes);
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  const std::size_t invalid = find_invalid_utf8(text);
  if (invalid != std::string_view::npos) {
    throw SafetensorsError(
        Rule::kHeaderNotUtf8, kPrefixBytes + invalid,
        fmt::format("safetensors: the header is not UTF-8 at byte {} (rule header_not_utf8)", kPrefixBytes + invalid));
  }
  HeaderScanner scanner(text, file_bytes - kPrefixBytes - header.size());
  scanner.validate();
  std::vector<SafetensorsEntry> entries = scanner.build_entries();
  if (metadata) *metadata = scanner.build_metadata();
  return entries;
}

std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::map<std::string, std::string>* metadata) {
  const std::uint64_t header_bytes =
      safetensors_header_bytes(file.first(std::min(file.size(), kPrefixBytes)), file.size());
  return parse_safetensors_header(file.subspan(kPrefixBytes, static_cast<std::size_t>(header_bytes)), file.size(),
                                  metadata);
}

std::string_view safetensors_dtype_name(DType dtype) {
  for (const StoredType& type : kStoredTypes) {
    if (type.dtype == dtype) return type.name;
  }
  return "unknown";
}

}  // namespace gov

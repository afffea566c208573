#include "tests/io/hostile_safetensors.h"

#include <algorithm>
#include <numeric>

namespace gov::test {
namespace {

using Rule = SafetensorsRule;
using Strings = std::vector<std::string>;

// JSON spellings of names and the bytes that they mean.
const std::vector<std::pair<std::string, std::string>> kNames = {{"model.layers.", "model.layers."},
                                                                 {"w", "w"},
                                                                 {"", ""},
                                                                 {"gr\xC3\xB6\xC3\x9F"
                                                                  "e",
                                                                  "gr\xC3\xB6\xC3\x9F"
                                                                  "e"},
                                                                 {"\\u0061b", "ab"},
                                                                 {"\\\"q\\\"", "\"q\""},
                                                                 {"a\\\\b", "a\\b"},
                                                                 {"\\/", "/"},
                                                                 {"\\n\\t\\r\\b\\f", "\n\t\r\b\f"},
                                                                 {"\\uD83D\\uDE00", "\xF0\x9F\x98\x80"},
                                                                 {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},
                                                                 {"\\u00e9", "\xC3\xA9"},
                                                                 {"\x7F", "\x7F"}};

const std::vector<std::pair<std::string, unsigned>> kTypes = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
    {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8}};

struct Member {
  std::string key, dtype, shape, offsets;  // JSON texts
};

std::string space(Random& random) {
  static const Strings kSpaces = {"", "", "", "", " ", "  ", "\n", "\t", "\r\n "};
  return random.pick(kSpaces);
}

std::string join(Random& random, const Strings& items) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += fmt::format("{},{}", space(random), space(random));
    out += items[i];
  }
  return out;
}

std::string object(Random& random, const Strings& members) {
  return fmt::format("{{{}{}{}}}", space(random), join(random, members), space(random));
}

std::string pair(Random& random, const std::string& key, const std::string& value) {
  return fmt::format("{}{}:{}{}", key, space(random), space(random), value);
}

std::string text_of(Random& random, const Member& member) {
  Strings fields = {pair(random, "\"dtype\"", member.dtype), pair(random, "\"shape\"", member.shape),
                    pair(random, "\"data_offsets\"", member.offsets)};
  for (std::size_t i = 2; i > 0; --i) std::swap(fields[i], fields[static_cast<std::size_t>(random.below(i + 1))]);
  return pair(random, member.key, object(random, fields));
}

std::string list(Random& random, const std::vector<std::uint64_t>& numbers) {
  Strings texts;
  for (const std::uint64_t number : numbers) texts.push_back(std::to_string(number));
  return fmt::format("[{}{}{}]", space(random), join(random, texts), space(random));
}

// A valid file in pieces.
struct Layout {
  Strings members;  // texts, in the order of the header
  std::uint64_t data_bytes = 0;
  std::vector<SafetensorsEntry> entries;
};

Layout valid_layout(Random& random, bool non_empty = false) {
  Layout layout;
  const std::uint64_t count = (non_empty ? 2 : 0) + random.below(7);
  std::vector<Member> members;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto& [spelled, name] = random.pick(kNames);
    const auto& [type, size] = random.pick(kTypes);
    std::vector<std::uint64_t> extents;
    std::uint64_t bytes = size;
    for (std::uint64_t axis = random.below(kMaxRank + 1); axis > 0; --axis) {
      extents.push_back(random.below(8) == 0 && !non_empty ? 0 : 1 + random.below(4));
      bytes *= extents.back();
    }
    const std::uint64_t end = layout.data_bytes + bytes;
    std::vector<std::int64_t> shape(extents.begin(), extents.end());
    layout.entries.push_back(
        {name + std::to_string(i), type, {}, Shape(std::span<const std::int64_t>(shape)), layout.data_bytes, end});
    members.push_back({fmt::format("\"{}{}\"", spelled, i), fmt::format("\"{}\"", type), list(random, extents),
                       list(random, {layout.data_bytes, end})});
    layout.data_bytes = end;
  }
  for (const Member& member : members) layout.members.push_back(text_of(random, member));
  for (std::size_t i = layout.members.size(); i > 1; --i) {
    std::swap(layout.members[i - 1], layout.members[static_cast<std::size_t>(random.below(i))]);
  }
  if (random.flip()) {
    Strings pairs;
    for (std::uint64_t i = random.below(4); i > 0; --i) {
      pairs.push_back(pair(random, fmt::format("\"{}{}\"", random.pick(kNames).first, i),
                           fmt::format("\"{}\"", random.pick(kNames).first)));
    }
    layout.members.insert(
        layout.members.begin() + static_cast<std::ptrdiff_t>(random.below(layout.members.size() + 1)),
        pair(random, random.flip() ? "\"__metadata__\"" : "\"__meta\\u0064ata__\"", object(random, pairs)));
  }
  return layout;
}

std::string data_of(std::uint64_t bytes) { return std::string(static_cast<std::size_t>(bytes), '\x5A'); }

std::string header_of(const Strings& members, std::string_view tail = "}") {
  std::string header = "{";
  for (std::size_t i = 0; i < members.size(); ++i) header += (i > 0 ? "," : "") + members[i];
  return header + std::string(tail);
}

MalformedCase with_header(Rule rule, const std::string& header, std::uint64_t data_bytes) {
  return {"", rule, file_of(header, data_of(data_bytes)), {8, 8 + header.size()}};
}

// A valid file with one bad member among the others; the error must point into that member.
MalformedCase with_member(Random& random, Rule rule, const std::string& bad, Layout layout) {
  const auto at = static_cast<std::size_t>(random.below(layout.members.size() + 1));
  layout.members.insert(layout.members.begin() + static_cast<std::ptrdiff_t>(at), bad);
  std::uint64_t begin = 8 + 1;
  for (std::size_t i = 0; i < at; ++i) begin += layout.members[i].size() + 1;
  const std::string header = header_of(layout.members) + std::string(static_cast<std::size_t>(random.below(9)), ' ');
  return {"", rule, file_of(header, data_of(layout.data_bytes)), {begin, begin + bad.size() + 1}};
}

// As with_member; the member is an empty tensor at the data's end, valid but for the field that is given.
struct Probe {
  std::string key = "\"probe\"", dtype = "\"U8\"", shape = "[0]", offsets;
};
MalformedCase with_probe(Random& random, Rule rule, Probe probe) {
  Layout layout = valid_layout(random);
  const std::string end = std::to_string(layout.data_bytes);
  if (probe.offsets.empty()) probe.offsets = fmt::format("[{},{}]", end, end);
  return with_member(random, rule, text_of(random, {probe.key, probe.dtype, probe.shape, probe.offsets}),
                     std::move(layout));
}

MalformedCase bad_key(Random& r, Rule rule, const Strings& keys) {
  return with_probe(r, rule, {.key = r.pick(keys), .offsets = {}});
}
MalformedCase bad_dtype(Random& r, Rule rule, const Strings& texts) {
  return with_probe(r, rule, {.dtype = r.pick(texts), .offsets = {}});
}
MalformedCase bad_shape(Random& r, Rule rule, const Strings& texts) {
  return with_probe(r, rule, {.shape = r.pick(texts), .offsets = {}});
}
MalformedCase bad_offsets(Random& r, Rule rule, const Strings& texts) {
  return with_probe(r, rule, {.offsets = r.pick(texts)});
}

MalformedCase bad_member(Random& random, Rule rule, const Strings& texts) {
  Layout layout = valid_layout(random);
  std::erase_if(layout.members, [](const std::string& m) { return m.starts_with("\"__meta"); });
  return with_member(random, rule, random.pick(texts), std::move(layout));
}

MalformedCase bad_tail(Random& random, const Strings& tails) {  // what stands after the last member
  const Layout layout = valid_layout(random, true);
  return with_header(Rule::kHeaderNotJson, header_of(layout.members, random.pick(tails)), layout.data_bytes);
}

MalformedCase bad_head(Random& random, const Strings& heads) {  // what stands in front of the object
  const Layout layout = valid_layout(random);
  return with_header(Rule::kHeaderNotJson, random.pick(heads) + header_of(layout.members), layout.data_bytes);
}

MalformedCase bad_length(Rule rule, std::uint64_t length, const std::string& rest, std::uint64_t where) {
  std::string file = file_of("", rest);
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
  return {"", rule, file, {where, where}};
}

MalformedCase cut(Random& random, bool in_header) {
  const Layout layout = valid_layout(random, true);
  const std::string header = header_of(layout.members);
  std::string file = file_of(header, data_of(layout.data_bytes));
  const std::size_t header_end = 8 + header.size();
  if (in_header) {
    file.resize(8 + static_cast<std::size_t>(random.below(header.size())));
    return {"", Rule::kHeaderTruncated, file, {file.size(), file.size()}};
  }
  file.resize(header_end + static_cast<std::size_t>(random.below(layout.data_bytes)));
  return {"", Rule::kDataTruncated, file, {8, header_end}};
}

MalformedCase short_file(Random& random) {
  const auto size = static_cast<std::size_t>(random.below(8));
  return {"", Rule::kTooShort, std::string(size, '\0'), {size, size}};
}

MalformedCase duplicate_name(Random& random, const std::string& first, const std::string& second) {
  Layout layout = valid_layout(random);
  const std::string end = std::to_string(layout.data_bytes), at_end = fmt::format("[{},{}]", end, end);
  layout.members.push_back(text_of(random, {first, "\"F32\"", "[0]", at_end}));
  const std::string bad = text_of(random, {second, "\"U8\"", "[2,0]", at_end});
  layout.members.push_back(bad);
  const std::string header = header_of(layout.members);
  const std::uint64_t begin = 8 + header.size() - 1 - bad.size();
  return {"", Rule::kDuplicateKey, file_of(header, data_of(layout.data_bytes)), {begin, begin + second.size()}};
}

// Three tensors of 8 bytes with the given offsets, as a whole file with `data_bytes` of data.
MalformedCase three(Random& random, Rule rule, std::vector<std::uint64_t> begins, std::uint64_t data_bytes,
                    std::uint64_t data_fault, std::string_view shape = "[8]", std::uint64_t size = 8) {
  Strings members;
  for (std::size_t i = 0; i < begins.size(); ++i) {
    members.push_back(text_of(random, {fmt::format("\"t{}\"", i), "\"U8\"", std::string(shape),
                                       list(random, {begins[i], begins[i] + size})}));
  }
  std::swap(members[0], members[static_cast<std::size_t>(random.below(members.size()))]);
  const std::string header = header_of(members);
  const std::uint64_t where = 8 + header.size() + data_fault;
  return {"", rule, file_of(header, data_of(data_bytes)), {where, where}};
}

MalformedCase inside_another(Random& random) {
  const std::uint64_t at = 1 + random.below(7);
  const std::string header = header_of({text_of(random, {"\"a\"", "\"F32\"", "[2]", "[0,8]"}),
                                        text_of(random, {"\"b\"", "\"F32\"", "[0]", list(random, {at, at})})});
  return {"", Rule::kOverlap, file_of(header, data_of(8)), {8 + header.size() + at, 8 + header.size() + at}};
}

MalformedCase trailing(Random& random) {
  const Layout layout = valid_layout(random);
  const std::string header = header_of(layout.members);
  const std::uint64_t end = 8 + header.size() + layout.data_bytes;
  return {"", Rule::kTrailingBytes, file_of(header, data_of(layout.data_bytes + 1 + random.below(100))), {end, end}};
}

MalformedCase swapped_sizes(Random& random) {
  const std::uint64_t extra = 1 + random.below(8);
  return with_member(
      random, Rule::kSizeMismatch,
      text_of(random, {"\"probe\"", "\"F32\"", "[1]", list(random, {0, random.flip() ? 4 + extra : extra % 4})}),
      valid_layout(random));
}

MalformedCase metadata_twice(Random& random) {
  Layout layout = valid_layout(random);
  std::erase_if(layout.members, [](const std::string& m) { return m.starts_with("\"__meta"); });
  layout.members.insert(layout.members.begin(), R"("__metadata__":{"a":"b"})");
  const std::string bad = random.flip() ? R"("__metadata__":{})" : R"("__met\u0061data__":{})";
  layout.members.push_back(bad);
  const std::string header = header_of(layout.members);
  const std::uint64_t begin = 8 + header.size() - 1 - bad.size();
  return {"", Rule::kDuplicateKey, file_of(header, data_of(layout.data_bytes)), {begin, begin + bad.size()}};
}

std::string repeat(std::string_view text, std::size_t count) {
  std::string out;
  while (count-- > 0) out += text;
  return out;
}

struct Class {
  std::string_view name;
  MalformedCase (*make)(Random&);
};

#define GOV_CASE(text, expression)                                               \
  {                                                                              \
    text, []([[maybe_unused]] Random& r) -> MalformedCase { return expression; } \
  }

const std::vector<Class> kClasses = {
    GOV_CASE("shorter than 8 bytes", short_file(r)),
    GOV_CASE("length just over the limit",
             bad_length(Rule::kHeaderTooLarge, kMaxSafetensorsHeader + 1 + r.below(9), "{}", 0)),
    GOV_CASE("length with high bits",
             bad_length(Rule::kHeaderTooLarge, (std::uint64_t{1} << (27 + r.below(37))) + 2, "{}", 0)),
    GOV_CASE("length all ones", bad_length(Rule::kHeaderTooLarge, UINT64_MAX - r.below(16), "{}", 0)),
    GOV_CASE("length beyond the file",
             bad_length(Rule::kHeaderTruncated, 3 + r.below(kMaxSafetensorsHeader - 3), "{}", 10)),
    GOV_CASE("cut inside the header", cut(r, true)),
    GOV_CASE("cut inside the data", cut(r, false)),
    GOV_CASE("no header", with_header(Rule::kHeaderNotJson, "", r.below(9))),
    GOV_CASE("lone bytes", bad_key(r, Rule::kHeaderNotUtf8,
                                   {"\"a\xFF\"", "\"\x80\"",
                                    "\"\xBF"
                                    "b\"",
                                    "\"\xFE\""})),
    GOV_CASE("overlong UTF-8",
             bad_key(r, Rule::kHeaderNotUtf8, {"\"\xC0\x80\"", "\"\xE0\x80\xAF\"", "\"\xF0\x80\x80\x80\""})),
    GOV_CASE("surrogates in UTF-8", bad_key(r, Rule::kHeaderNotUtf8, {"\"\xED\xA0\x80\"", "\"\xED\xBF\xBF\""})),
    GOV_CASE("beyond U+10FFFF", bad_key(r, Rule::kHeaderNotUtf8, {"\"\xF4\x90\x80\x80\"", "\"\xF5\x80\x80\x80\""})),
    GOV_CASE("cut UTF-8", bad_key(r, Rule::kHeaderNotUtf8, {"\"\xC3\"", "\"\xE2\x82\"", "\"\xF0\x9F\x98\""})),
    GOV_CASE("byte order mark", bad_head(r, {"\xEF\xBB\xBF"})),
    GOV_CASE("space in front", bad_head(r, {" ", "\n", "\t", "  "})),
    GOV_CASE("not an object", bad_head(r, {"[", "\"", "1", "null", "x"})),
    GOV_CASE("object does not end", bad_tail(r, {"", " ", "   "})),
    GOV_CASE("wrong bracket at the end", bad_tail(r, {"]", ")", "\"", ";"})),
    GOV_CASE("comma at the end", bad_tail(r, {",}", ", }", ",,}"})),
    GOV_CASE("text after the object", bad_tail(r, {"}x", "} x", "}}", "}{}", "},", "} ,{}"})),
    GOV_CASE("other padding than spaces",
             bad_tail(r, {"}\n", "}\t", "} \r\n", std::string("}\0", 2), std::string("} \0 ", 4)})),
    GOV_CASE("key without quotes", bad_key(r, Rule::kHeaderNotJson, {"probe", "'probe'", "1", "null", "{}", "[1]"})),
    GOV_CASE("control byte in a name",
             bad_key(r, Rule::kHeaderNotJson, {"\"a\nb\"", "\"\x01\"", "\"\t\"", std::string("\"\0\"", 3)})),
    GOV_CASE("unknown escape",
             bad_key(r, Rule::kHeaderNotJson, {"\"\\x41\"", "\"\\a\"", "\"\\'\"", "\"\\0\"", "\"\\U0041\""})),
    GOV_CASE("bad hexadecimal escape",
             bad_key(r, Rule::kHeaderNotJson, {"\"\\u12\"", "\"\\u00g0\"", "\"\\u\"", "\"\\u-123\"", "\"\\u 041\""})),
    GOV_CASE("half a surrogate pair", bad_key(r, Rule::kHeaderNotJson,
                                              {"\"\\uD800\"", "\"\\uDBFFa\"", "\"\\uDC00\"", "\"\\uD800\\u0041\"",
                                               "\"\\uD800\\uD800\"", "\"\\uD83D\\n\""})),
    GOV_CASE("no colon",
             bad_member(r, Rule::kHeaderNotJson, {R"("p" {"dtype":"U8"})", R"("p",{})", R"("p"="x")", R"("p")"})),
    GOV_CASE("no comma inside", bad_member(r, Rule::kHeaderNotJson,
                                           {R"("p":{"dtype":"U8" "shape":[0],"data_offsets":[0,0]})",
                                            R"("p":{"dtype":"U8","shape":[1 2],"data_offsets":[0,0]})"})),
    GOV_CASE("comment", bad_member(r, Rule::kHeaderNotJson, {"/* c */", "// c\n", "#"})),
    GOV_CASE("bare words", bad_member(r, Rule::kHeaderNotJson,
                                      {R"("p":NaN)", R"("p":Infinity)", R"("p":undefined)", R"("p":)", R"("p":+1)"})),
    GOV_CASE("comma at the end of a list", bad_shape(r, Rule::kHeaderNotJson, {"[0,]", "[,0]", "[0,,1]", "[,]"})),
    GOV_CASE("leading zero", bad_shape(r, Rule::kHeaderNotJson, {"[00]", "[01]", "[0, 007]"})),
    GOV_CASE("list does not end",
             bad_member(r, Rule::kHeaderNotJson,
                        {R"("p":{"shape":[0})", R"("p":{"shape":[0;1]})", R"("p":{"data_offsets":[0,0})"})),
    GOV_CASE("same name", duplicate_name(r, "\"dup\"", "\"dup\"")),
    GOV_CASE("same name, escaped",
             duplicate_name(r, "\"dup\"", r.flip() ? "\"d\\u0075p\"" : "\"\\u0064\\u0075\\u0070\"")),
    GOV_CASE(
        "same name, two spellings",
        duplicate_name(r, "\"\\uD83D\\uDE00x\"", r.flip() ? "\"\xF0\x9F\x98\x80x\"" : "\"\\ud83d\\ude00\\u0078\"")),
    GOV_CASE("same name, slash", duplicate_name(r, "\"a/b\"", "\"a\\/b\"")),
    GOV_CASE("field twice",
             bad_member(r, Rule::kDuplicateKey,
                        {R"("p":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]})",
                         R"("p":{"shape":[0],"shape":[1]})", R"("p":{"data_offsets":[0,0],"data_offsets":[0,0]})"})),
    GOV_CASE("field twice, escaped",
             bad_member(r, Rule::kDuplicateKey,
                        {R"("p":{"dtype":"U8","d\u0074ype":"U8"})", R"("p":{"sh\u0061pe":[0],"shape":[1]})"})),
    GOV_CASE("metadata twice", metadata_twice(r)),
    GOV_CASE("metadata key twice",
             bad_member(r, Rule::kDuplicateKey,
                        {R"("__metadata__":{"a":"b","a":"b"})", R"("__metadata__":{"a":"b","c":"","\u0061":"b"})"})),
    GOV_CASE("metadata of a wrong type",
             bad_member(r, Rule::kBadMetadata,
                        {R"("__metadata__":[])", R"("__metadata__":null)", R"("__metadata__":"a")",
                         R"("__metadata__":1)", R"("__metadata__":true)"})),
    GOV_CASE("metadata value not a string",
             bad_member(r, Rule::kBadMetadata,
                        {R"("__metadata__":{"a":1})", R"("__metadata__":{"a":null})",
                         R"("__metadata__":{"a":{"b":"c"}})", R"("__metadata__":{"a":["b"]})"})),
    GOV_CASE("metadata that is an entry",
             bad_member(r, Rule::kBadMetadata, {R"("__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})"})),
    GOV_CASE("entry of a wrong type",
             bad_member(r, Rule::kBadEntry,
                        {R"("p":1)", R"("p":[])", R"("p":null)", R"("p":"x")", R"("p":false)", R"("p":-1)"})),
    GOV_CASE("deep nesting", bad_member(r, Rule::kBadEntry,
                                        {repeat("\"p\":", 1) + repeat("[", 20000),
                                         repeat("\"p\":{\"x\":", 1) + repeat("{\"x\":", 20000)})),
    GOV_CASE("empty entry", bad_member(r, Rule::kBadEntry, {R"("p":{})", R"("p":{ })"})),
    GOV_CASE("field missing",
             bad_member(r, Rule::kBadEntry,
                        {R"("p":{"dtype":"U8","shape":[0]})", R"("p":{"dtype":"U8","data_offsets":[0,0]})",
                         R"("p":{"shape":[0],"data_offsets":[0,0]})", R"("p":{"shape":[0]})"})),
    GOV_CASE("unknown field", bad_member(r, Rule::kBadEntry,
                                         {R"("p":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1})",
                                          R"("p":{"Dtype":"U8"})", R"("p":{"":{}})", R"("p":{"offsets":[0,0]})"})),
    GOV_CASE("unknown dtype", bad_dtype(r, Rule::kBadDType,
                                        {"\"F31\"", "\"\"", "\"f32\"", "\"F32 \"", "\"float32\"", "\"F32\\u0000\"",
                                         "\"U128\"", "\"MXFP4\""})),
    GOV_CASE("dtype of a wrong type", bad_dtype(r, Rule::kBadDType, {"1", "null", "[\"U8\"]", "{}", "true"})),
    GOV_CASE("shape of a wrong type", bad_shape(r, Rule::kBadShape, {"0", "null", "\"[0]\"", "{}", "true"})),
    GOV_CASE("negative extent", bad_shape(r, Rule::kBadShape, {"[-1]", "[-0]", "[0,-9223372036854775808]"})),
    GOV_CASE("fraction as extent",
             bad_shape(r, Rule::kBadShape, {"[0.0]", "[0.5]", "[1e2]", "[1E1]", "[18446744073709551616.0]"})),
    GOV_CASE("extent of a wrong type",
             bad_shape(r, Rule::kBadShape, {"[\"0\"]", "[null]", "[[0]]", "[{}]", "[false]"})),
    GOV_CASE("too many axes",
             bad_shape(r, Rule::kTooManyAxes,
                       {"[0,1,1,1,1,1]", "[1,1,1,1,1,0,2]", repeat("[0", 1) + repeat(",1", 50000) + "]"})),
    GOV_CASE("extent beyond 64 bits", bad_shape(r, Rule::kShapeOverflow,
                                                {"[18446744073709551616]", "[0,99999999999999999999999]",
                                                 repeat("[", 1) + repeat("9", 3000) + "]"})),
    GOV_CASE("extent beyond 63 bits",
             bad_shape(r, Rule::kShapeOverflow, {"[9223372036854775808]", "[18446744073709551615]"})),
    GOV_CASE("product overflows",
             bad_shape(r, Rule::kShapeOverflow,
                       {"[4294967296,4294967296]", "[4611686018427387904,4]", "[65536,65536,65536,65536]",
                        "[9223372036854775807,2,3]", "[2305843009213693952]"})),
    GOV_CASE("product overflows beside a zero",
             bad_shape(r, Rule::kShapeOverflow, {"[0,4294967296,4294967296]", "[4611686018427387904,4,0]"})),
    GOV_CASE("offsets of a wrong type",
             bad_offsets(r, Rule::kBadOffsets, {"0", "null", "\"0,0\"", "{\"begin\":0}", "false"})),
    GOV_CASE("number of offsets",
             bad_offsets(r, Rule::kBadOffsets, {"[]", "[0]", "[0,0,0]", repeat("[0", 1) + repeat(",0", 30000) + "]"})),
    GOV_CASE("negative offset", bad_offsets(r, Rule::kBadOffsets, {"[-1,0]", "[0,-1]", "[-0,0]"})),
    GOV_CASE("fraction as offset", bad_offsets(r, Rule::kBadOffsets, {"[0.0,0]", "[0,0e0]", "[0,1.5]"})),
    GOV_CASE("offset of a wrong type",
             bad_offsets(r, Rule::kBadOffsets, {"[\"0\",0]", "[null,null]", "[[0],0]", "[true,0]"})),
    GOV_CASE(
        "offset beyond 64 bits",
        bad_offsets(r, Rule::kBadOffsets, {"[0,18446744073709551616]", "[99999999999999999999,99999999999999999999]"})),
    GOV_CASE("offsets reversed", bad_offsets(r, Rule::kBadOffsets, {"[1,0]", "[18446744073709551615,0]", "[9,8]"})),
    GOV_CASE("size differs", swapped_sizes(r)),
    GOV_CASE("size wraps around",
             bad_offsets(r, Rule::kSizeMismatch, {"[0,18446744073709551615]", "[1,9223372036854775808]"})),
    GOV_CASE("half a byte", with_probe(r, Rule::kSizeMismatch,
                                       {.dtype = r.flip() ? "\"F4\"" : "\"F6_E2M3\"", .shape = "[1]", .offsets = {}})),
    GOV_CASE("end far beyond the file",
             bad_offsets(r, Rule::kDataTruncated,
                         {"[18446744073709551615,18446744073709551615]", "[1000000000000,1000000000000]"})),
    GOV_CASE("hole in front", three(r, Rule::kHole, {8, 16, 24}, 32, 0)),
    GOV_CASE("hole between", three(r, Rule::kHole, {0, 8, 17 + r.below(7)}, 32, 16)),
    GOV_CASE("hole before an empty tensor",
             with_header(Rule::kHole, R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})", 1)),
    GOV_CASE("overlap", three(r, Rule::kOverlap, {0, 4, 12}, 20, 4)),
    GOV_CASE("same bytes twice", three(r, Rule::kOverlap, {0, 8, 8}, 16, 8)),
    GOV_CASE("empty tensor inside another", inside_another(r)),
    GOV_CASE("bytes after the last tensor", trailing(r)),
};

#undef GOV_CASE

}  // namespace

std::string file_of(std::string_view header, std::string_view data) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i));
  return file.append(header).append(data);
}

ValidCase make_valid(Random& random) {
  Layout layout = valid_layout(random);
  std::string header = object(random, layout.members);
  header.append(static_cast<std::size_t>(random.below(64)), ' ');
  for (SafetensorsEntry& entry : layout.entries) {
    entry.begin += 8 + header.size();
    entry.end += 8 + header.size();
  }
  return {file_of(header, data_of(layout.data_bytes)), std::move(layout.entries)};
}

std::size_t malformed_classes() { return kClasses.size(); }

MalformedCase make_malformed(std::size_t class_index, Random& random) {
  MalformedCase result = kClasses[class_index].make(random);
  result.class_name = kClasses[class_index].name;
  if (result.rule == Rule::kHole && result.where.first == 8)
    result.where = {result.file.size() - 1, result.file.size() - 1};
  return result;
}

}  // namespace gov::test

#include "tests/text/grammar_test_support.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/utf8.h"
#include "tests/text/std_regex.h"
#include "tests/text/text_test_data.h"
#include "text/grammar/run.h"

namespace gov::text_test {

const std::vector<SchemaCase>& schema_cases() {
  static const std::vector<SchemaCase> cases = [] {
    std::vector<SchemaCase> out;
    std::ifstream file(data_path("schemas.jsonl"));
    for (std::string line; std::getline(file, line);) {
      const Json row = Json::parse(line);
      SchemaCase c{row.find("schema")->dump(), *row.find("schema"), {}, {}};
      for (const Json& text : row.find("valid")->array()) c.valid.push_back(text.string());
      for (const Json& text : row.find("invalid")->array()) c.invalid.push_back(text.string());
      out.push_back(std::move(c));
    }
    return out;
  }();
  return cases;
}

// ---- A validator by the specification, slow and plain
// -------------------------------------------------------------------

namespace {

std::u32string characters(std::string_view text) {
  std::u32string out;
  while (!text.empty()) {
    const Utf8Char c = utf8_next(text);
    out += c.code_point;
    text.remove_prefix(c.length);
  }
  return out;
}

bool same(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.is_array() && b.is_array())
    return std::equal(a.array().begin(), a.array().end(), b.array().begin(), b.array().end(), same);
  if (a.is_object() && b.is_object()) {
    for (const auto& [name, value] : a.object()) {
      if (b.find(name) == nullptr || !same(value, *b.find(name))) return false;
    }
    return a.object().size() == b.object().size();
  }
  return a == b;
}

class Validator {
 public:
  explicit Validator(const Json& root) : root_(root) {}

  std::optional<std::string> check(const Json& schema, const Json& v) {
    if (schema.is_bool()) return schema.boolean() ? std::nullopt : std::optional<std::string>("false");
    for (const auto& [name, value] : schema.object()) {
      if (!keyword(schema, name, value, v))
        return name + " " + value.dump().substr(0, 80) + ": " + v.dump().substr(0, 200);
    }
    return std::nullopt;
  }

 private:
  bool ok(const Json& schema, const Json& v) { return !check(schema, v); }

  static bool has_type(const std::string& type, const Json& v) {
    if (type == "null") return v.is_null();
    if (type == "boolean") return v.is_bool();
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "number") return v.is_number();
    return v.is_number() && std::floor(v.number()) == v.number();
  }

  const Json& target(const std::string& reference) {
    if (reference == "#here") return *root_.find("$defs")->find("a");
    const Json* at = &root_;
    std::string part;
    const auto go = [&] {
      for (const auto& [from, to] : {std::pair("~1", "/"), std::pair("~0", "~"), std::pair("%25", "%")}) {
        for (std::size_t i; (i = part.find(from)) != std::string::npos;)
          part.replace(i, std::string_view(from).size(), to);
      }
      at = at->find(part);
      part.clear();
    };
    for (std::size_t i = 2; i < reference.size(); ++i) {
      if (reference[i] == '/') go();
      else part += reference[i];
    }
    if (!part.empty()) go();
    return *at;
  }

  bool keyword(const Json& schema, const std::string& name, const Json& k, const Json& v) {
    if (name == "type") {
      if (k.is_string()) return has_type(k.string(), v);
      return std::any_of(k.array().begin(), k.array().end(), [&](const Json& t) { return has_type(t.string(), v); });
    }
    const auto holds = [&](const Json& s) { return ok(s, v); };
    if (name == "enum")
      return std::any_of(k.array().begin(), k.array().end(), [&](const Json& e) { return same(e, v); });
    if (name == "const") return same(k, v);
    if (name == "anyOf") return std::any_of(k.array().begin(), k.array().end(), holds);
    if (name == "allOf") return std::all_of(k.array().begin(), k.array().end(), holds);
    if (name == "oneOf") return std::count_if(k.array().begin(), k.array().end(), holds) == 1;
    if (name == "$ref") return ok(target(k.string()), v);
    if (v.is_string()) return string_keyword(name, k, v.string());
    if (v.is_number()) return number_keyword(name, k, v.number());
    if (v.is_array()) return array_keyword(schema, name, k, v.array());
    return !v.is_object() || object_keyword(schema, name, k, v);
  }

  // A pattern that std::regex reads as ECMA-262 does, whatever the bytes of the text.
  static bool simple(const std::string& pattern) {
    const bool words = pattern.find_first_of("\\.[?") != std::string::npos;
    return !words &&
           std::all_of(pattern.begin(), pattern.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  }

  bool string_keyword(const std::string& name, const Json& k, const std::string& v) {
    if (name == "minLength") return characters(v).size() >= static_cast<std::size_t>(k.integer());
    if (name == "maxLength") return characters(v).size() <= static_cast<std::size_t>(k.integer());
    if (name == "pattern") return !simple(k.string()) || std_regex_search(v, k.string());
    return true;  // other patterns, and format: check_schema_walks.py, with Python's engine
  }

  bool number_keyword(const std::string& name, const Json& k, double v) {
    if (name == "minimum") return v >= k.number();
    if (name == "maximum") return v <= k.number();
    if (name == "exclusiveMinimum") return v > k.number();
    if (name == "exclusiveMaximum") return v < k.number();
    if (name == "multipleOf") return std::fmod(v, k.number()) == 0;
    return true;
  }

  bool array_keyword(const Json& schema, const std::string& name, const Json& k, const Json::Array& v) {
    if (name == "minItems") return v.size() >= static_cast<std::size_t>(k.integer());
    if (name == "maxItems") return v.size() <= static_cast<std::size_t>(k.integer());
    if (name == "prefixItems" || (name == "items" && k.is_array())) {
      for (std::size_t i = 0; i < std::min(v.size(), k.array().size()); ++i) {
        if (!ok(k.array()[i], v[i])) return false;
      }
    }
    if ((name == "items" && !k.is_array()) || name == "additionalItems") {
      const Json* prefix = schema.find(name == "items" ? "prefixItems" : "items");
      for (std::size_t i = prefix == nullptr ? 0 : prefix->array().size(); i < v.size(); ++i) {
        if (!ok(k, v[i])) return false;
      }
    }
    return true;
  }

  bool object_keyword(const Json& schema, const std::string& name, const Json& k, const Json& v) {
    const Json::Object& members = v.object();
    if (name == "minProperties") return members.size() >= static_cast<std::size_t>(k.integer());
    if (name == "maxProperties") return members.size() <= static_cast<std::size_t>(k.integer());
    if (name == "required")
      return std::all_of(k.array().begin(), k.array().end(),
                         [&](const Json& n) { return v.find(n.string()) != nullptr; });
    if (name == "propertyNames")
      return std::all_of(members.begin(), members.end(), [&](const Json::Member& m) { return ok(k, Json(m.first)); });
    for (const auto& [key, value] : members) {
      const Json* properties = schema.find("properties");
      const Json* declared = properties == nullptr ? nullptr : properties->find(key);
      if (name == "properties" && declared != nullptr && !ok(*declared, value)) return false;
      bool patterned = false;
      if (const Json* patterns = schema.find("patternProperties")) {
        for (const auto& [pattern, below] : patterns->object()) {
          if (!std_regex_search(key, pattern)) continue;
          patterned = true;
          if (name == "patternProperties" && !ok(below, value)) return false;
        }
      }
      if (name == "additionalProperties" && declared == nullptr && !patterned && !ok(k, value)) return false;
    }
    return true;
  }

  const Json& root_;
};

}  // namespace

std::optional<std::string> schema_error(const Json& schema, const Json& document) {
  return Validator(schema).check(schema, document);
}

std::size_t accepted_prefix(const Grammar& grammar, std::string_view text, bool& complete) {
  GrammarThreads threads = start_threads(grammar.impl()), next;
  for (std::size_t i = 0; i < text.size(); ++i) {
    step_threads(grammar.impl(), threads, static_cast<std::uint8_t>(text[i]), next);
    if (next.empty()) {
      complete = is_complete(threads);
      return i;
    }
    std::swap(threads, next);
  }
  complete = is_complete(threads);
  return text.size();
}

bool accepts(const Grammar& grammar, std::string_view text) {
  bool complete = false;
  return accepted_prefix(grammar, text, complete) == text.size() && complete;
}

std::vector<std::int32_t> allowed_tokens(const TokenConstraint& constraint, std::int32_t vocab) {
  std::vector<std::uint32_t> words((static_cast<std::size_t>(vocab) + 31) / 32);
  constraint.allowed(words);
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    for (std::uint32_t bits = words[i]; bits != 0; bits &= bits - 1)
      out.push_back(static_cast<std::int32_t>(i * 32) + std::countr_zero(bits));
  }
  return out;
}

namespace {

// A measure of what is left to write; smaller is closer.
std::uint64_t distance(const Grammar::Impl& grammar, const GrammarThreads& threads) {
  using Phase = GrammarThread::Phase;
  std::uint64_t best = ~std::uint64_t{0};
  for (const GrammarThread& t : threads) {
    std::uint64_t here = 0;
    switch (t.phase) {
      case Phase::kDone: here = 0; break;
      case Phase::kObjectClose:
      case Phase::kArrayClose: here = 5 + t.count; break;
      case Phase::kObjectNext:
      case Phase::kArrayNext: here = 10 + t.count; break;
      case Phase::kTerminal:
      case Phase::kExtraName: {
        const Terminal& terminal = terminal_of(grammar, t);
        std::uint64_t left = terminal.dfa->shortest[t.state];
        if (terminal.min > t.count) left = std::max<std::uint64_t>(left, terminal.min - t.count);
        here = 1000 + 2 * left + (t.phase == Phase::kExtraName ? 3'000'000 : 0);
        break;
      }
      case Phase::kValue: here = 2'000'000 + t.count; break;
      case Phase::kColon: here = 2'100'000; break;
      case Phase::kName: here = 2'200'000; break;
      default: here = 4'000'000 + t.count;
    }
    // Arrays that want more items come closer with each.
    const bool wants = t.frame && !t.frame->object && t.frame->count < grammar.arrays[t.frame->spec].min;
    if (wants) here += std::uint64_t{9'000'000} * (grammar.arrays[t.frame->spec].min - t.frame->count);
    best = std::min(best, (t.frame ? t.frame->depth : 0) * std::uint64_t{1'000'000'000'000} + here);
  }
  return best;
}

}  // namespace

std::string random_walk(const Tokenizer& tokenizer, const std::shared_ptr<const Grammar>& grammar,
                        TokenConstraint constraint, std::size_t length, Random& random,
                        const std::function<void(const TokenConstraint&)>& at) {
  const Grammar::Impl& impl = grammar->impl();
  GrammarThreads threads = start_threads(impl), next;
  std::string text;
  for (std::size_t step = 0; step < length + 6000; ++step) {
    if (at) at(constraint);
    const std::vector<std::int32_t> allowed = allowed_tokens(constraint, tokenizer.vocab_size());
    if (allowed.empty()) {
      ADD_FAILURE() << "no token is allowed behind " << text;
      return text;
    }
    std::int32_t token = allowed[random.below(static_cast<std::uint32_t>(allowed.size()))];
    if (step >= length) {
      std::uint64_t best = ~std::uint64_t{0};
      for (const std::int32_t candidate : allowed) {
        const bool end = tokenizer.is_special(candidate);
        if (!end && tokenizer.token_bytes(candidate).size() > 1) continue;
        std::uint64_t here = 0;
        if (!end) {
          step_threads(impl, threads, static_cast<std::uint8_t>(tokenizer.token_bytes(candidate)[0]), next);
          here = 1 + distance(impl, next);
        }
        if (here < best) {
          best = here;
          token = candidate;
        }
      }
    }
    constraint.accept(token);
    if (constraint.ended()) return text;
    for (const char byte : tokenizer.token_bytes(token)) {
      step_threads(impl, threads, static_cast<std::uint8_t>(byte), next);
      std::swap(threads, next);
    }
    EXPECT_FALSE(threads.empty()) << text << "|" << tokenizer.token_bytes(token);
    if (threads.empty()) return text;
    text += tokenizer.token_bytes(token);
  }
  ADD_FAILURE() << "a walk without end: " << text.substr(0, 300);
  return text;
}

}  // namespace gov::text_test

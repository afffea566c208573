// gpt-oss-vision tokenize: text to token ids and back.

#include <charconv>

#include "base/json_writer.h"
#include "cli/common.h"
#include "cli/format.h"
#include "text/tokenizer.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision tokenize \"What is this?\"\n"
    "  gpt-oss-vision tokenize --file book.txt --count\n"
    "  gpt-oss-vision tokenize --tokenizer o200k_base.tiktoken --offsets --json < page.txt\n"
    "  gpt-oss-vision tokenize --decode \"2082 318 428 30\"";

struct TokenizeOptions {
  CommonOptions common;
  std::string tokenizer, file;
  std::string text;
  std::function<bool()> has_text;  // "" is a text too
  bool offsets = false, decode = false, count = false, special = false;
};

std::vector<std::int32_t> parse_ids(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  const auto is_separator = [](char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ',' || c == '[' || c == ']';
  };
  for (const char *p = text.data(), *end = p + text.size(); p != end;) {
    if (is_separator(*p)) {
      ++p;
      continue;
    }
    std::int32_t id = 0;
    const auto result = std::from_chars(p, end, id);
    if (result.ec != std::errc() || (result.ptr != end && !is_separator(*result.ptr))) {
      fail(ErrorCode::kInvalidArgument, "--decode: '{}' is not a token id",
           printable(std::string_view(p, static_cast<std::size_t>(end - p)), 20));
    }
    if (id < 0 || id >= tokenizer.vocab_size()) {
      fail(ErrorCode::kInvalidArgument, "--decode: token id {} is outside 0..{}", id, tokenizer.vocab_size() - 1);
    }
    ids.push_back(id);
    p = result.ptr;
  }
  return ids;
}

std::string input_text(const TokenizeOptions& o) {
  if (!o.file.empty()) return read_input(o.file);
  if (o.has_text()) return o.text;
  if (stdin_is_terminal()) throw CLI::ValidationError("tokenize", "give a text, --file or text on standard input");
  return read_input("-");
}

void print_tokens(const TokenizeOptions& o, const Tokenizer& tokenizer, const std::vector<TokenSpan>& tokens) {
  if (o.count) {
    const auto count = static_cast<std::int64_t>(tokens.size());
    put(o.common.json ? JsonWriter().begin_object().field("count", count).end_object().take() + "\n"
                      : fmt::format("{}\n", count));
    return;
  }
  if (o.common.json) {
    JsonWriter json;
    json.begin_object().key("ids").begin_array();
    for (const TokenSpan& token : tokens) json.value(token.id);
    json.end_array();
    if (o.offsets) {
      json.key("offsets").begin_array();
      for (const TokenSpan& token : tokens) {
        json.begin_array()
            .value(static_cast<std::uint64_t>(token.begin))
            .value(static_cast<std::uint64_t>(token.end))
            .end_array();
      }
      json.end_array();
    }
    put(json.end_object().take() + "\n");
    return;
  }
  std::string out;
  for (const TokenSpan& token : tokens) {
    if (o.offsets)
      out += fmt::format("{}\t{}\t{}\t{}\n", token.id, token.begin, token.end,
                         json_quote(tokenizer.token_bytes(token.id)));
    else out += fmt::format("{}{}", out.empty() ? "" : " ", token.id);
  }
  put(o.offsets ? out : out + "\n");
}

int run_tokenize(const Program& program, const TokenizeOptions& o) {
  const std::filesystem::path source =
      o.tokenizer.empty() ? resolve_model(o.common.model, program) : std::filesystem::path(o.tokenizer);
  const std::string text = input_text(o);
  const Tokenizer tokenizer = Tokenizer::load(source);
  if (o.decode) {
    const std::string decoded = tokenizer.decode(parse_ids(text, tokenizer), false);
    put(o.common.json ? JsonWriter().begin_object().field("text", decoded).end_object().take() + "\n" : decoded + "\n");
    return 0;
  }
  print_tokens(o, tokenizer,
               tokenizer.encode_with_offsets(text, o.special ? SpecialTokens::kAllow : SpecialTokens::kOrdinary));
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& root, Program& program) {
  const auto o = std::make_shared<TokenizeOptions>();
  CLI::App& app = *root.add_subcommand("tokenize", "Text to token ids, and back");
  const CLI::Option* text =
      app.add_option("text", o->text,
                     "Text, or with --decode ids; default: standard input (one line break at its end is removed)")
          ->type_name("TEXT");
  o->has_text = [text] { return text->count() > 0; };
  add_model_option(app, o->common);
  app.add_option("--tokenizer", o->tokenizer,
                 "tokenizer.json, vocab.json (merges.txt beside it), *.tiktoken, or a folder with one")
      ->type_name("FILE")
      ->excludes("--model");
  app.add_option("-f,--file", o->file, "Read the text from a file; - is standard input")
      ->type_name("FILE")
      ->excludes("text");
  app.add_flag("--offsets", o->offsets, "One token a line: id, first byte, byte after the last, bytes")
      ->excludes(app.add_flag("-d,--decode", o->decode,
                              "The input is ids, separated by spaces, commas or line breaks; print their text"));
  app.add_flag("--count", o->count, "Print only the number of tokens")->excludes("--decode");
  app.add_flag("--special", o->special,
               "Special tokens in the text become their ids; otherwise they are ordinary text");
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_tokenize(program, *o); }; });
}

}  // namespace gov::cli

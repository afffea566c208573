// Training data in lines: any bytes give a sample or an Error, in each of the forms and for both chat formats. What is
// accepted can be packed, trains no control token that a text wrote, and is the same when it is made again.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "train/packed_batch.h"
#include "train/record_index.h"
#include "train/source.h"

namespace {

using namespace gov;
using namespace gov::train;

// The bytes as tokens, and the control tokens of both chat forms.
Tokenizer byte_tokenizer() {
  std::string json = R"({"model":{"type":"BPE","vocab":{)";
  // GPT-2's printable stand-ins of the bytes.
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    json += (byte > 0 ? "," : "") + fmt::format("\"\\u{:04x}\":{}", printable ? byte : next++, byte);
  }
  json += R"(},"merges":[]},"added_tokens":[)";
  int id = 256;
  for (const char* token : {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>",
                            "<|call|>", "<|endoftext|>"})
    json += (id > 256 ? "," : "") + fmt::format(R"({{"id":{},"content":"{}","special":true,"single_word":false,)"
                                                R"("lstrip":false,"rstrip":false,"normalized":false}})",
                                                id, token),
        ++id;
  json += R"(],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
          R"("use_regex":true}})";
  return Tokenizer::from_json(json);
}

SampleRules make_rules(bool harmony) {
  Config config;
  config.vocab_size = 512;
  config.use_vision = true;
  config.vision.image_size = 14;
  DataConfig data;
  data.chat_format = harmony ? DataFormat::kHarmony : DataFormat::kPlain;
  return sample_rules(config, byte_tokenizer(), Preprocessor::for_size(14), data);
}

void run(const SampleRules& rules, SourceConfig::Kind kind, std::string_view line) {
  Sample sample;
  try {
    sample = jsonl_sample(rules, kind, line, "/nonexistent");
    check_sample(sample, rules.vocab_size, rules.image_rows, rules.pixels());
  } catch (const Error&) {
    return;
  }
  if (jsonl_sample(rules, kind, line, "/nonexistent").tokens != sample.tokens) std::abort();
  truncate(sample, 64, rules.image_rows);
  BatchPacker packer(64, rules.image_rows);
  if (!packer.add({&sample, 1})) std::abort();
  const PackedBatch batch = packer.take();
  // A plain model without tools is never trained to write a header, whatever a text says.
  if (rules.harmony || kind != SourceConfig::Kind::kLlava) return;
  for (const std::int32_t target : batch.targets)
    if (target == rules.tokens.start || target == rules.tokens.message) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const SampleRules plain = make_rules(false), harmony = make_rules(true);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const SampleRules* rules : {&plain, &harmony}) {
    run(*rules, SourceConfig::Kind::kChat, text);
    run(*rules, SourceConfig::Kind::kLlava, text);
    run(*rules, SourceConfig::Kind::kText, text);
  }
  std::size_t end = 0;
  const auto check = [&](const std::vector<Record>& records) {
    for (const Record& r : records) {
      if (r.begin >= r.end || r.end > size || r.begin < end) std::abort();
      end = r.end;
    }
    end = 0;
  };
  check(index_lines(text));
  check(index_paragraphs(text));
  try {
    check(index_json_array(text));
  } catch (const Error&) {
  }
  return 0;
}

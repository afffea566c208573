#pragma once
// Source: samples by number. What a file or a generator has to offer, ready for the loader.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/draw_order.h"
#include "train/sample_rules.h"

namespace gov::train {

struct Source {
  std::string name;
  std::int64_t size = 0;  // samples of one epoch
  double weight = 0;      // as in SourceShape
  // The samples of entry `index` in its `epoch`-th pass; they belong together and go into one batch. The same arguments
  // give the same samples. Called from several threads. An Error says what is wrong with the entry.
  std::function<std::vector<Sample>(std::int64_t index, std::int64_t epoch)> make;
  std::function<std::string(std::int64_t index)> where;  // "file:line", for reports
};

std::vector<SourceShape> shapes_of(const std::vector<Source>& sources);

// Opens what the configuration names; the path of shards may be a folder of them. Error as the readers', with the path;
// kInvalidArgument for a source without samples.
Source open_source(const SourceConfig& config, std::shared_ptr<const SampleRules> rules, std::uint64_t seed);
std::vector<Source> open_sources(const std::vector<SourceConfig>& configs, std::shared_ptr<const SampleRules> rules,
                                 std::uint64_t seed);

// Plain text: the whole of it is trained, with the tokenizer's <|endoftext|> behind it.
Sample text_sample(const SampleRules& rules, std::string_view text);
// One line of a chat, LLaVA or text file ({"text": ...}). Images are read.
Sample jsonl_sample(const SampleRules& rules, SourceConfig::Kind kind, std::string_view line,
                    const std::filesystem::path& image_root);

// Tokenises a source once: shards of about max_tokens, "<stem>-00000.safetensors" and so on, in `folder`, in the order
// of the file. Images stay references: their paths are written as the data has them, and data: addresses are refused.
// Returns the number of documents; bad ones are counted and left out.
struct PrepareReport {
  std::int64_t documents = 0, bad = 0, tokens = 0, shards = 0;
  std::string first_bad;  // "file:line: reason"
};
PrepareReport prepare_shards(const SourceConfig& config, const SampleRules& rules, const std::filesystem::path& folder,
                             const std::string& stem, std::int64_t max_tokens);

}  // namespace gov::train

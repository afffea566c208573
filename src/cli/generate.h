#pragma once
// The pieces of `generate`: its options, and how answers are printed.

#include "cli/common.h"
#include "cli/prompt_format.h"
#include "cli/sampling_options.h"
#include "text/tokenizer.h"

namespace gov::cli {

struct GenerateOptions {
  CommonOptions common;
  std::vector<std::string> prompts, images;
  std::string prompt_file;
  std::string format = "chat";          // chat, raw
  std::string image_position = "auto";  // auto, prefix, inline
  std::string system;
  bool special = false, show_special = false, stats = false, stream = false;
  int n = 1;
  GenerationOptions generation;  // but for the sampling
  SamplingOptions sampling;
  PromptFormatOptions prompt_format;
};

// Prints answers as they come or when all are done. One per run; prompts are numbered from 0.
class AnswerPrinter {
 public:
  AnswerPrinter(const GenerateOptions& o, const Tokenizer& tokenizer, std::size_t prompts, bool show_special);
  // The callback for the tokens of one prompt; it must not outlive the printer.
  std::function<void(const TokenEvent&)> on_token(std::size_t prompt);
  // After the run. seed: what was used.
  void finish(std::size_t prompt, const RequestResult& result, std::uint64_t seed);

 private:
  void stream_event(std::size_t prompt, const TokenEvent& event);
  std::string choice_json(std::size_t prompt, const RequestResult& result, const Completion& choice,
                          std::uint64_t seed) const;
  std::string full_text(const Completion& choice) const;

  const GenerateOptions& o_;
  const Tokenizer& tokenizer_;
  bool single_;        // one answer: its text is printed as it comes, without a heading
  bool show_special_;  // special tokens are printed too
  std::size_t prompts_;
  std::unique_ptr<StreamDecoder> decoder_;  // of the single answer, with show_special
  bool printed_ = false;
};

}  // namespace gov::cli

#pragma once
// Progress of a long piece of work on standard error: a bar with rate and time left on a terminal, JSON lines for
// programs, nothing otherwise.

#include <string>

#include "base/timer.h"
#include "cli/common.h"
#include "engine/engine.h"

namespace gov::cli {

class Progress {
 public:
  enum class Unit { kBytes, kTokens };
  Progress(std::string label, double total, Unit unit, const CommonOptions& o);
  ~Progress();  // removes the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(double done);  // cheap: draws at most ten times a second, and at the end
  void clear();              // removes the bar, for other output

 private:
  void draw(double done, double seconds);

  std::string label_;
  double total_;
  Unit unit_;
  bool json_, bar_;
  Timer timer_;
  double drawn_at_ = -1;
  bool visible_ = false;
};

// The progress of prompts of `rows` rows, pictures included, until the first token comes; nothing for short ones.
class PromptProgress {
 public:
  PromptProgress(const Engine& engine, std::int64_t rows, const CommonOptions& o);
  void update();  // behind a step of the engine
  void end();     // a token is there; before its text is shown, or the bar would be in its way

 private:
  const Engine& engine_;
  std::int64_t before_;  // rows of earlier prompts
  bool ended_ = false;
  Progress progress_;
};

}  // namespace gov::cli

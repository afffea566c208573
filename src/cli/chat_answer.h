#pragma once
// One answer of the model.

#include <atomic>
#include <functional>

#include "cli/chat_conversation.h"
#include "cli/chat_settings.h"
#include "cli/common.h"

namespace gov::cli {

struct ChatAnswer {
  std::vector<HarmonyMessage> messages;  // whole or, when it was stopped, as far as they came
  FinishReason finish_reason = FinishReason::kStop;
  std::int64_t prompt_tokens = 0, cached_tokens = 0, image_tokens = 0, tokens = 0;
  double first_token_seconds = 0, total_seconds = 0;
  std::uint64_t seed = 0;

  double tokens_per_second() const;  // behind the first one; 0 if there is no second
};

struct ChatAnswerOptions {
  ChatFormat format = ChatFormat::kPlain;
  ChatSettings settings;
  std::vector<ops::LogitBias> logit_bias;
  const std::atomic<bool>* cancel = nullptr;
  // Called with text as it comes; analysis: it is reasoning.
  std::function<void(bool analysis, std::string_view text)> on_text;
};

// Runs the engine until the answer ends or `cancel` is set. Errors as Engine::submit's and take's.
ChatAnswer answer_chat(Session& session, ChatPrompt prompt, const ChatAnswerOptions& options,
                       const CommonOptions& common);

}  // namespace gov::cli

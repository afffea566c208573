#include "train/chat_sample.h"

#include <algorithm>

#include "base/error.h"

namespace gov::train {
namespace {

bool is_instructions(const HarmonyMessage& m) {
  return m.role == HarmonyRole::kSystem || m.role == HarmonyRole::kDeveloper;
}

bool uses_tools(const ChatRecord& record) {
  return !record.tools.empty() || std::any_of(record.messages.begin(), record.messages.end(), [](const auto& m) {
    return m.role == HarmonyRole::kTool || m.is_call();
  });
}

HarmonyMessage text_message(HarmonyRole role, std::string text) {
  HarmonyMessage message{.role = role};
  message.content.push_back({ContentPart::Kind::kText, std::move(text)});
  return message;
}

// As the server does: harmony's own system message, instructions as developer messages, tools in the first.
std::vector<HarmonyMessage> harmony_messages(const SampleRules& rules, const ChatRecord& record) {
  SystemContent system;
  system.current_date = rules.date;
  system.reasoning_effort = rules.reasoning;
  std::vector<HarmonyMessage> out{text_message(HarmonyRole::kSystem, system_text(system, !record.tools.empty()))};
  DeveloperContent developer;
  if (!record.tools.empty()) developer.tools.push_back({"functions", std::nullopt, record.tools});
  bool leading = true;
  const auto flush = [&] {
    if (std::string text = developer_text(developer); !text.empty())
      out.push_back(text_message(HarmonyRole::kDeveloper, std::move(text)));
    developer = {};
    leading = false;
  };
  for (const HarmonyMessage& message : record.messages) {
    if (!is_instructions(message)) {
      if (leading) flush();
      out.push_back(message);
      continue;
    }
    const std::string text = message.text();
    if (!developer.instructions.empty() && !text.empty()) developer.instructions += "\n\n";
    developer.instructions += text;
    if (!leading) flush();
  }
  return out;
}

std::vector<std::int32_t> render(const SampleRules& rules, const ChatRecord& record, bool harmony) {
  if (harmony) {
    HarmonyRenderOptions options;
    options.training = true;
    options.add_generation_prompt = false;
    options.image_token_id = rules.image_token_id;
    return render_harmony(rules.tokenizer, rules.tokens, harmony_messages(rules, record), options);
  }
  if (uses_tools(record))
    fail(ErrorCode::kInvalidArgument, "tools: this model's tokenizer has no tokens for tool calls");
  std::vector<ChatMessage> messages;
  for (const HarmonyMessage& message : record.messages) {
    if (message.channel != "analysis") messages.push_back({harmony_role_name(message.role), message.content});
  }
  ChatOptions options;
  options.format = ChatFormat::kPlain;
  options.add_generation_prompt = false;
  options.image_token_id = rules.image_token_id;
  return render_chat(rules.tokenizer, messages, options);
}

// One message of a rendered conversation: where its parts begin.
struct Span {
  std::size_t start, role_end, message, end;  // <|start|>, first token behind the role, <|message|>, the end token
  bool assistant = false, analysis = false;
};

bool is_assistant(std::string_view role) {
  return role == "assistant" || role.starts_with("assistant ") || role.starts_with("assistant:");
}

std::vector<Span> find_messages(const SampleRules& rules, std::span<const std::int32_t> ids) {
  const HarmonyTokens& t = rules.tokens;
  std::vector<Span> out;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != t.start) continue;
    Span span{i, i + 1, i + 1, ids.size() - 1};
    while (span.role_end < ids.size() && !rules.tokenizer.is_special(ids[span.role_end])) ++span.role_end;
    span.assistant = is_assistant(rules.tokenizer.decode(ids.subspan(i + 1, span.role_end - i - 1)));
    if (span.role_end + 1 < ids.size() && ids[span.role_end] == t.channel) {
      std::size_t end = span.role_end + 1;
      while (end < ids.size() && !rules.tokenizer.is_special(ids[end])) ++end;
      span.analysis = rules.tokenizer.decode(ids.subspan(span.role_end + 1, end - span.role_end - 1)) == "analysis";
    }
    span.message = span.role_end;
    while (span.message + 1 < ids.size() && ids[span.message] != t.message) ++span.message;
    for (std::size_t j = span.message; j < ids.size(); ++j) {
      if (ids[j] != t.end && ids[j] != t.return_token && ids[j] != t.call) continue;
      span.end = j;
      break;
    }
    i = span.end;
    out.push_back(span);
  }
  return out;
}

}  // namespace

ChatLabels label_chat(const SampleRules& rules, std::span<const std::int32_t> ids, std::span<const double> weights,
                      bool harmony) {
  const HarmonyTokens& t = rules.tokens;
  ChatLabels out{{ids.begin(), ids.end()}, std::vector<float>(ids.size(), rules.train_all ? 1.f : 0.f)};
  const std::vector<Span> spans = find_messages(rules, ids);
  std::size_t next_weight = 0;
  bool goes_on = false;  // the message before was the assistant's and did not end its turn
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    if (!span.assistant) {
      goes_on = false;
      continue;
    }
    const float weight = next_weight < weights.size() ? static_cast<float>(weights[next_weight]) : 1.f;
    if (!span.analysis) ++next_weight;
    const bool followed = i + 1 < spans.size() && spans[i + 1].assistant;
    const bool ends_turn = !followed && ids[span.end] == t.end && !span.analysis;
    if (ends_turn && t.return_token >= 0) out.labels[span.end] = t.return_token;
    const std::size_t first = !harmony ? span.message + 1 : goes_on ? span.start : span.role_end;
    std::fill(out.weights.begin() + static_cast<std::ptrdiff_t>(first),
              out.weights.begin() + static_cast<std::ptrdiff_t>(span.end) + 1, weight);
    goes_on = followed && ids[span.end] == t.end;
  }
  return out;
}

Sample chat_sample(const SampleRules& rules, const ChatRecord& record, std::span<const SharedPixels> images) {
  const bool harmony = rules.harmony || (rules.has_harmony_tokens && uses_tools(record));
  const std::vector<std::int32_t> ids = render(rules, record, harmony);
  std::vector<double> weights;
  for (std::size_t i = 0; i < record.messages.size(); ++i) {
    const HarmonyMessage& message = record.messages[i];
    if (message.role == HarmonyRole::kAssistant && message.channel != "analysis") weights.push_back(record.weights[i]);
  }
  const ChatLabels labels = label_chat(rules, ids, weights, harmony);
  Sample sample;
  std::size_t next = 0;
  if (!rules.inline_images)
    for (const SharedPixels& image : images) sample.add_image(image, rules.image_rows);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool is_image = rules.inline_images && ids[i] == *rules.image_token_id && next < images.size();
    if (is_image) sample.add_image(images[next++], rules.image_rows);
    else sample.add(ids[i], labels.labels[i], labels.weights[i]);
  }
  return sample;
}

Sample chat_sample(const SampleRules& rules, const ChatRecord& record, const std::filesystem::path& image_root) {
  std::vector<SharedPixels> images;
  for (const std::string& reference : record.images)
    images.push_back(read_image_reference(rules, reference, image_root));
  return chat_sample(rules, record, images);
}

}  // namespace gov::train

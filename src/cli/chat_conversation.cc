#include "cli/chat_conversation.h"

#include <algorithm>

#include "base/utf8.h"
#include "cli/common.h"
#include "image/image.h"
#include "io/mapped_file.h"

namespace gov::cli {
namespace {

constexpr const char* kFinal = "final";
constexpr const char* kAnalysis = "analysis";

std::string joined(const std::vector<HarmonyMessage>& messages, bool analysis) {
  std::string out;
  for (const HarmonyMessage& message : messages) {
    if (message.is_call() || (message.channel == kAnalysis) != analysis) continue;
    const std::string text = message.text();
    if (!out.empty() && !text.empty()) out += "\n\n";
    out += text;
  }
  return out;
}

std::vector<ContentPart> question_parts(const ChatTurn& turn) {
  std::vector<ContentPart> parts(turn.pictures.size(), {ContentPart::Kind::kImage, ""});
  if (!turn.question.empty() || parts.empty()) parts.push_back({ContentPart::Kind::kText, turn.question});
  return parts;
}

std::vector<std::int32_t> plain_ids(const ModelPackage& package, const Conversation& conversation, std::size_t first) {
  std::vector<ChatMessage> messages;
  if (!conversation.system.empty()) messages.push_back({"system", {{ContentPart::Kind::kText, conversation.system}}});
  for (std::size_t i = first; i < conversation.turns.size(); ++i) {
    const ChatTurn& turn = conversation.turns[i];
    messages.push_back({"user", question_parts(turn)});
    const bool answered = i + 1 < conversation.turns.size() && !turn.answer.empty();
    if (answered) messages.push_back({"assistant", {{ContentPart::Kind::kText, turn.text()}}});
  }
  ChatOptions options;
  options.format = ChatFormat::kPlain;
  return render_chat(package.tokenizer, messages, options);
}

std::vector<std::int32_t> harmony_ids(const ModelPackage& package, const Conversation& conversation,
                                      const PromptFormat& format, std::size_t first) {
  const auto tokens = HarmonyTokens::find(package.tokenizer);
  if (!tokens) fail(ErrorCode::kUnsupported, "the model's tokenizer lacks harmony's control tokens");
  SystemContent system;
  system.current_date = format.date;
  system.reasoning_effort = format.effort;
  const auto message = [](HarmonyRole role, std::vector<ContentPart> content) {
    HarmonyMessage m;
    m.role = role;
    m.content = std::move(content);
    return m;
  };
  const auto text = [](std::string t) { return std::vector<ContentPart>{{ContentPart::Kind::kText, std::move(t)}}; };
  std::vector<HarmonyMessage> messages{message(HarmonyRole::kSystem, text(system_text(system, false)))};
  DeveloperContent developer;
  developer.instructions = conversation.system;
  if (!conversation.system.empty())
    messages.push_back(message(HarmonyRole::kDeveloper, text(developer_text(developer, format.harmony_template))));
  for (std::size_t i = first; i < conversation.turns.size(); ++i) {
    const ChatTurn& turn = conversation.turns[i];
    messages.push_back(message(HarmonyRole::kUser, question_parts(turn)));
    if (i + 1 < conversation.turns.size()) messages.insert(messages.end(), turn.answer.begin(), turn.answer.end());
  }
  HarmonyRenderOptions options;
  options.format = format.harmony_template;
  if (package.model.config.image_token_id >= 0)
    options.image_token_id = static_cast<std::int32_t>(package.model.config.image_token_id);
  return render_harmony(package.tokenizer, *tokens, messages, options);
}

}  // namespace

std::string ChatTurn::text() const { return joined(answer, false); }
std::string ChatTurn::reasoning() const { return joined(answer, true); }

void fill_picture(ChatPicture& picture, const Preprocessor& preprocessor) {
  const auto bytes = std::as_bytes(std::span(picture.bytes.data(), picture.bytes.size()));
  const Image image = decode_image(bytes, preprocessor.decode_options());
  const auto format = detect_image_format(bytes);
  picture.description =
      fmt::format("{}, {} x {}", format ? image_format_name(*format) : "picture", image.width, image.height);
  picture.pixels = pixel_values(image, preprocessor);
}

std::shared_ptr<const ChatPicture> load_chat_picture(const std::filesystem::path& file,
                                                     const Preprocessor& preprocessor) {
  auto picture = std::make_shared<ChatPicture>();
  picture->name = printable(file.filename().string());
  picture->bytes = read_text_file(file, preprocessor.decode_options().limits.max_bytes);
  try {
    fill_picture(*picture, preprocessor);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", printable(file.string()), error.what()));
  }
  return picture;
}

ChatPrompt chat_prompt(const ModelPackage& package, const Conversation& conversation, const PromptFormat& format,
                       std::size_t first) {
  const Config& config = package.model.config;
  ChatPrompt prompt;
  prompt.ids = format.format == ChatFormat::kPlain ? plain_ids(package, conversation, first)
                                                   : harmony_ids(package, conversation, format, first);
  for (std::size_t i = first; i < conversation.turns.size(); ++i) {
    for (const auto& picture : conversation.turns[i].pictures) prompt.images.push_back(picture->pixels);
  }
  const auto places = std::count(prompt.ids.begin(), prompt.ids.end(), config.image_token_id);
  prompt.rows = static_cast<std::int64_t>(prompt.ids.size()) - places +
                static_cast<std::int64_t>(prompt.images.size()) * config.vision.tokens();
  return prompt;
}

}  // namespace gov::cli

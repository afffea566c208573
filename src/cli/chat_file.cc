// Conversations in files.

#include <optional>

#include "base/base64.h"
#include "base/json.h"
#include "base/utf8.h"
#include "cli/chat_conversation.h"
#include "cli/chat_text.h"
#include "cli/common.h"
#include "cli/format.h"
#include "image/image.h"
#include "io/mapped_file.h"

namespace gov::cli {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{512} << 20;  // many pictures of the largest size
constexpr std::string_view kFormatName = "gpt-oss-vision chat";
constexpr JsonLimits kLimits;

const char* mime_type(std::string_view bytes) {
  const auto format = detect_image_format(std::as_bytes(std::span(bytes.data(), bytes.size())));
  switch (format.value_or(ImageFormat::kPng)) {
    case ImageFormat::kPng: return "image/png";
    case ImageFormat::kJpeg: return "image/jpeg";
    case ImageFormat::kWebp: return "image/webp";
    case ImageFormat::kGif: return "image/gif";
    case ImageFormat::kBmp: return "image/bmp";
  }
  return "image/png";
}

void write_question(JsonWriter& json, const ChatTurn& turn) {
  json.begin_object().field("role", "user").key("content");
  if (turn.pictures.empty()) {
    json.value(turn.question).end_object();
    return;
  }
  json.begin_array();
  for (const auto& picture : turn.pictures) {
    json.begin_object().field("type", "image_url").key("image_url").begin_object();
    json.field("url", fmt::format("data:{};base64,{}", mime_type(picture->bytes), base64_encode(picture->bytes)));
    json.end_object().field("name", picture->name).end_object();
  }
  json.begin_object().field("type", "text").field("text", turn.question).end_object();
  json.end_array().end_object();
}

std::string chat_json(const Conversation& conversation, const std::string& model) {
  JsonWriter json;
  json.begin_object().field("format", kFormatName).field("version", 1).field("model", model);
  json.field("saved", utc_time()).key("messages").begin_array();
  if (!conversation.system.empty())
    json.begin_object().field("role", "system").field("content", conversation.system).end_object();
  for (const ChatTurn& turn : conversation.turns) {
    write_question(json, turn);
    if (turn.answer.empty()) continue;
    json.begin_object().field("role", "assistant").field("content", turn.text());
    const std::string reasoning = turn.reasoning();
    if (!reasoning.empty()) json.field("reasoning", reasoning);
    json.end_object();
  }
  return json.end_array().end_object().take() + "\n";
}

std::string quoted(const std::string& text) {
  std::string out = "> ";
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "> ";
  }
  return out;
}

// For people's eyes, and perhaps their terminal's: without control characters.
std::string chat_markdown(const Conversation& conversation, const std::string& model) {
  std::string out = fmt::format("# Chat with {}\n", model);
  if (!conversation.system.empty()) out += fmt::format("\nInstructions:\n\n{}\n", quoted(conversation.system));
  for (const ChatTurn& turn : conversation.turns) {
    out += "\n## User\n";
    for (const auto& picture : turn.pictures)
      out += fmt::format("\nPicture: {} ({})\n", picture->name, picture->description);
    if (!turn.question.empty()) out += fmt::format("\n{}\n", turn.question);
    if (turn.answer.empty()) continue;
    out += "\n## Assistant\n";
    if (const std::string reasoning = turn.reasoning(); !reasoning.empty())
      out += fmt::format("\n{}\n", quoted(reasoning));
    if (const std::string text = turn.text(); !text.empty()) out += fmt::format("\n{}\n", text);
  }
  return sanitize(out);
}

// Reads the messages of one file; every fault names it and the message.
class Reader {
 public:
  Reader(std::string file, const Preprocessor& preprocessor) : file_(std::move(file)), preprocessor_(preprocessor) {}

  Conversation read(const Json& root) {
    const Json* messages = root.find("messages");
    if (messages == nullptr || !messages->is_array()) wrong("there is no array \"messages\"");
    for (const Json& message : messages->array()) {
      ++number_;
      read_message(message);
    }
    return std::move(conversation_);
  }

 private:
  [[noreturn]] void wrong(std::string_view what) const {
    const std::string where = number_ > 0 ? fmt::format("message {}: ", number_) : "";
    fail(ErrorCode::kCorrupt, "{} is no saved conversation: {}{}", file_, where, what);
  }

  void read_message(const Json& message) {
    const Json* role = message.find("role");
    const Json* content = message.find("content");
    if (role == nullptr || !role->is_string()) wrong("it has no role");
    if (content == nullptr) wrong("it has no content");
    const std::string& name = role->string();
    ChatTurn read;
    read_content(*content, read);
    if (name == "user") {
      conversation_.turns.push_back(std::move(read));
      return;
    }
    if (!read.pictures.empty()) wrong("only a user's message can have a picture");
    if (name == "system" || name == "developer") {
      if (!conversation_.system.empty()) conversation_.system += "\n\n";
      conversation_.system += read.question;
    } else if (name == "assistant") {
      if (conversation_.turns.empty()) wrong("an answer without a question");
      if (const Json* reasoning = message.find("reasoning"); reasoning != nullptr && reasoning->is_string())
        add_answer("analysis", reasoning->string());
      add_answer("final", read.question);
    } else {
      wrong(fmt::format("the role '{}' is not user, assistant, system or developer", printable(name, 40)));
    }
  }

  void add_answer(const char* channel, std::string text) {
    HarmonyMessage message;
    message.role = HarmonyRole::kAssistant;
    message.channel = channel;
    message.content.push_back({ContentPart::Kind::kText, std::move(text)});
    conversation_.turns.back().answer.push_back(std::move(message));
  }

  void read_content(const Json& content, ChatTurn& turn) {
    if (content.is_string()) {
      turn.question = content.string();
      return;
    }
    if (!content.is_array()) wrong("its content is neither a string nor an array");
    for (const Json& part : content.array()) {
      const Json* text = part.find("text");
      const Json* image = part.find("image_url");
      const Json* url = image != nullptr ? image->find("url") : nullptr;
      if (text != nullptr && text->is_string()) turn.question += text->string();
      else if (url != nullptr && url->is_string()) turn.pictures.push_back(read_picture(part, url->string()));
      else wrong("a part of its content is neither text nor a picture");
    }
  }

  std::shared_ptr<const ChatPicture> read_picture(const Json& part, std::string_view url) {
    const std::size_t comma = url.find(";base64,");
    auto picture = std::make_shared<ChatPicture>();
    const bool data = url.starts_with("data:image/") && comma != std::string_view::npos;
    if (!data || !base64_decode(url.substr(comma + 8), picture->bytes)) wrong("a picture is no data: URL in base64");
    const Json* name = part.find("name");
    picture->name = name != nullptr && name->is_string() ? printable(name->string(), 80) : "picture";
    try {
      fill_picture(*picture, preprocessor_);
    } catch (const Error& error) {
      wrong(fmt::format("a picture: {}", error.what()));
    }
    return picture;
  }

  std::string file_;
  const Preprocessor& preprocessor_;
  Conversation conversation_;
  int number_ = 0;
};

}  // namespace

void save_chat(const std::filesystem::path& file, const Conversation& conversation, const std::string& model) {
  const std::string extension = file.extension().string();
  std::string text;
  if (extension == ".json") text = chat_json(conversation, model);
  else if (extension == ".md" || extension == ".markdown") text = chat_markdown(conversation, model);
  else
    fail(ErrorCode::kInvalidArgument, "{}: a name that ends in .json or .md says which form", printable(file.string()));
  write_file_atomic(file, std::as_bytes(std::span(text.data(), text.size())));
}

Conversation load_chat(const std::filesystem::path& file, const Preprocessor& preprocessor) {
  const std::string name = printable(file.string());
  const std::string text = read_text_file(file, kMostBytes);
  Json root;
  try {
    root = Json::parse(text, kLimits);
  } catch (const Error& error) {
    fail(ErrorCode::kCorrupt, "{} is no saved conversation: {}", name, error.what());
  }
  return Reader(name, preprocessor).read(root);
}

}  // namespace gov::cli

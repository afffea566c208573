#pragma once
// OpenAI's harmony: messages to prompt ids, and generated ids back to messages as they come in. Control tokens are
// written only here, as ids; every text from outside is encoded with special tokens disabled, so that no text can forge
// a header. Format: `docs/format.md` of openai/harmony.

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace gov {

// Ids of the control tokens, found by their texts: nano has the same tokens under other ids than o200k_harmony.
struct HarmonyTokens {
  std::int32_t start, end, message, channel, constrain, return_token, call;
  // Empty if the tokenizer lacks one of them.
  static std::optional<HarmonyTokens> find(const Tokenizer& tokenizer);
};

enum class HarmonyRole { kSystem, kDeveloper, kUser, kAssistant, kTool };

// One message. Names, recipients and channels match [A-Za-z0-9_.-]{1,64}.
struct HarmonyMessage {
  HarmonyRole role = HarmonyRole::kUser;
  std::string name;          // kTool: the tool's full name, e.g. "functions.f"; other roles: an optional author name
  std::string recipient;     // "" or "all": not written
  std::string channel;       // "", "analysis", "commentary", "final"
  std::string content_type;  // "", "json": written behind <|constrain|>; or a bare word such as "code"
  std::vector<ContentPart> content;
  // The ids that the model generated for this message, from behind <|start|>assistant to its end token. If not empty
  // they are used again as they are (with <|end|> for <|return|>), and the fields above are not rendered.
  std::vector<std::int32_t> generated;
};

struct ToolFunction {
  std::string name;
  std::string description;
  std::optional<Json> parameters;  // a JSON schema
};

struct ToolNamespace {
  std::string name;  // "functions", or of a built-in tool
  std::optional<std::string> description;
  std::vector<ToolFunction> functions;
};
ToolNamespace browser_tool();  // the built-in tools, with OpenAI's texts
ToolNamespace python_tool();

struct ResponseFormat {
  std::string name, description;
  Json schema;
};

struct SystemContent {
  std::string model_identity = "You are ChatGPT, a large language model trained by OpenAI.";
  std::string knowledge_cutoff = "2024-06";
  std::string current_date;                 // YYYY-MM-DD; empty: no date line
  std::string reasoning_effort = "medium";  // low, medium, high
  std::vector<ToolNamespace> builtin_tools;
};

struct DeveloperContent {
  std::string instructions;
  std::vector<ToolNamespace> tools;  // rendered sorted by name; functions keep their order
  std::optional<ResponseFormat> response_format;
};

// The texts of these messages. `with_functions`: the developer message has functions, so the channels' note names them.
std::string system_text(const SystemContent& system, bool with_functions);
std::string developer_text(const DeveloperContent& developer);  // empty: no developer message
// A namespace in harmony's TypeScript-like form.
std::string tool_namespace_text(const ToolNamespace& tools);

struct HarmonyRenderOptions {
  enum class Order { kChannelFirst, kRecipientFirst };  // kRecipientFirst: as harmony 0.0.8 renders
  Order order = Order::kChannelFirst;
  bool preserve_thinking = false;     // keep the analysis of past turns
  bool add_generation_prompt = true;  // ends with <|start|>assistant
  bool training = false;              // the last final message ends in <|return|>
  std::optional<std::int32_t> image_token_id = std::nullopt;  // as in ChatOptions
};

// Ids of the whole conversation; system and developer messages are messages with these texts. Past analysis is dropped
// by harmony.md's rule: when its turn reached `final` and a later user message exists. Error kInvalidArgument for a name
// that does not match, text that is not UTF-8, an image outside of user and tool messages.
std::vector<std::int32_t> render_harmony(const Tokenizer& tokenizer, const HarmonyTokens& tokens,
                                         std::span<const HarmonyMessage> messages,
                                         const HarmonyRenderOptions& options = {});

struct HarmonyEvent {
  enum class Kind { kMessageStart, kDelta, kMessageEnd };
  Kind kind = Kind::kDelta;
  std::int32_t message = 0;   // counts the messages of this parse
  HarmonyMessage header;      // kMessageStart: role, name, recipient, channel, content_type, after all repairs
  std::string text;           // kDelta: whole UTF-8 characters; may be empty for kMessageEnd's last piece
  std::int32_t end_token = -1;  // kMessageEnd: the id that ended it, or -1 where the output just stopped
};

// What was put right, by kind; shown in the server's metrics.
enum class HarmonyRepair {
  kExtraHeaderWords, kMissingStart, kStrayEnd, kBadChannel, kControlInName, kConstrainAsRecipient,
  kMissingNamespace, kUnknownTool, kMissingMessageToken, kUnfinishedHeader, kCount
};
const char* harmony_repair_name(HarmonyRepair repair);

// Never throws on model output, whatever it is. One token in, events out.
class HarmonyParser {
 public:
  struct Options {
    // The prompt ended with <|start|>assistant (true), or after the header of a final message (false: plain models).
    bool in_header = true;
    std::vector<std::string> tools;  // declared full names ("functions.f", "browser.search"), for repairs
  };
  HarmonyParser(const Tokenizer& tokenizer, const HarmonyTokens& tokens, Options options);
  void append(std::int32_t token, std::vector<HarmonyEvent>& events);
  void finish(std::vector<HarmonyEvent>& events);  // the output ended; the parser can take no more
  const std::array<std::int32_t, static_cast<std::size_t>(HarmonyRepair::kCount)>& repairs() const { return repairs_; }

 private:
  Tokenizer tokenizer_;
  HarmonyTokens tokens_;
  Options options_;
  std::array<std::int32_t, static_cast<std::size_t>(HarmonyRepair::kCount)> repairs_{};
};

}  // namespace gov

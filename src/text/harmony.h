#pragma once
// OpenAI's harmony: messages to prompt ids, and generated ids back to messages as they come in. Control tokens are
// written only here, as ids; every text from outside is encoded with special tokens disabled, so that no text can forge
// a header. Format: `docs/format.md` of openai/harmony. Texts and ids are those of openai-harmony 0.0.8.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace gov {

// Ids of the control tokens, found by their texts: nano has the same tokens under other ids than o200k_harmony. -1 is
// no token: a parser of plain text (Options::in_header false) can do without any of them.
struct HarmonyTokens {
  std::int32_t start = -1, end = -1, message = -1, channel = -1, constrain = -1, return_token = -1, call = -1;
  // Empty if the tokenizer lacks one of them.
  static std::optional<HarmonyTokens> find(const Tokenizer& tokenizer);
};

enum class HarmonyRole { kSystem, kDeveloper, kUser, kAssistant, kTool };
const char* harmony_role_name(HarmonyRole role);

// One message. Author names and channels match [A-Za-z0-9_.-]{1,64}, recipients and tools' full names (with their
// namespace) the same with up to 129 characters, content types with or without <|constrain|> before them.
struct HarmonyMessage {
  HarmonyRole role = HarmonyRole::kUser;
  std::string name = {};       // kTool: the tool's full name, e.g. "functions.f"; other roles: an optional author name
  std::string recipient = {};  // "" or "all": not written, and no call
  std::string channel = {};    // "", "analysis", "commentary", "final"
  std::string content_type = {};  // "", "json": written behind <|constrain|>; or a bare word such as "code"
  std::vector<ContentPart> content = {};
  // The ids that the model generated for this message, from behind <|start|>assistant to its end token. If not empty
  // they are used again as they are (with <|end|> for <|return|>, and an end token if they have none), and of the
  // fields above only the role and the channel matter, to know past analysis.
  std::vector<std::int32_t> generated = {};

  // All text parts joined.
  std::string text() const;
  bool is_call() const { return role == HarmonyRole::kAssistant && !recipient.empty() && recipient != "all"; }
};

struct ToolFunction {
  std::string name;
  std::string description = {};
  std::optional<Json> parameters = std::nullopt;  // a JSON schema
};

struct ToolNamespace {
  std::string name;  // "functions", or of a built-in tool
  std::optional<std::string> description = std::nullopt;
  std::vector<ToolFunction> functions = {};  // none: the description is free text, without a namespace block
};
ToolNamespace browser_tool();  // the built-in tools, with OpenAI's texts
ToolNamespace python_tool();

struct ResponseFormat {
  std::string name, description;
  Json schema;
};

struct SystemContent {
  std::string model_identity = "You are ChatGPT, a large language model trained by OpenAI.";  // empty: no such line
  std::string knowledge_cutoff = "2024-06";                                                   // empty: no such line
  std::string current_date = {};                  // YYYY-MM-DD; empty: no date line
  std::string reasoning_effort = "medium";        // low, medium, high; empty: no such line
  std::vector<ToolNamespace> builtin_tools = {};  // for programs that use the library; the server offers none
};

struct DeveloperContent {
  std::string instructions = {};
  std::vector<ToolNamespace> tools = {};  // rendered sorted by name; functions keep their order
  std::optional<ResponseFormat> response_format = std::nullopt;
};

// The texts of these messages. `with_functions`: the developer message has functions, so the channels' note names them.
// Error kInvalidArgument: an effort or a date of another form, a name that does not match.
std::string system_text(const SystemContent& system, bool with_functions);
std::string developer_text(const DeveloperContent& developer,  // empty: no developer message
                           HarmonyTemplate format = HarmonyTemplate::kHarmony);
// A namespace in harmony's TypeScript-like form.
std::string tool_namespace_text(const ToolNamespace& tools, HarmonyTemplate format = HarmonyTemplate::kHarmony);

// add_generation_prompt false and training are for programs that use the library, to render whole conversations.
struct HarmonyRenderOptions {
  enum class Order { kChannelFirst, kRecipientFirst };  // of calls; kRecipientFirst: as harmony 0.0.8 renders
  Order order = Order::kChannelFirst;
  HarmonyTemplate format = HarmonyTemplate::kHarmony;
  bool preserve_thinking = false;     // keep the analysis of past turns
  bool add_generation_prompt = true;  // ends with <|start|>assistant
  bool training = false;  // a final message at the end ends in <|return|>, and there is no generation prompt
  std::optional<std::int32_t> image_token_id = std::nullopt;  // as in ChatOptions
};

// Ids of the whole conversation; system and developer messages are messages with these texts. A turn runs from one user
// message to the next; its analysis is dropped when it reached `final` and a later user message exists. Error
// kInvalidArgument for a name that does not match, text that is not UTF-8, an image outside of user and tool messages,
// generated ids that are not those of one message.
std::vector<std::int32_t> render_harmony(const Tokenizer& tokenizer, const HarmonyTokens& tokens,
                                         std::span<const HarmonyMessage> messages,
                                         const HarmonyRenderOptions& options = {});

struct HarmonyEvent {
  enum class Kind { kMessageStart, kDelta, kMessageEnd };
  Kind kind = Kind::kDelta;
  std::int32_t message = 0;  // counts the messages of this parse from 0
  // kMessageStart: role, name, recipient, channel, content_type, after all repairs. kMessageEnd: the same with the
  // whole content, and with `generated` if nothing had to be repaired: ready to be put into the next prompt.
  HarmonyMessage header = {};
  bool unknown_tool = false;    // kMessageStart: a call of a tool that is not declared
  std::string text = {};        // kDelta: whole UTF-8 characters, never empty
  std::int32_t end_token = -1;  // kMessageEnd: the id that ended it, or -1 where it was cut short
};

// What was put right, by kind; shown in the server's metrics.
enum class HarmonyRepair {
  kExtraHeaderWords,      // words that belong to no part of a header, or a header begun anew
  kMissingStart,          // a message without <|start|>assistant in front
  kStrayEnd,              // an end token where a message should start
  kBadChannel,            // no channel, an unknown one or several
  kControlInName,         // the text of a control token in a name
  kConstrainAsRecipient,  // <|constrain|> where the recipient should be
  kMissingNamespace,      // a declared tool without its namespace
  kUnknownTool,           // a tool that is not declared
  kMissingMessageToken,   // a header that does not end
  kUnfinishedHeader,      // the output ends inside a header
  kMissingEnd,            // a message begins inside another
  kStrayControl,          // any other special token, or an id that is no token
  kCount
};
const char* harmony_repair_name(HarmonyRepair repair);
using HarmonyRepairs = std::array<std::int32_t, static_cast<std::size_t>(HarmonyRepair::kCount)>;

// Never throws on model output, whatever it is. One token in, events out: every message has one start, then deltas,
// then one end, before the next one starts. The deltas joined are the content.
class HarmonyParser {
 public:
  struct Options {
    // The prompt ended with <|start|>assistant (true), or after the header of a final message (false: plain models).
    bool in_header = true;
    std::vector<std::string> tools = {};  // declared full names ("functions.f", "browser.search"), for repairs
  };
  HarmonyParser(const Tokenizer& tokenizer, const HarmonyTokens& tokens, Options options);
  HarmonyParser(HarmonyParser&&) noexcept;
  HarmonyParser& operator=(HarmonyParser&&) noexcept;
  ~HarmonyParser();
  void append(std::int32_t token, std::vector<HarmonyEvent>& events);
  void finish(std::vector<HarmonyEvent>& events);  // the output ended; the parser can take no more
  const HarmonyRepairs& repairs() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gov

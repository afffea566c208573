#include "cli/chat_session.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <new>
#include <utility>

#include "base/json.h"
#include "base/utf8.h"
#include "cli/format.h"
#include "cli/sampling_options.h"

namespace gov::cli {
namespace {

constexpr std::int64_t kRoomForAnswer = 256;  // tokens that a prompt should leave, if the context is not tiny
constexpr std::size_t kMostPictures = 64;     // of one message

std::string shortened(const std::string& text) {
  constexpr std::size_t kMost = 60;
  std::string line = sanitize(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  if (line.size() <= kMost) return line;
  line.resize(kMost);
  while (!utf8_valid(line)) line.pop_back();
  return line + "...";
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\n\r") == std::string_view::npos; }

std::string plural(std::size_t n, const char* one) { return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s"); }

}  // namespace

ChatSession::ChatSession(Session& model, LineReader& reader, ChatView& view, InterruptScope& interrupt,
                         ChatSessionOptions options)
    : model_(model), reader_(reader), view_(view), interrupt_(interrupt), options_(std::move(options)) {}

std::string ChatSession::prompt_text() const {
  return pictures_.empty() ? "> " : fmt::format("[{}] > ", plural(pictures_.size(), "picture"));
}

int ChatSession::run() {
  bool leaving = false;  // Ctrl-C was pressed at the prompt just now
  for (;;) {
    std::string line;
    const ReadStatus status = reader_.read(prompt_text(), line);
    if (status == ReadStatus::kEnd) break;
    if (status == ReadStatus::kInterrupted) {
      interrupt_.take();
      if (!options_.terminal) fail(ErrorCode::kCancelled, "the conversation was cut short");
      if (leaving) break;
      leaving = true;
      view_.note("Ctrl-C again, or Ctrl-D, leaves");
      continue;
    }
    leaving = false;
    if (is_blank(line)) continue;
    try {
      if (take_line(line) == Next::kQuit) break;
    } catch (const Error& error) {
      // Where nothing can be written, or nobody wants to go on, there is no conversation.
      if (std::ferror(stdout) != 0 || (error.code() == ErrorCode::kCancelled && !options_.terminal)) throw;
      failed_ = true;
      view_.error(error, unanswered_ ? "/retry sends the message again" : "");
    } catch (const std::bad_alloc&) {
      failed_ = true;
      view_.error(Error(ErrorCode::kOutOfMemory, "out of memory"), unanswered_ ? "/retry sends the message again" : "");
    }
  }
  return failed_ && !options_.terminal ? 1 : 0;
}

ChatSession::Next ChatSession::take_line(const std::string& line) {
  if (!utf8_valid(line)) fail(ErrorCode::kInvalidArgument, "the line is not valid UTF-8");
  if (options_.common.json && (line[0] == '{' || line[0] == '"')) {
    take_json(line);
    return Next::kGoOn;
  }
  const ChatInput input = parse_chat_input(line);
  if (input.command) return do_command(input);
  ask({input.text, std::exchange(pictures_, {}), {}});
  return Next::kGoOn;
}

// "text", or {"text": "...", "images": ["FILE", ...]}.
void ChatSession::take_json(const std::string& line) {
  const Json json = Json::parse(line);
  const Json* const text = json.is_string() ? &json : json.find("text");
  if (text == nullptr || !text->is_string())
    fail(ErrorCode::kInvalidArgument, "a JSON line is a string, or an object with a string \"text\"");
  ChatPictures pictures = pictures_;  // what a line that fails names is not for the next message
  if (const Json* images = json.find("images"); images != nullptr) {
    if (!images->is_array()) fail(ErrorCode::kInvalidArgument, "\"images\" is not an array of file names");
    for (const Json& file : images->array()) {
      if (!file.is_string()) fail(ErrorCode::kInvalidArgument, "\"images\" is not an array of file names");
      add_picture(file.string(), pictures);
    }
  }
  pictures_.clear();
  ask({text->string(), std::move(pictures), {}});
}

ChatSession::Next ChatSession::do_command(const ChatInput& input) {
  switch (*input.command) {
    case ChatCommand::kHelp: view_.reply(chat_help()); break;
    case ChatCommand::kImage: image_command(input.text); break;
    case ChatCommand::kSystem: system_command(input.text); break;
    case ChatCommand::kEffort: effort_command(input.text); break;
    case ChatCommand::kSet: set_command(input.text); break;
    case ChatCommand::kRetry: retry(); break;
    case ChatCommand::kUndo: undo(); break;
    case ChatCommand::kDrop: drop_command(input.text); break;
    case ChatCommand::kReset:
      conversation_.turns.clear();
      pictures_.clear();
      unanswered_.reset();
      view_.note("a new conversation");
      break;
    case ChatCommand::kSave: {
      const std::string file = expand_home(split_words(input.text).at(0));
      save_chat(file, conversation_, model_.package->folder.filename().string());
      view_.note(fmt::format("wrote {} to {}", plural(conversation_.turns.size(), "message"), printable(file)));
      break;
    }
    case ChatCommand::kLoad: load(expand_home(split_words(input.text).at(0))); break;
    case ChatCommand::kStats: show_stats(); break;
    case ChatCommand::kQuit: return Next::kQuit;
  }
  return Next::kGoOn;
}

void ChatSession::load(const std::string& file) {
  Conversation loaded = load_chat(file, model_.package->preprocessor);
  for (const ChatTurn& turn : loaded.turns) {
    if (!turn.pictures.empty() && !model_.package->model.config.use_vision)
      fail(ErrorCode::kInvalidArgument, "{} has pictures, but this model has no vision", printable(file));
  }
  conversation_ = std::move(loaded);
  pictures_.clear();
  unanswered_.reset();
  view_.note(fmt::format("{} from {}", plural(conversation_.turns.size(), "message"), printable(file)));
}

void ChatSession::add_picture(const std::string& file, ChatPictures& pictures) const {
  const ModelPackage& package = *model_.package;
  if (!package.model.config.use_vision)
    fail(ErrorCode::kInvalidArgument, "this model has no vision: it cannot be shown pictures");
  if (pictures.size() >= kMostPictures)
    fail(ErrorCode::kInvalidArgument, "a message can have at most {} pictures", kMostPictures);
  pictures.push_back(load_chat_picture(expand_home(file), package.preprocessor));
}

void ChatSession::image_command(const std::string& argument) {
  if (argument == "-") {
    pictures_.clear();
  } else if (!argument.empty()) {
    std::error_code ignored;
    std::vector<std::string> files;
    if (std::filesystem::exists(expand_home(argument), ignored)) files = {argument};  // a name with spaces, as it is
    else files = split_words(argument);
    ChatPictures pictures = pictures_;  // all of them or none
    for (const std::string& file : files) add_picture(file, pictures);
    pictures_ = std::move(pictures);
  }
  if (pictures_.empty()) return view_.note("the next message has no pictures");
  std::string text =
      fmt::format("the next message has {}, {} tokens:", plural(pictures_.size(), "picture"),
                  static_cast<std::int64_t>(pictures_.size()) * model_.package->model.config.vision.tokens());
  for (const auto& picture : pictures_) text += fmt::format(" {} ({})", picture->name, picture->description);
  view_.note(text);
}

void ChatSession::system_command(const std::string& argument) {
  if (argument.empty())
    return view_.reply(conversation_.system.empty() ? "no instructions" : sanitize(conversation_.system));
  conversation_.system = argument == "-" ? "" : argument;
  view_.note(argument == "-" ? "no instructions any more" : "instructions set; they count from the next message on");
}

void ChatSession::effort_command(const std::string& argument) {
  std::string& effort = options_.format.effort;
  if (options_.format.format != ChatFormat::kHarmony) fail(ErrorCode::kUnsupported, "this model does not reason");
  if (argument.empty()) return view_.reply(effort);
  if (argument != "low" && argument != "medium" && argument != "high")
    fail(ErrorCode::kInvalidArgument, "the effort is low, medium or high, not '{}'", printable(argument, 40));
  effort = argument;
  view_.note(fmt::format("reasoning effort {}", argument));
}

void ChatSession::set_command(const std::string& argument) {
  const std::vector<std::string> words = split_words(argument);
  if (words.empty()) {
    std::string all;
    for (const std::string& name : chat_setting_names())
      all += fmt::format("  {:<24}{}\n", name, chat_setting_text(options_.settings, name));
    return view_.reply(all);
  }
  if (words.size() > 2) fail(ErrorCode::kInvalidArgument, "/set takes a name and a value");
  if (words.size() == 2) set_chat_setting(options_.settings, words[0], words[1]);
  const auto names = chat_setting_names();
  if (std::find(names.begin(), names.end(), words[0]) == names.end()) {
    ChatSettings unused;
    set_chat_setting(unused, words[0], "");  // the error that names all settings
  }
  view_.reply(fmt::format("{} {}", words[0], chat_setting_text(options_.settings, words[0])));
}

void ChatSession::drop_command(const std::string& argument) {
  if (conversation_.turns.empty()) fail(ErrorCode::kInvalidArgument, "there is no message yet");
  std::size_t turns = 1;
  if (!argument.empty()) {
    const auto [end, error] = std::from_chars(argument.data(), argument.data() + argument.size(), turns);
    if (error != std::errc() || end != argument.data() + argument.size() || turns == 0)
      fail(ErrorCode::kInvalidArgument, "/drop takes a number of messages, not '{}'", printable(argument, 40));
  }
  drop(std::min(turns, conversation_.turns.size()));
}

void ChatSession::drop(std::size_t turns) {
  conversation_.turns.erase(conversation_.turns.begin(),
                            conversation_.turns.begin() + static_cast<std::ptrdiff_t>(turns));
  view_.note(fmt::format("forgot the oldest {}", plural(turns, "message")));
}

void ChatSession::undo() {
  if (!unanswered_ && conversation_.turns.empty()) fail(ErrorCode::kInvalidArgument, "there is no message yet");
  const ChatTurn& last = unanswered_ ? *unanswered_ : conversation_.turns.back();
  view_.note(fmt::format("forgot: {}", shortened(last.question)));
  if (unanswered_) unanswered_.reset();
  else conversation_.turns.pop_back();
}

void ChatSession::retry() {
  if (unanswered_) {
    ask(*std::exchange(unanswered_, {}));
    return;
  }
  if (conversation_.turns.empty()) fail(ErrorCode::kInvalidArgument, "there is no message yet");
  ChatTurn before = std::move(conversation_.turns.back());
  conversation_.turns.pop_back();
  bool whole = false;
  try {
    whole = ask({before.question, before.pictures, {}});
  } catch (...) {
    unanswered_.reset();
    conversation_.turns.push_back(std::move(before));
    throw;
  }
  if (whole || before.answer.empty()) return;
  conversation_.turns.back() = std::move(before);
  view_.note("the answer from before stays");
}

bool ChatSession::ask(ChatTurn turn) {
  unanswered_.reset();
  conversation_.turns.push_back(std::move(turn));
  try {
    return answer_last_turn();
  } catch (...) {
    view_.end_answer();
    unanswered_ = std::move(conversation_.turns.back());
    unanswered_->answer.clear();
    conversation_.turns.pop_back();
    throw;
  }
}

// The prompt of the conversation. When it leaves no room for an answer the user is asked whether the oldest messages
// may go; nothing is ever dropped without that.
ChatPrompt ChatSession::fitting_prompt() {
  const ModelPackage& package = *model_.package;
  const std::int64_t context = model_.engine->options().context;
  const std::int64_t room = context - std::min(kRoomForAnswer, context / 4);
  ChatPrompt prompt = chat_prompt(package, conversation_, options_.format);
  if (prompt.rows <= room) return prompt;
  const std::int64_t whole = prompt.rows;
  std::size_t first = 0;
  while (prompt.rows > room && first + 1 < conversation_.turns.size())
    prompt = chat_prompt(package, conversation_, options_.format, ++first);
  if (prompt.rows > room)
    fail(ErrorCode::kContextLength, "the message takes {} tokens, too many for the context of {}", prompt.rows,
         context);
  const std::string state = fmt::format("the conversation takes {} of the context's {} tokens", whole, context);
  if (!reader_.confirm(fmt::format("{}. Forget the oldest {}?", state, plural(first, "message"))))
    fail(ErrorCode::kContextLength, "{}: /drop {} forgets the oldest", state, first);
  drop(first);
  return prompt;
}

bool ChatSession::answer_last_turn() {
  ChatPrompt prompt = fitting_prompt();
  ChatAnswerOptions o;
  o.format = options_.format.format;
  o.settings = options_.settings;
  if (!o.settings.seed) o.settings.seed = random_seed();
  o.logit_bias = options_.logit_bias;
  interrupt_.take();
  o.cancel = &interrupt_.flag();
  o.on_text = [this](bool analysis, std::string_view text) { view_.text(analysis, text); };
  view_.begin_answer();
  ChatAnswer answer = answer_chat(model_, std::move(prompt), o, options_.common);
  view_.end_answer();
  view_.show_answer(answer, model_.engine->options().context);
  const bool stopped = interrupt_.take() && answer.finish_reason == FinishReason::kCancelled;
  totals_.answers += 1;
  totals_.prompt_tokens += answer.prompt_tokens;
  totals_.cached_tokens += answer.cached_tokens;
  totals_.image_tokens += answer.image_tokens;
  totals_.tokens += answer.tokens;
  totals_.last_rows = answer.prompt_tokens + answer.tokens;
  totals_.first_seconds += answer.first_token_seconds;
  totals_.seconds += answer.total_seconds;
  conversation_.turns.back().answer = std::move(answer.messages);
  if (stopped && !options_.terminal) fail(ErrorCode::kCancelled, "the answer was cut short");
  return !stopped;
}

void ChatSession::show_stats() {
  const EngineStats& engine = model_.engine->stats();
  const std::int64_t context = model_.engine->options().context;
  const Totals& t = totals_;
  const double decode = t.seconds - t.first_seconds;
  const std::int64_t later = std::max<std::int64_t>(0, t.tokens - t.answers);
  std::string out = fmt::format("  {:<24}{}\n", "model", printable(model_.package->folder.string()));
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("  {:<24}{}\n", name, value);
  };
  line("messages", std::to_string(conversation_.turns.size()));
  line("answers", std::to_string(t.answers));
  line("prompt tokens",
       fmt::format("{}, of these {} from the prefix cache, {} of pictures", with_commas(t.prompt_tokens),
                   with_commas(t.cached_tokens), with_commas(t.image_tokens)));
  line("tokens written", with_commas(t.tokens));
  line("tokens/s", decode > 0 && later > 0 ? fmt::format("{:.1f}", static_cast<double>(later) / decode) : "-");
  line("time to first token",
       t.answers > 0 ? fmt::format("{:.3f} s on average", t.first_seconds / static_cast<double>(t.answers)) : "-");
  line("context", fmt::format("{} of {} tokens", with_commas(t.last_rows), with_commas(context)));
  line("cache blocks in use", fmt::format("{} of {}", with_commas(engine.full_blocks - engine.free_full_blocks),
                                          with_commas(engine.full_blocks)));
  view_.reply(out);
}

}  // namespace gov::cli

// gpt-oss-vision chat: a conversation on the terminal, or with a program.

#include <unistd.h>

#include <cstdlib>

#include "cli/chat_session.h"
#include "cli/format.h"
#include "cli/prompt_format.h"
#include "cli/sampling_options.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision chat\n"
    "  gpt-oss-vision chat --model ~/models/gpt-oss-20b --reasoning-effort high --system \"Answer in French.\"\n"
    "  gpt-oss-vision chat --image photo.png\n"
    "  printf 'hello\\n/save talk.json\\n' | gpt-oss-vision chat\n"
    "  printf '{\"text\": \"What is this?\", \"images\": [\"photo.png\"]}\\n' | gpt-oss-vision chat --json\n"
    "\n"
    "In a conversation /help lists the commands. Line editing: ";

struct ChatOptionsGiven {
  CommonOptions common;
  SamplingOptions sampling;
  PromptFormatOptions format;
  std::vector<std::string> images;
  std::string system, load;
  std::int64_t max_tokens = ChatSettings{}.max_tokens;
  bool stream = false, no_markdown = false, hide_reasoning = false, show_reasoning = false, no_history = false;
};

void add_conversation_options(CLI::App& app, ChatOptionsGiven& o) {
  const char* kGroup = "Conversation";
  add_repeatable(app, "-i,--image", o.images, "Picture file for the first message; repeatable")
      ->type_name("FILE")
      ->group(kGroup);
  app.add_option("-s,--system", o.system, "Instructions for the model")->type_name("TEXT")->group(kGroup);
  add_prompt_format_options(app, o.format, kGroup);
  add_date_option(app, o.format, kGroup);
  app.add_option("--load", o.load, "Go on with a conversation that /save wrote as .json")
      ->type_name("FILE")
      ->group(kGroup);
  app.add_option("--max-new-tokens", o.max_tokens, "Most tokens of an answer; less where the context ends")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->type_name("N")
      ->capture_default_str()
      ->group(kGroup);
}

void add_view_options(CLI::App& app, ChatOptionsGiven& o) {
  const char* kGroup = "Display";
  app.add_flag("--no-markdown", o.no_markdown,
               "Show answers as they are; so does NO_COLOR, or output to a file or pipe")
      ->group(kGroup);
  app.add_flag("--hide-reasoning", o.hide_reasoning, "Do not show the model's reasoning")->group(kGroup);
  app.add_flag("--show-reasoning", o.show_reasoning, "Show it also where output is no terminal")
      ->excludes("--hide-reasoning")
      ->group(kGroup);
  app.add_flag("--no-history", o.no_history, "Neither read nor keep typed lines")->group(kGroup);
  app.add_flag("--stream", o.stream, "With --json: a line for each piece of an answer as it comes")->group(kGroup);
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] != 0;
}

bool is_capable_terminal() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) != 0 && terminal != nullptr && std::string_view(terminal) != "dumb";
}

ChatViewOptions view_options(const ChatOptionsGiven& o) {
  ChatViewOptions view;
  view.json = o.common.json;
  view.stream = o.stream;
  view.terminal = isatty(STDOUT_FILENO) != 0 && !o.common.json;
  view.colour = is_capable_terminal() && !o.common.json && !is_set("NO_COLOR");
  view.markdown = view.colour && !o.no_markdown;
  view.reasoning = o.show_reasoning || (view.terminal && !o.hide_reasoning);
  view.quiet = o.common.quiet;
  return view;
}

ChatSessionOptions session_options(const ChatOptionsGiven& o, const ModelPackage& package) {
  ChatSessionOptions options;
  options.common = o.common;
  options.format = prompt_format(o.format, package);
  options.settings.sampling = sampling_params(o.sampling, default_sampling(package.folder));
  options.settings.seed = o.sampling.seed;
  options.settings.max_tokens = o.max_tokens;
  options.logit_bias = logit_bias(o.sampling);
  options.terminal = stdin_is_terminal() && !o.common.json;
  return options;
}

int run_chat(const Program& program, const ChatOptionsGiven& o) {
  const ChatViewOptions shown = view_options(o);
  Session session = open_session(o.common, program, 1);
  const ModelPackage& package = *session.package;
  ChatSessionOptions options = session_options(o, package);
  const bool terminal = options.terminal;
  InterruptScope interrupt;
  std::unique_ptr<LineEditor> editor;
  if (terminal && is_capable_terminal())
    editor = LineEditor::create(ChatHistory(o.no_history ? std::filesystem::path() : ChatHistory::default_file()));
  LineReader reader(terminal, std::move(editor), interrupt);
  ChatView view(shown);
  ChatSession chat(session, reader, view, interrupt, std::move(options));
  if (terminal) {
    view.note(fmt::format("{}, context {} tokens; /help lists the commands",
                          printable(package.folder.filename().string()),
                          with_commas(session.engine->options().context)));
  }
  if (!o.load.empty()) chat.load(o.load);
  if (!o.system.empty()) chat.set_instructions(o.system);  // over those of the file
  for (const std::string& image : o.images) chat.add_picture(image);
  return chat.run();
}

}  // namespace

void add_chat(CLI::App& root, Program& program) {
  const auto o = std::make_shared<ChatOptionsGiven>();
  CLI::App& app = *root.add_subcommand("chat", "Talk with a model, with or without pictures");
  add_model_option(app, o->common);
  add_conversation_options(app, *o);
  add_sampling_options(app, o->sampling);
  add_view_options(app, *o);
  add_memory_options(app, o->common);
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(kExamples + line_editor_name());
  app.callback([&program, o] { program.action = [&program, o] { return run_chat(program, *o); }; });
}

}  // namespace gov::cli

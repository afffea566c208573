#include "cli/commands.h"

namespace gov::cli {

void add_all(CLI::App& root, Program& program) {
  root.name("gpt-oss-vision");
  root.description("gpt-oss-vision: the GPT-OSS-Vision model (text and pictures in, text out) on this machine.");
  root.set_version_flag("--version", "gpt-oss-vision " GOV_VERSION " (commit " GOV_COMMIT ")");
  root.require_subcommand(1);
  root.get_formatter()->column_width(36);
  add_generate(root, program);
  add_serve(root, program);
  add_chat(root, program);
  add_inspect(root, program);
  add_tokenize(root, program);
  add_synth(root, program);
  add_bench(root, program);
  add_doctor(root, program);
  add_train(root, program);
  add_debug(root, program);
  add_completion(root, program);
  root.footer(
      "Examples:\n"
      "  gpt-oss-vision generate --image photo.png --prompt \"What is this?\"\n"
      "  echo \"Is this a cat?\" | gpt-oss-vision generate --image photo.png\n"
      "  gpt-oss-vision serve --port 8080\n"
      "  gpt-oss-vision chat --model ~/models/gpt-oss-20b\n"
      "  gpt-oss-vision inspect gpt_oss_vision_20b --context 131072\n"
      "  gpt-oss-vision <command> --help\n"
      "\n"
      "Exit status: 0 done, 1 refused or failed (one line on standard error), 2 wrong usage, 130 interrupted.");
}

}  // namespace gov::cli

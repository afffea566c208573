// Help, wrong usage, completion: what works without a model.

#include <fmt/format.h>

#include <algorithm>

#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

const std::vector<std::vector<std::string>> kCommands = {{"generate"},
                                                         {"chat"},
                                                         {"inspect"},
                                                         {"tokenize"},
                                                         {"synth"},
                                                         {"bench"},
                                                         {"doctor"},
                                                         {"train"},
                                                         {"debug"},
                                                         {"completion"},
                                                         {"debug", "forward"},
                                                         {"debug", "gradients"},
                                                         {"debug", "train-steps"},
                                                         {"debug", "tokenize"},
                                                         {"debug", "preprocess"}};

TEST(Usage, EveryCommandHasHelpWithExamples) {
  for (auto command : kCommands) {
    const std::string name = fmt::format("{}", fmt::join(command, " "));
    command.push_back("--help");
    const Ran ran = run(command);
    EXPECT_EQ(ran.status, 0) << name;
    EXPECT_TRUE(ran.err.empty()) << name << ran.err;
    const auto examples = ran.out.find("Examples:\n");
    ASSERT_NE(examples, std::string::npos) << name;
    EXPECT_NE(ran.out.find("gpt-oss-vision " + name, examples), std::string::npos) << name;
  }
}

TEST(Usage, ProgramHelpListsTheCommandsThatExist) {
  const Ran ran = run({"--help"});
  EXPECT_EQ(ran.status, 0);
  for (const auto& command : kCommands) EXPECT_NE(ran.out.find("\n  " + command[0]), std::string::npos) << command[0];
  for (const char* absent : {"quantize", "convert", "pull"}) {
    EXPECT_EQ(ran.out.find(fmt::format("\n  {}", absent)), std::string::npos) << absent;
  }
}

TEST(Usage, PromptsAreMadeByTheSameOptionsEverywhere) {
  for (const char* command : {"generate", "chat", "serve"}) {
    const std::string help = run({command, "--help"}).out;
    if (help.find("not in this build") != std::string::npos) continue;
    for (const char* option : {"--reasoning-effort EFFORT:{low,medium,high}=medium",
                               "--chat-template FORM:{auto,plain,harmony,hf-jinja}=auto"})
      EXPECT_NE(help.find(option), std::string::npos) << command << option << help;
    EXPECT_EQ(help.find("--date DATE=today") == std::string::npos, std::string(command) == "serve") << help;
  }
}

TEST(Usage, Version) {
  const Ran ran = run({"--version"});
  EXPECT_EQ(ran.status, 0);
  EXPECT_TRUE(ran.out.starts_with("gpt-oss-vision ")) << ran.out;
  EXPECT_EQ(lines_of(ran.out).size(), 1u);
}

TEST(Usage, WrongUsageIsStatus2AndOneLine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "subcommand"},
      {{"train"}, "file is required"},
      {{"chat", "--model"}, "--model"},
      {{"debug"}, "subcommand"},
      {{"debug", "nothing"}, "unknown command 'nothing'"},
      {{"generate", "--frobnicate"}, "--frobnicate"},
      {{"generate", "--prompt", "x", "--threads", "many"}, "--threads"},
      {{"generate", "--prompt", "x", "--threads", "-1"}, "--threads"},
      {{"generate", "--prompt", "x", "--threads", "1.5"}, "--threads"},
      {{"generate", "--prompt", "x", "--n", "0"}, "--n"},
      {{"generate", "--prompt", "x", "--n", "99999999999999999999"}, "--n"},
      {{"generate", "--prompt", "x", "--temperature", "warm"}, "--temperature"},
      {{"generate", "--prompt", "x", "--top-k", "3.7"}, "--top-k"},
      {{"generate", "--prompt", "x", "--logprobs", "21"}, "--logprobs"},
      {{"generate", "--prompt", "x", "--max-new-tokens", "-5"}, "--max-new-tokens"},
      {{"generate", "--prompt", "x", "--memory-limit", "much"}, "--memory-limit"},
      {{"generate", "--prompt", "x", "--memory-limit", "12QiB"}, "--memory-limit"},
      {{"generate", "--prompt", "x", "--format", "xml"}, "--format"},
      {{"generate", "--prompt", "x", "--isa", "sse9"}, "--isa"},
      {{"generate", "--prompt", "x", "--prompt-file", "y"}, "--prompt"},
      {{"generate", "--prompt", "x", "--logit-bias", "seven"}, "--logit-bias"},
      {{"generate", "--prompt"}, "--prompt"},
      {{"synth"}, "folder"},
      {{"synth", "/nowhere/x", "--mxfp4", "--no-mxfp4"}, "mxfp4"},
      {{"bench", "--batch", "0"}, "--batch"},
      {{"completion", "tcsh"}, "tcsh"},
      {{"debug", "forward", "--inputs", "a"}, "--output"},
      {{"debug", "preprocess"}, "image"},
  };
  for (const auto& [arguments, part] : cases) {
    const Ran ran = run(arguments);
    const std::string line = fmt::format("{}: {}", fmt::join(arguments, " "), ran.err);
    EXPECT_EQ(ran.status, 2) << line;
    EXPECT_TRUE(ran.failed_cleanly()) << line;
    EXPECT_NE(ran.err.find(part), std::string::npos) << line;
  }
}

TEST(Usage, CompletionScriptsAreMadeForThreeShells) {
  const TempFolder folder;
  const Ran bash = run({"completion", "bash"});
  ASSERT_EQ(bash.status, 0) << bash.err;
  write_file(folder / "script", bash.out);
  ASSERT_EQ(std::system(fmt::format("bash -n '{}'", folder / "script").c_str()), 0);
  // Ask the script what may follow, as bash does.
  const auto complete = [&](const std::string& words) {
    write_file(folder / "ask", fmt::format("source '{}'\nCOMP_WORDS=({})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}}-1))\n"
                                           "_gpt_oss_vision\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
                                           folder / "script", words));
    EXPECT_EQ(std::system(fmt::format("cd '{0}' && bash '{0}/ask' > '{0}/answer'", folder.path().string()).c_str()), 0);
    return lines_of(read_file(folder / "answer"));
  };
  EXPECT_EQ(complete("gpt-oss-vision gen"), std::vector<std::string>{"generate"});
  EXPECT_EQ(complete("gpt-oss-vision chat --no-m"), std::vector<std::string>{"--no-markdown"});
  EXPECT_EQ(complete("gpt-oss-vision debug pre"), std::vector<std::string>{"preprocess"});
  EXPECT_EQ(complete("gpt-oss-vision generate --prompt-f"), std::vector<std::string>{"--prompt-file"});
  EXPECT_EQ(complete("gpt-oss-vision debug forward --inp"), std::vector<std::string>{"--inputs"});
  EXPECT_EQ(complete("gpt-oss-vision generate --image scri"), std::vector<std::string>{"script"});

  const Ran zsh = run({"completion", "zsh"}), fish = run({"completion", "fish"});
  EXPECT_EQ(zsh.status, 0);
  EXPECT_EQ(fish.status, 0);
  EXPECT_TRUE(zsh.out.starts_with("#compdef gpt-oss-vision\n"));
  EXPECT_NE(zsh.out.find("--max-new-tokens"), std::string::npos);
  EXPECT_NE(fish.out.find("-l max-new-tokens"), std::string::npos);
  for (const char* shell : {"zsh", "fish"}) {
    write_file(folder / shell, shell == std::string("zsh") ? zsh.out : fish.out);
    if (std::system(fmt::format("command -v {} > /dev/null", shell).c_str()) != 0) continue;
    EXPECT_EQ(std::system(fmt::format("{} -n '{}'", shell, folder / shell).c_str()), 0) << shell;
  }
}

TEST(Usage, FullOutputDeviceIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  EXPECT_EQ(WEXITSTATUS(std::system(fmt::format("'{}' completion bash > /dev/full 2> /dev/null", GOV_PROGRAM).c_str())),
            1);
}

}  // namespace
}  // namespace gov::test

// What a typed line means, and what is kept in files.

#include "cli/chat_commands.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "cli/chat_conversation.h"
#include "cli/chat_input.h"
#include "cli/chat_settings.h"
#include "tests/cli/run_program.h"

namespace gov::cli {
namespace {

using test::read_file;
using test::TempFolder;
using test::write_file;

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}

TEST(ChatCommands, LinesAreMessagesOrCommands) {
  const ChatInput message = parse_chat_input("hello /quit");
  EXPECT_FALSE(message.command);
  EXPECT_EQ(message.text, "hello /quit");
  EXPECT_EQ(parse_chat_input("//etc").text, "/etc");
  EXPECT_FALSE(parse_chat_input("//etc").command);
  EXPECT_EQ(parse_chat_input("/quit  ").command, ChatCommand::kQuit);
  EXPECT_EQ(parse_chat_input("/exit").command, ChatCommand::kQuit);
  EXPECT_EQ(parse_chat_input("/?").command, ChatCommand::kHelp);
  const ChatInput system = parse_chat_input("/system  Be brief.\nReally. ");
  EXPECT_EQ(system.command, ChatCommand::kSystem);
  EXPECT_EQ(system.text, "Be brief.\nReally.");
}

TEST(ChatCommands, WrongOnesAreRefusedByName) {
  EXPECT_NE(error_of([] { parse_chat_input("/etc/passwd"); }).find("'/etc/passwd'"), std::string::npos);
  EXPECT_NE(error_of([] { parse_chat_input("/"); }).find("'/'"), std::string::npos);
  EXPECT_NE(error_of([] { parse_chat_input("/quit now"); }).find("/quit takes nothing"), std::string::npos);
  EXPECT_NE(error_of([] { parse_chat_input("/save"); }).find("/save needs FILE"), std::string::npos);
  EXPECT_EQ(error_of([] { parse_chat_input("/\033[31m"); }).find('\033'), std::string::npos);
}

TEST(ChatCommands, HelpListsEveryCommandAndSetting) {
  const std::string help = chat_help();
  for (const ChatCommandInfo& info : chat_commands()) EXPECT_NE(help.find(info.name), std::string::npos) << info.name;
  for (const std::string& name : chat_setting_names()) EXPECT_NE(help.find(name), std::string::npos) << name;
}

TEST(ChatCommands, WordsKeepQuotedSpaces) {
  EXPECT_EQ(split_words("a  'b c' \"d e\"f g\\ h ''"), (std::vector<std::string>{"a", "b c", "d ef", "g h", ""}));
  EXPECT_NE(error_of([] { split_words("'a"); }).find("not closed"), std::string::npos);
}

TEST(ChatCommands, LinesArePutTogether) {
  LineAssembler lines;
  EXPECT_EQ(lines.add("one\r"), "one");
  EXPECT_FALSE(lines.add("one\\"));
  EXPECT_TRUE(lines.open());
  EXPECT_EQ(lines.add("two"), "one\ntwo");
  EXPECT_FALSE(lines.open());
  EXPECT_FALSE(lines.add("\"\"\""));
  EXPECT_FALSE(lines.add("a\\"));  // no continuation inside a block
  EXPECT_FALSE(lines.add(""));
  EXPECT_EQ(lines.add("b\"\"\""), "a\\\n\nb");
  EXPECT_FALSE(lines.add("\"\"\"x"));
  EXPECT_EQ(lines.add("\"\"\""), "x");
  EXPECT_EQ(lines.add("\"\"\"one line\"\"\""), "one line");
  EXPECT_EQ(lines.add("C:\\\\"), "C:\\\\");
  EXPECT_FALSE(lines.add("\"\"\"never"));
  EXPECT_EQ(lines.finish(), "never");
  EXPECT_FALSE(lines.finish());
}

TEST(ChatCommands, CompletionOffersCommandsLevelsSettingsAndFiles) {
  EXPECT_EQ(complete_chat_line("/re").candidates, (std::vector<std::string>{"/reset", "/retry"}));
  EXPECT_EQ(complete_chat_line("/im").candidates, std::vector<std::string>{"/image "});
  EXPECT_EQ(complete_chat_line("/effort m").candidates, std::vector<std::string>{"medium"});
  EXPECT_EQ(complete_chat_line("/effort m").from, 8u);
  EXPECT_EQ(complete_chat_line("/set top").candidates, (std::vector<std::string>{"top_k ", "top_p "}));
  EXPECT_TRUE(complete_chat_line("/set top_k 1").candidates.empty());
  EXPECT_TRUE(complete_chat_line("hello").candidates.empty());
  const TempFolder folder;
  write_file(folder / "a dog.png", "");
  write_file(folder / "a cat.png", "");
  write_file(folder / ".hidden", "");
  std::filesystem::create_directory(folder / "pictures");
  const std::string base = folder.path().string();
  EXPECT_EQ(complete_chat_line("/image " + base + "/").candidates,
            (std::vector<std::string>{base + "/a\\ cat.png", base + "/a\\ dog.png", base + "/pictures/"}));
  EXPECT_EQ(complete_chat_line("/image x.png " + base + "/a\\ d").candidates,
            std::vector<std::string>{base + "/a\\ dog.png"});
  EXPECT_EQ(complete_chat_line("/load " + base + "/nothing").candidates.size(), 0u);
}

TEST(ChatCommands, SettingsHaveRanges) {
  ChatSettings settings;
  set_chat_setting(settings, "temperature", "0.5");
  set_chat_setting(settings, "top_k", "7");
  set_chat_setting(settings, "seed", "18446744073709551615");
  set_chat_setting(settings, "max_tokens", "12");
  EXPECT_EQ(settings.sampling.temperature, 0.5f);
  EXPECT_EQ(settings.sampling.top_k, 7);
  EXPECT_EQ(settings.seed, 18446744073709551615u);
  EXPECT_EQ(chat_setting_text(settings, "seed"), "18446744073709551615");
  EXPECT_EQ(chat_setting_text(settings, "max_tokens"), "12");
  set_chat_setting(settings, "seed", "random");
  EXPECT_FALSE(settings.seed);
  const std::vector<std::pair<const char*, const char*>> wrong = {{"temperature", "-1"},
                                                                  {"temperature", "nan"},
                                                                  {"temperature", "1x"},
                                                                  {"temperature", ""},
                                                                  {"top_p", "0"},
                                                                  {"top_p", "1.1"},
                                                                  {"min_p", "2"},
                                                                  {"top_k", "-1"},
                                                                  {"top_k", "1.5"},
                                                                  {"seed", "-1"},
                                                                  {"max_tokens", "0"},
                                                                  {"max_tokens", "1e3"},
                                                                  {"repetition_penalty", "0"},
                                                                  {"presence_penalty", "inf"}};
  for (const auto& [name, value] : wrong) {
    EXPECT_NE(error_of([&, n = name, v = value] { set_chat_setting(settings, n, v); }).find(name), std::string::npos)
        << name << " " << value;
  }
  EXPECT_NE(error_of([&] { set_chat_setting(settings, "heat", "1"); }).find("temperature"), std::string::npos);
  EXPECT_EQ(settings.sampling.temperature, 0.5f);
}

TEST(ChatHistoryFile, IsPrivateAndKeepsLineBreaks) {
  const TempFolder folder;
  const std::string file = folder / "state/chat_history";
  const ChatHistory history(file);
  EXPECT_TRUE(history.load().empty());
  history.append("one");
  history.append("two\nlines \\n \\");
  EXPECT_EQ(ChatHistory(file).load(), (std::vector<std::string>{"one", "two\nlines \\n \\"}));
  struct stat status {};
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(stat((folder / "state").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST(ChatHistoryFile, IsCutWhenItIsLong) {
  const TempFolder folder;
  std::string text;
  for (int i = 0; i < 2500; ++i) text += std::to_string(i) + "\n";
  write_file(folder / "history", text);
  const auto entries = ChatHistory(folder / "history").load();
  ASSERT_EQ(entries.size(), ChatHistory::kMost);
  EXPECT_EQ(entries.front(), "1500");
  EXPECT_EQ(entries.back(), "2499");
  EXPECT_EQ(ChatHistory(folder / "history").load(), entries);
  EXPECT_TRUE(read_file(folder / "history").starts_with("1500\n"));
  EXPECT_TRUE(ChatHistory("").load().empty());
  ChatHistory("").append("nothing happens");
}

}  // namespace
}  // namespace gov::cli

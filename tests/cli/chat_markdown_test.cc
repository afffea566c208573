// Markdown on a terminal: what is shown, and that it does not depend on how the text came in.

#include "cli/chat_markdown.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <sstream>

namespace gov::cli {
namespace {

std::string render(std::string_view text, int width = 40) {
  Markdown markdown(width);
  std::string out = markdown.append(text);
  return out + markdown.finish();
}

// The styles as short tags, so that expectations can be read: <1;4> is ESC[0;1;4m, <> is ESC[0m.
std::string tagged(std::string_view text, int width = 40) {
  const std::string raw = render(text, width);
  std::string out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw.compare(i, 3, "\033[0") != 0) {
      out += raw[i];
      continue;
    }
    const std::size_t end = raw.find('m', i);
    std::string codes = raw.substr(i + 3, end - i - 3);
    out += "<" + (codes.empty() ? codes : codes.substr(1)) + ">";
    i = end;
  }
  return out;
}

std::string without_styles(const std::string& raw) {
  std::string out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '\033') i = raw.find('m', i);
    else out += raw[i];
  }
  return out;
}

constexpr const char* kDocument =
    "# Title *here*\n\nA paragraph with **bold words that wrap**, `code`, ~~struck~~ and ***both***; 2 * 3 * 4, "
    "snake_case_name, a lone ** mark.\n\n\n- first item that is long enough to go on in a second line\n- second\n"
    "  * inner `a*b*c`\n1. one\n22) two\n\n> quoted *text* that is also too long for one line of this width\n>> "
    "deeper\n\n"
    "```cpp\nint main() { return 0; }  // **not bold**\n  ``\n```\nafter\n---\n| a | b |\n|---|:-:|\n| `x|y` | **1** "
    "|\n"
    "| long cell that has to be wrapped inside | 2 |\n\n日本語のテキストは空白がないので文字の間で折り返されます。\n"
    "* * *\n-- no rule\n\\*escaped\\* C:\\path caf\xc3\xa9 \xf0\x9f\x90\xb6\n~~~\nopen code";

TEST(ChatMarkdown, HeadingsAndEmphasis) {
  EXPECT_EQ(tagged("# Big\n### Small *x*"), "<1;4>Big<>\n<1>Small <1;3>x<>\n");
  EXPECT_EQ(tagged("a **b** *c* _d_ __e__ ~~f~~ `g`"), "a <1>b<> <3>c<> <3>d<> <1>e<> <9>f<> <36>g<>\n");
  EXPECT_EQ(tagged("***x*** **a *b***"), "<1;3>x<> <1>a <1;3>b<>\n");
  EXPECT_EQ(tagged("#no heading\n####### none"), "#no heading\n####### none\n");
}

TEST(ChatMarkdown, MarksWithoutPartnerAreText) {
  EXPECT_EQ(tagged("2 * 3 * 4 and 5**6"), "2 * 3 * 4 and 5**6\n");
  EXPECT_EQ(tagged("*args and **kwargs"), "*args and **kwargs\n");
  EXPECT_EQ(tagged("snake_case_name __init__.py"), "snake_case_name <1>init<>.py\n");
  EXPECT_EQ(tagged("a `b"), "a `b\n");
  EXPECT_EQ(tagged("``a`b`` c"), "<36>a`b<> c\n");
  EXPECT_EQ(tagged("*a **b*"), "<3>a **b<>\n");
  EXPECT_EQ(tagged("\\*no\\* \\d"), "*no* \\d\n");
  EXPECT_EQ(tagged("*over\nlines*"), "*over\nlines*\n");
  EXPECT_EQ(tagged("x~y~ ~~~~"), "x~y~ ~~~~\n");
}

TEST(ChatMarkdown, AMarkWaitsOnlySoLong) {
  const std::string words = std::string(InlineParser::kMostHeld, 'x');
  Markdown markdown(2000);
  const std::string early = markdown.append("**" + words + " ");
  EXPECT_EQ(early.substr(0, 4), "**xx");  // it is text now
  EXPECT_EQ(markdown.append("end** "), " end**");
  EXPECT_EQ(markdown.finish(), "\n");
}

TEST(ChatMarkdown, ListsQuotesAndRules) {
  EXPECT_EQ(tagged("- one two three four five six", 20), "• one two three four\n  five six\n");
  EXPECT_EQ(tagged("10. one two three four five", 20), "10. one two three\n    four five\n");
  EXPECT_EQ(tagged("  * in\n+ out"), "  • in\n• out\n");
  EXPECT_EQ(tagged("> one two three four five\n>> six", 20), "<2>│ <>one two three four\n<2>│ <>five\n<2>│ │ <>six\n");
  for (const char* rule : {"---", "* * *", "_____", " - - -"})
    EXPECT_EQ(without_styles(render(rule, 20)), "────────────────────\n") << rule;
  EXPECT_EQ(tagged("--\n-- x\n-x\n1.5\n- -x"), "--\n-- x\n-x\n1.5\n• -x\n");
  EXPECT_EQ(tagged("**a** b\n*c* d"), "<1>a<> b\n<3>c<> d\n");
}

TEST(ChatMarkdown, CodeBlocksStayAsTheyAre) {
  EXPECT_EQ(tagged("```py\nx = '**a**'\n\n    y\n```\nz"),
            "<2>```py<>\n<36>x = '**a**'<>\n\n<36>    y<>\n<2>```<>\nz\n");
  EXPECT_EQ(tagged("````\n```\n````"), "<2>````<>\n<36>```<>\n<2>````<>\n");
  EXPECT_EQ(tagged("~~~\n```\n~~~~"), "<2>~~~<>\n<36>```<>\n<2>~~~~<>\n");
  EXPECT_EQ(tagged("```one `line```"), "<36>one `line<>\n");
  EXPECT_EQ(tagged("```one `line"), "```one `line\n");
  EXPECT_EQ(tagged("```\nnever closed"), "<2>```<>\n<36>never closed<>\n");
  EXPECT_EQ(tagged("```\na\tb"), "<2>```<>\n<36>a    b<>\n");
}

TEST(ChatMarkdown, Tables) {
  EXPECT_EQ(without_styles(render("| Name | N |\n|:---|--:|\n| dog | 1 |\n| elephant | 22 |\n")),
            "Name     │  N\n─────────┼───\ndog      │  1\nelephant │ 22\n");
  EXPECT_EQ(without_styles(render("|a|b|\n|-|-|\n|one two three four|five six seven|\n", 20)),
            "a        │ b\n─────────┼─────────\none two  │ five six\nthree    │ seven\nfour     │ \n");
  EXPECT_EQ(without_styles(render("|a|b|c|d|\n|-|-|-|-|\n|wide cell|wide cell|wide cell|wide cell|\n", 20)),
            "a: wide cell\nb: wide cell\nc: wide cell\nd: wide cell\n");
  EXPECT_EQ(render("| no | table |\nx"), "| no | table |\nx\n");
  EXPECT_EQ(render("| a |\n| b |"), "| a |\n| b |\n");
  EXPECT_EQ(without_styles(render("|a|b|\n|-|-|\n|1|\n|1|2|3|\n\nx")), "a │ b\n──┼──\n1 │ \n1 │ 2\n\nx\n");
  EXPECT_EQ(without_styles(render("|犬|b|\n|-|-|\n|x|y|\n")), "犬 │ b\n───┼──\nx  │ y\n");
}

TEST(ChatMarkdown, BlankLinesAreOneAndNotAtTheEnds) {
  EXPECT_EQ(render("\n\na\n\n\n\nb\n\n\n"), "a\n\nb\n");
  EXPECT_EQ(render(""), "");
  EXPECT_EQ(render("\n\n"), "");
}

TEST(ChatMarkdown, LongWordsAndWideCharactersAreBroken) {
  EXPECT_EQ(render("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa b", 20), "aaaaaaaaaaaaaaaaaaaa\naaaaaaaaa b\n");
  EXPECT_EQ(render("日本語日本語日本語日本語", 20), "日本語日本語日本語日\n本語\n");
  EXPECT_EQ(render("one  two", 40), "one  two\n");
}

TEST(ChatMarkdown, EverySplitGivesTheSameOutput) {
  const std::string document = kDocument;
  const std::string whole = render(document);
  for (std::size_t at = 0; at <= document.size(); ++at) {  // also inside of characters
    Markdown markdown(40);
    std::string out = markdown.append(document.substr(0, at));
    out += markdown.append(document.substr(at));
    ASSERT_EQ(out + markdown.finish(), whole) << at;
  }
  for (const std::size_t size : {1, 2, 3, 5, 7, 11}) {
    Markdown markdown(40);
    std::string out;
    for (std::size_t at = 0; at < document.size(); at += size) out += markdown.append(document.substr(at, size));
    ASSERT_EQ(out + markdown.finish(), whole) << size;
  }
}

// Texts made of the pieces that matter: splits agree, no line is too wide, and only our own escapes come out.
TEST(ChatMarkdown, RandomTextsHoldTheRules) {
  const std::vector<std::string> pieces = {
      "*", "**",  "_",  "~~",   "`", "```",      "#",    "# ",   "- ",   "> ",
      "|", "|-|", "\n", "\n\n", " ", "  ",       "a",    "word", "1. ",  "\\",
      "é", "犬",  "\t", "---",  ".", "\033[31m", "\r\n", "\xff", "\xc3", "a longer run of words "};
  std::mt19937 random(5);
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (int i = 0; i < 60; ++i) text += pieces[random() % pieces.size()];
    const std::string whole = render(text, 24);
    Markdown markdown(24);
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t size = 1 + random() % 9;
      out += markdown.append(text.substr(at, size));
      at += size;
    }
    ASSERT_EQ(out + markdown.finish(), whole) << text;
    const std::string plain = without_styles(whole);
    for (const char c : plain) ASSERT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 32) << text;
    bool code = false;
    std::istringstream lines(whole);
    for (std::string line; std::getline(lines, line);) {
      code = code || line.find("```") != std::string::npos;
      if (code) break;  // code is not wrapped
      ASSERT_LE(text_width(without_styles(line)), 24) << text << "\n---\n" << whole;
    }
  }
}

double seconds_for(std::size_t copies, std::string_view piece) {
  std::string text;
  for (std::size_t i = 0; i < copies; ++i) text += piece;
  const auto start = std::chrono::steady_clock::now();
  Markdown markdown(80);
  std::size_t size = 0;
  for (std::size_t at = 0; at < text.size(); at += 4) size += markdown.append(text.substr(at, 4)).size();
  size += markdown.finish().size();
  EXPECT_GT(size, 0u);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A quadratic renderer would need minutes for some of these.
TEST(ChatMarkdownTime, IsLinear) {
  for (const char* piece : {"*a ",
                            "**",
                            "`a",
                            "_a_ ",
                            "-",
                            "- ",
                            "~",
                            "> ",
                            "|",
                            "| a | b |\n",
                            "#",
                            " x",
                            "x\n\n",
                            "1",
                            "```\n",
                            "word ",
                            "[x](",
                            "\\",
                            "**bold** text, ",
                            "|-|\n",
                            "*a **b ***c _d __e ~~f `"}) {
    EXPECT_LT(seconds_for(400'000, piece), 10.0) << piece;
  }
}

TEST(ChatSanitizer, ControlBytesNeverPass) {
  EXPECT_EQ(sanitize("a\033]0;title\007b"), "a␛]0;title␇b");
  EXPECT_EQ(sanitize("\033[2J\033[31mred"), "␛[2J␛[31mred");
  EXPECT_EQ(sanitize("a\tb\nc\r\nd\re"), "a\tb\nc\nd␍e");
  EXPECT_EQ(sanitize("end\r"), "end␍");
  EXPECT_EQ(sanitize("\x7f\b"), "␡␈");
  EXPECT_EQ(sanitize("\xc2\x9b"
                     "31m"),
            "\xef\xbf\xbd"
            "31m");  // C1's escape
  EXPECT_EQ(sanitize("a\xe2\x80\xae"
                     "b"),
            "a\xef\xbf\xbd"
            "b");                                           // right-to-left override
  EXPECT_EQ(sanitize("\xf3\xa0\x81\x81"), "\xef\xbf\xbd");  // an invisible tag character
  EXPECT_EQ(sanitize("a\xe2\x80\xa8"
                     "b"),
            "a\nb");  // line separator
  EXPECT_EQ(sanitize("\xff\xc3"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(sanitize(std::string_view("a\0b", 3)), "a␀b");
  EXPECT_EQ(sanitize("🐶 é 日本"), "🐶 é 日本");
  for (int c = 0; c < 256; ++c) {
    for (const char after : sanitize(std::string(1, static_cast<char>(c)) + "x")) {
      const auto byte = static_cast<unsigned char>(after);
      EXPECT_TRUE(byte >= 0x20 || byte == '\n' || byte == '\t') << c;
      EXPECT_NE(byte, 0x7f) << c;
    }
  }
}

TEST(ChatSanitizer, EverySplitGivesTheSameText) {
  const std::string text = "é\r\n\033[1m日\xc2\x9b\xff🐶\r";
  for (std::size_t at = 0; at <= text.size(); ++at) {
    Sanitizer sanitizer;
    std::string out = sanitizer.append(text.substr(0, at));
    out += sanitizer.append(text.substr(at));
    EXPECT_EQ(out + sanitizer.flush(), sanitize(text)) << at;
  }
}

TEST(ChatText, WidthsOfCharacters) {
  EXPECT_EQ(text_width("abc"), 3);
  EXPECT_EQ(text_width("日本"), 4);
  EXPECT_EQ(text_width("e\xcc\x81"), 1);  // a combining accent
  EXPECT_EQ(text_width("🐶"), 2);
}

}  // namespace
}  // namespace gov::cli

// The TOML that training files are written in.

#include "train/toml.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/train_support.h"

namespace gov::train {
namespace {

using test::error_of;

// The tree as text: {a=1,b=[1,2]}.
std::string shown(const TomlValue& v) {
  if (const bool* flag = v.as<bool>()) return *flag ? "true" : "false";
  if (const std::int64_t* n = v.as<std::int64_t>()) return std::to_string(*n);
  if (const double* x = v.as<double>()) return fmt::format("{:.17g}d", *x);
  if (const std::string* s = v.as<std::string>()) return "'" + *s + "'";
  std::string out;
  if (const TomlList* list = v.as<TomlList>()) {
    for (const TomlValue& item : *list) out += (out.empty() ? "" : ",") + shown(item);
    return "[" + out + "]";
  }
  for (const auto& [key, item] : *v.as<TomlTable>()) out += (out.empty() ? "" : ",") + key + "=" + shown(item);
  return "{" + out + "}";
}
std::string parsed(const std::string& text) { return shown({parse_toml(text, "f"), 0}); }
std::string refusal(const std::string& text) {
  return error_of([&] { parse_toml(text, "f"); });
}

TEST(Toml, Values) {
  EXPECT_EQ(parsed("a = 1\nb=-1_000 # x\nc = +5\nd = 0xff\ne = 0o17\nf=0b101"), "{a=1,b=-1000,c=5,d=255,e=15,f=5}");
  EXPECT_EQ(parsed("a = 1.5\nb = 1e3\nc = -2.5E-1\nd = 1_0.0"), "{a=1.5d,b=1000d,c=-0.25d,d=10d}");
  EXPECT_EQ(parsed("a = inf\nb = -inf\nc = nan"), "{a=infd,b=-infd,c=nand}");
  EXPECT_EQ(parsed("a = true\nb = false"), "{a=true,b=false}");
  EXPECT_EQ(parsed(R"(a = "x\t\"\\\u00e9\U0001F600" )"), "{a='x\t\"\\é😀'}");
  EXPECT_EQ(parsed(R"(a = 'C:\x')"), R"({a='C:\x'})");
  EXPECT_EQ(parsed("a = [1, [2, 'x'], # c\n  true,\n]\nb = []"), "{a=[1,[2,'x'],true],b=[]}");
  EXPECT_EQ(parsed("a = {x = 1, y.z = 2}\nb = {}"), "{a={x=1,y={z=2}},b={}}");
}

TEST(Toml, TablesAndKeys) {
  EXPECT_EQ(parsed("\xef\xbb\xbf"
                   "a.b = 1\r\na.c = 2\r\n[t]\r\nx = 1\r\n"),
            "{a={b=1,c=2},t={x=1}}");
  EXPECT_EQ(parsed("[a.b]\nx=1\n[a]\ny=2\n[a.c]\nz=3"), "{a={b={x=1},c={z=3},y=2}}");
  EXPECT_EQ(parsed("[[l]]\nx=1\n[l.t]\ny=2\n[[l]]\nx=3\n[[l.m]]\n[[l.m]]"), "{l=[{t={y=2},x=1},{m=[{},{}],x=3}]}");
  EXPECT_EQ(parsed("\"a b\" = 1\n'c.d'.e = 2\n[ x . \"y z\" ]"), "{a b=1,c.d={e=2},x={y z={}}}");
  EXPECT_EQ(parsed(""), "{}");
}

TEST(Toml, LinesOfValues) {
  const TomlTable t = parse_toml("\n# c\na = [\n1,\n2]\n[t]\nb = 3\n", "f");
  EXPECT_EQ(t.at("a").line, 3);
  EXPECT_EQ(t.at("t").line, 6);
  EXPECT_EQ(t.at("t").as<TomlTable>()->at("b").line, 7);
}

TEST(Toml, RefusesWithTheLine) {
  for (const char* text : {"a = 1\na = 2", "[a]\n[a]", "a.b = 1\n[a]", "a = 1\n[a]", "a = {}\n[a.b]", "a = [{}]\n[[a]]",
                           "[[a]]\n[a]", "[a]\nb.c = 1\n[a.b]", "a = 1\na.b = 2", "a = {b = 1}\na.c = 2"})
    EXPECT_TRUE(refusal(text).find("is defined twice") != std::string::npos ||
                refusal(text).find("is no table") != std::string::npos)
        << text << ": " << refusal(text);
  for (const char* text : {"a",
                           "a =",
                           "= 1",
                           "a = 1 2",
                           "a = 01",
                           "a = 1.",
                           "a = .5",
                           "a = 1_",
                           "a = _1",
                           "a = 1__0",
                           "a = 0x",
                           "a = 0xg",
                           "a = -0x1",
                           "a = 1e",
                           "a = 1.e5",
                           "a = 9223372036854775808",
                           "a = 1e999",
                           "a = x",
                           "a = \"x",
                           "a = \"x\ny\"",
                           "a = \"\\q\"",
                           "a = \"\\ud800\"",
                           "a = \"\\u12\"",
                           "a = 'x",
                           "a = \"\"\"x\"\"\"",
                           "a = [1",
                           "a = [1 2]",
                           "a = {x = 1",
                           "a = {x = 1,}",
                           "a = {x = 1\n}",
                           "[a",
                           "[]",
                           "[[a]",
                           "[a]]",
                           "[a] b = 1",
                           "a = 2020-01-01",
                           "a = 1:2",
                           "[^x]",
                           "[[^x]]",
                           "a..b = 1",
                           "a = \x01",
                           "a = \"\x7f\"",
                           "a = \xff",
                           "e=2e\xef\xbb\xbb*tm"})
    EXPECT_TRUE(refusal(text).starts_with("f:1: ") || refusal(text).starts_with("f:2: "))
        << text << ": " << refusal(text);
  EXPECT_EQ(refusal("\na = yes"), "f:2: \"yes\" is no value; texts stand in quotes");
  EXPECT_EQ(refusal("a = 1\nb = 2\na = 3"), "f:3: 'a' is defined twice");
  EXPECT_EQ(refusal("a = " + std::string(100, '[')), "f:1: nested too deeply");
  EXPECT_EQ(refusal(std::string(64, 'a') + std::string(200, '.')).substr(0, 5), "f:1: ");
}

TEST(Toml, ValueAlone) {
  EXPECT_EQ(shown(parse_toml_value(" [1, \"x\"] ")), "[1,'x']");
  EXPECT_THROW(parse_toml_value("1\n2"), Error);
  EXPECT_THROW(parse_toml_value(""), Error);
}

}  // namespace
}  // namespace gov::train

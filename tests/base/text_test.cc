// UTF-8 and the JSON writer.

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json_writer.h"
#include "base/utf8.h"

namespace gov {
namespace {

TEST(Utf8, EveryScalarValueRoundTrips) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    utf8_append(text, c);
    const Utf8Char read = utf8_next(text);
    ASSERT_TRUE(read.valid) << static_cast<std::uint32_t>(c);
    ASSERT_EQ(read.code_point, c);
    ASSERT_EQ(read.length, text.size());
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Char part = utf8_next(std::string_view(text).substr(0, cut));
      ASSERT_TRUE(!part.valid && part.incomplete && part.length == cut);
    }
  }
}

TEST(Utf8, InvalidSequences) {
  // Overlong forms, a surrogate, above U+10FFFF, stray continuation, impossible leads: one byte is taken.
  for (const char* text : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                           "\xF4\x90\x80\x80", "\xF5\x80", "\x80", "\xFF"}) {
    const Utf8Char c = utf8_next(text);
    EXPECT_FALSE(c.valid) << text;
    EXPECT_FALSE(c.incomplete) << text;
    EXPECT_EQ(c.length, 1) << text;
  }
  const Utf8Char c = utf8_next("\xE2\x82(");  // a valid prefix of two bytes, then something else
  EXPECT_TRUE(!c.valid && !c.incomplete && c.length == 2);
  EXPECT_TRUE(utf8_valid("gr\xC3\xBC\xC3\x9F"));
  EXPECT_FALSE(utf8_valid("gr\xC3"));
}

TEST(JsonWriter, NestingAndEscapes) {
  JsonWriter w;
  w.begin_object().field("a", 1).key("b").begin_array().value("x\"\\\n\x01").value(true).null().value(0.1).end_array();
  w.key("c").begin_object().end_object().field("d", std::int64_t{-5}).end_object();
  EXPECT_EQ(w.str(), R"({"a":1,"b":["x\"\\\n\u0001",true,null,0.1],"c":{},"d":-5})");
  EXPECT_EQ(json_quote("\xFF ok \xE2\x82"), "\"\xEF\xBF\xBD ok \xEF\xBF\xBD\"");
  JsonWriter nan;
  nan.value(0.0 / 0.0);
  EXPECT_EQ(nan.str(), "null");
}

TEST(Printable, OneLineOfAscii) {
  EXPECT_EQ(printable("a\nb\x1b[31m\xC3\xBC"), "a?b?[31m??");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace gov

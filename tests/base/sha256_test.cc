// The vectors of FIPS 180-4 and of NIST's SHAVS, and every way to cut a text.
#include "base/sha256.h"

#include <gtest/gtest.h>

#include <string>

#include <fmt/format.h>

namespace gov {
namespace {

std::string hex(const Sha256Digest& digest) {
  std::string out;
  for (const std::uint8_t byte : digest) out += fmt::format("{:02x}", byte);
  return out;
}
std::string hash(std::string_view text) { return hex(sha256(std::as_bytes(std::span(text)))); }

TEST(Sha256, PublishedVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopq"
                 "rstnopqrstu"),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  EXPECT_EQ(hash(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnThePieces) {
  for (std::size_t length = 0; length < 200; ++length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>(i * 37 + length);
    const auto bytes = std::as_bytes(std::span(text));
    const Sha256Digest whole = sha256(bytes);
    for (std::size_t cut = 0; cut <= length; cut += 1 + length / 16) {
      EXPECT_EQ(Sha256().update(bytes.first(cut)).update(bytes.subspan(cut)).digest(), whole) << length << ", " << cut;
    }
  }
}

}  // namespace
}  // namespace gov

#include "train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>

#include "base/error.h"

namespace gov::train {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

template <class T>
void put_little_endian(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i));
}

// Records are masked so that checksums of data that hold checksums stay good.
std::uint32_t masked(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_key(std::string& out, std::uint32_t field, Wire wire) { put_varint(out, (field << 3) | wire); }
void put_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event(double wall_time) {
  std::string out;
  put_key(out, 1, kFixed64);
  put_little_endian(out, std::bit_cast<std::uint64_t>(wall_time));
  return out;
}

std::string host_name() {
  char name[65] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == 0) return "host";
  std::string text = name;
  for (char& c : text)
    if (c == '/' || static_cast<unsigned char>(c) <= 0x20) c = '-';
  return text;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

std::string tf_record(std::string_view data) {
  std::string out;
  put_little_endian(out, static_cast<std::uint64_t>(data.size()));
  put_little_endian(out, masked(crc32c(out)));
  out += data;
  put_little_endian(out, masked(crc32c(data)));
  return out;
}

std::string version_event(double wall_time) {
  std::string out = event(wall_time);
  put_bytes(out, 3, "brain.Event:2");
  return out;
}

std::string scalar_event(double wall_time, std::int64_t step, std::string_view tag, float value) {
  std::string scalar, summary, out = event(wall_time);
  put_bytes(scalar, 1, tag);
  put_key(scalar, 2, kFixed32);
  put_little_endian(scalar, std::bit_cast<std::uint32_t>(value));
  put_bytes(summary, 1, scalar);
  put_key(out, 2, kVarint);
  put_varint(out, static_cast<std::uint64_t>(step));
  put_bytes(out, 5, summary);
  return out;
}

EventFile::EventFile(const std::filesystem::path& folder, double wall_time) {
  const std::string name =
      fmt::format("events.out.tfevents.{:010}.{}.{}", static_cast<std::int64_t>(wall_time), host_name(), ::getpid());
  for (int number = 0; !file_; ++number) {
    path_ = folder / fmt::format("{}.{}", name, number);
    file_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!file_ && errno != EEXIST) fail_errno("create", path_, errno);
  }
  pending_ = tf_record(version_event(wall_time));
}

void EventFile::add(double wall_time, std::int64_t step, std::string_view tag, float value) {
  pending_ += tf_record(scalar_event(wall_time, step, tag, value));
}

void EventFile::flush() {
  write_exactly(file_, written_, std::as_bytes(std::span(pending_)), path_);
  written_ += pending_.size();
  pending_.clear();
}

}  // namespace gov::train

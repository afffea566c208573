// The safetensors validator on arbitrary bytes. The first byte chooses: the rest is a file, or it is a header to which
// a matching length and a small file size are made, so that mutations reach the rules behind the JSON.

#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "io/safetensors.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

// What acceptance promises: the tensors cover the data in order, and every size is what dtype and shape say.
void check_entries(const std::vector<gov::SafetensorsEntry>& entries, std::uint64_t data_begin,
                   std::uint64_t file_bytes) {
  std::uint64_t covered = data_begin;
  for (const gov::SafetensorsEntry& entry : entries) {
    require(entry.begin == covered && entry.end >= entry.begin);
    if (entry.dtype) {
      require(entry.bytes() == static_cast<std::uint64_t>(entry.shape.elements()) * gov::dtype_size(*entry.dtype));
    }
    covered = entry.end;
  }
  require(covered == file_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  std::uint64_t file_bytes = bytes.size();
  try {
    std::map<std::string, std::string> metadata;
    if (data[0] % 2 == 0) {
      const auto entries = gov::parse_safetensors(bytes, &metadata);
      check_entries(entries, 8 + gov::safetensors_header_bytes(bytes, file_bytes), file_bytes);
    } else {
      file_bytes = 8 + bytes.size() + data[0] / 2;
      check_entries(gov::parse_safetensors_header(bytes, file_bytes, &metadata), 8 + bytes.size(), file_bytes);
    }
  } catch (const gov::SafetensorsError& error) {
    require(error.offset() <= file_bytes);
  }
  return 0;
}

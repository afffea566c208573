// Token shards: any bytes give views or an Error, and every document of an accepted shard gives a sample or an Error.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "train/shard.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gov::train;
  std::vector<std::uint64_t> aligned(size / 8 + 1);
  std::memcpy(aligned.data(), data, size);
  ShardView view;
  try {
    view = parse_shard({reinterpret_cast<const std::byte*>(aligned.data()), size});
  } catch (const gov::Error&) {
    return 0;
  }
  for (std::int64_t i = 0; i < std::min<std::int64_t>(view.size(), 1000); ++i) {
    try {
      const ShardDocument document = shard_document(view, i);
      if (document.sample.tokens.empty()) std::abort();
      const Sample whole = with_images(document.sample, std::vector<SharedPixels>(document.images.size()), 3);
      if (whole.images.size() != document.images.size()) std::abort();
      for (const std::int32_t token : whole.tokens)
        if (token >= view.vocab_size) std::abort();
    } catch (const gov::Error&) {
    }
  }
  return 0;
}

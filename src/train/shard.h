#pragma once
// Token shards: documents that are tokenised already. A shard is a safetensors file with
//   tokens     I32 [N]      token ids, -1 where an image stands
//   mask       U8  [N]      0: not trained, 1: trained, 2: trained, and the label is the end token
//   documents  I64 [D + 1]  where documents begin in `tokens`, from 0 to N, each at least one long
// and, if there are images,
//   image_starts I64 [D + 1]  where documents' images begin in the list below, from 0 to the number of images
//   image_ends   I64 [I]      where each path ends in `image_paths`, ascending; each begins where the one before ended
//   image_paths  U8 [P]       paths relative to the shard's folder, UTF-8
// Metadata: "format" = "gov-token-shard-1", "vocab_size", "end_token" (-1: none), both decimal.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"
#include "train/sample.h"

namespace gov::train {

// The arrays of one shard, views of the file.
struct ShardView {
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> mask;
  std::span<const std::int64_t> documents, image_starts, image_ends;
  std::string_view image_paths;
  std::int64_t vocab_size = 0;
  std::int32_t end_token = -1;

  std::int64_t size() const { return static_cast<std::int64_t>(documents.size()) - 1; }
};

// Views of a file in memory, whose first byte lies on a multiple of 8. Error kCorrupt: no shard of this format, arrays
// that do not fit together. Tokens and masks of a document are looked at when it is read.
ShardView parse_shard(std::span<const std::byte> file);

struct ShardDocument {
  Sample sample;                         // without its images: kImageRow once for each
  std::vector<std::string_view> images;  // paths, in order
};
// Error kCorrupt: a token or a mask out of range, images that do not match their places.
ShardDocument shard_document(const ShardView& shard, std::int64_t index);

// Puts each image's rows in the place of its kImageRow.
Sample with_images(const Sample& sample, std::span<const SharedPixels> images, std::int64_t image_rows);

class ShardFile {
 public:
  explicit ShardFile(const std::filesystem::path& path);  // Errors of MappedFile and parse_shard, with the path
  const ShardView& view() const { return view_; }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  ShardView view_;
};

// Collects documents and writes one shard. In memory it holds what it will write.
class ShardWriter {
 public:
  ShardWriter(std::int64_t vocab_size, std::int32_t end_token) : vocab_size_(vocab_size), end_token_(end_token) {}
  // `sample` holds kImageRow once for each of `images`; its labels are its tokens or the end token, its weights 0 or
  // 1. Error kInvalidArgument otherwise.
  void add(const Sample& sample, std::span<const std::string> images = {});
  std::int64_t tokens() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t documents() const { return static_cast<std::int64_t>(documents_.size()) - 1; }
  void write(const std::filesystem::path& path) const;

 private:
  std::int64_t vocab_size_;
  std::int32_t end_token_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint8_t> mask_;
  std::vector<std::int64_t> documents_{0}, image_starts_{0}, image_ends_;
  std::string image_paths_;
};

}  // namespace gov::train

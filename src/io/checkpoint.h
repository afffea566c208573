#pragma once
// A model's weights on disk: one safetensors file or a folder with shards and their index; and the writer of such
// folders.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace gov {

// All tensors of a checkpoint, mapped. Move-only; tensors are views that live as long as it, and moving keeps them
// valid.
class Checkpoint {
 public:
  // What may be given:
  //   a folder   model.safetensors, else model.safetensors.index.json, else the only *.safetensors.index.json, else the
  //              only *.safetensors in it
  //   a file     *.index.json with its shards beside it, otherwise a safetensors file by itself
  // Every tensor of the index must be in the shard that it names and in no other, and shards hold nothing else.
  // Error kNotFound (nothing there, a shard is missing), kCorrupt (SafetensorsError, index and shards disagree, a name
  // or link that leaves the folder), kInvalidArgument (several candidates), kIo.
  static Checkpoint open(const std::filesystem::path& folder_or_file);

  // Error kUnsupported if the tensor has a type that DType lacks.
  std::optional<Tensor> find(std::string_view name) const;
  struct Location {
    const SafetensorsFile* file;
    const SafetensorsEntry* entry;
  };
  std::optional<Location> locate(std::string_view name) const;
  std::vector<std::string_view> names() const;  // sorted
  std::uint64_t tensor_bytes() const { return tensor_bytes_; }
  std::uint64_t file_bytes() const { return file_bytes_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::filesystem::path& folder() const { return folder_; }
  // To be called when loading is done: Error kIo if a file was written to or replaced by another since open(), so that
  // weights of two checkpoints are never mixed silently.
  void check_unchanged() const;

 private:
  struct Name {
    std::string_view name;
    std::uint32_t file, entry;
  };
  void open_index(const std::filesystem::path& index);
  void collect_names();

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::vector<Name> names_;  // sorted by name; the text belongs to the files' entries
  std::uint64_t tensor_bytes_ = 0, file_bytes_ = 0;
};

// Writes a checkpoint folder, streaming: shards of at most max_shard_bytes of tensor data (a larger tensor gets a shard
// of its own), the index, and any small files. All of it goes to "<folder>.part-<random>" beside the target, which
// finish() renames into place; without finish() nothing remains.
class CheckpointWriter {
 public:
  // Error kInvalidArgument if `folder` exists and is not an empty folder, or as SafetensorsWriter; kNotFound if its
  // parent is missing. Every shard carries `metadata`.
  CheckpointWriter(const std::filesystem::path& folder, std::vector<TensorSpec> tensors, std::uint64_t max_shard_bytes,
                   const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // The next bytes of tensor `name`, tensors in the order of the list, each in any number of calls.
  // Error kInvalidArgument if another tensor is due or the tensor has no room for them.
  void write(std::string_view name, std::span<const std::byte> bytes);
  // A small file beside the shards, e.g. config.json; `name` must be plain (is_plain_file_name) and new.
  void add_file(std::string_view name, std::string_view text);
  // Error kInvalidArgument if data is missing or the target has come into being meanwhile.
  void finish();

 private:
  struct Shard {
    std::string file;
    std::size_t first, count;  // tensors
  };
  void plan_shards(std::uint64_t max_shard_bytes);
  void open_shard();
  void close_shard();
  bool is_complete() const;
  void next_tensor();
  std::string index_json() const;

  std::filesystem::path target_, part_;
  std::vector<TensorSpec> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<Shard> shards_;
  std::optional<SafetensorsWriter> writer_;  // of shards_[shard_]
  std::size_t shard_ = 0;
  std::size_t tensor_ = 0;     // the tensor that is due
  std::uint64_t written_ = 0;  // bytes of it
};

}  // namespace gov

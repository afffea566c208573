#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/json_writer.h"
#include "io/checkpoint.h"
#include "io/weight_map.h"

namespace gov {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";

void check_target(const fs::path& target) {
  if (target.empty() || !target.has_filename() || target.filename() == "." || target.filename() == "..") {
    fail(ErrorCode::kInvalidArgument, "'{}' is not a name for a new folder", path_text(target));
  }
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) fail(ErrorCode::kInvalidArgument, "{} exists and is not a folder", path_text(target));
  if (!fs::is_empty(target, error)) fail(ErrorCode::kInvalidArgument, "{} exists and is not empty", path_text(target));
}

}  // namespace

CheckpointWriter::CheckpointWriter(const fs::path& folder, std::vector<TensorSpec> tensors,
                                   std::uint64_t max_shard_bytes, const std::map<std::string, std::string>& metadata)
    : target_(folder.has_filename() ? folder : folder.parent_path()),
      tensors_(std::move(tensors)),
      metadata_(metadata) {
  check_target(target_);
  check_tensor_specs(tensors_);
  plan_shards(max_shard_bytes);
  const fs::path part = target_.parent_path() / part_name(target_.filename().native());
  if (::mkdir(part.c_str(), 0777) != 0) fail_errno("create folder", part, errno);
  part_ = part;
  try {
    open_shard();
  } catch (...) {  // no destructor runs for an object whose constructor throws
    std::error_code ignored;
    fs::remove_all(part_, ignored);
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() {
  writer_.reset();
  std::error_code ignored;
  if (!part_.empty()) fs::remove_all(part_, ignored);
}

void CheckpointWriter::plan_shards(std::uint64_t max_shard_bytes) {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const std::uint64_t size = tensors_[i].bytes();
    if (shards_.empty() || size > max_shard_bytes || bytes > max_shard_bytes - size) {
      shards_.push_back({"", i, 0});
      bytes = 0;
    }
    bytes += size;
    ++shards_.back().count;
  }
  if (shards_.empty()) shards_.push_back({"", 0, 0});
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].file = shards_.size() == 1 ? "model.safetensors"
                                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
  }
}

void CheckpointWriter::open_shard() {
  const Shard& shard = shards_[shard_];
  const auto first = tensors_.begin() + static_cast<std::ptrdiff_t>(shard.first);
  writer_.emplace(part_ / shard.file, std::vector<TensorSpec>(first, first + static_cast<std::ptrdiff_t>(shard.count)),
                  metadata_);
}

void CheckpointWriter::close_shard() {
  writer_->finish();
  writer_.reset();
  if (++shard_ < shards_.size()) open_shard();
}

bool CheckpointWriter::is_complete() const { return written_ == tensors_[tensor_].bytes(); }

void CheckpointWriter::next_tensor() {
  ++tensor_;
  written_ = 0;
  while (writer_ && tensor_ == shards_[shard_].first + shards_[shard_].count) close_shard();
}

void CheckpointWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  while (tensor_ < tensors_.size() && tensors_[tensor_].name != name && is_complete()) next_tensor();
  if (tensor_ >= tensors_.size() || tensors_[tensor_].name != name) {
    fail(ErrorCode::kInvalidArgument, "{}: data of tensor '{}' came when '{}' was due", path_text(target_),
         printable(name), tensor_ < tensors_.size() ? printable(tensors_[tensor_].name) : "no tensor");
  }
  if (bytes.size() > tensors_[tensor_].bytes() - written_) {
    fail(ErrorCode::kInvalidArgument, "{}: tensor '{}' needs {} bytes, {} were given", path_text(target_),
         printable(name), tensors_[tensor_].bytes(), written_ + bytes.size());
  }
  writer_->write(bytes);
  written_ += bytes.size();
}

void CheckpointWriter::add_file(std::string_view name, std::string_view text) {
  if (!is_plain_file_name(name)) {
    fail(ErrorCode::kInvalidArgument, "'{}' is not a plain file name", printable(name));
  }
  const bool reserved = name == kIndexName || std::any_of(shards_.begin(), shards_.end(),
                                                          [&](const Shard& shard) { return shard.file == name; });
  if (reserved || fs::exists(part_ / name)) {
    fail(ErrorCode::kInvalidArgument, "{}: the file {} is there already", path_text(target_), name);
  }
  write_file_atomic(part_ / name, std::as_bytes(std::span(text)));
}

std::string CheckpointWriter::index_json() const {
  std::uint64_t total = 0;
  std::map<std::string_view, std::string_view> map;
  for (const Shard& shard : shards_) {
    for (std::size_t i = shard.first; i < shard.first + shard.count; ++i) {
      map.emplace(tensors_[i].name, shard.file);
      total += tensors_[i].bytes();
    }
  }
  JsonWriter json;
  json.begin_object().key("metadata").begin_object().field("total_size", total).end_object();
  json.key("weight_map").begin_object();
  for (const auto& [tensor, file] : map) json.field(tensor, file);
  return json.end_object().end_object().take();
}

void CheckpointWriter::finish() {
  if (part_.empty()) fail(ErrorCode::kInvalidArgument, "{} is already finished", path_text(target_));
  while (tensor_ < tensors_.size() && is_complete()) next_tensor();
  if (tensor_ != tensors_.size()) {
    fail(ErrorCode::kInvalidArgument, "{}: the data of tensor '{}' is missing", path_text(target_),
         printable(tensors_[tensor_].name));
  }
  if (writer_) close_shard();  // a checkpoint without tensors
  if (shards_.size() > 1) {
    const std::string json = index_json();
    write_file_atomic(part_ / kIndexName, std::as_bytes(std::span(json)));
  }
  sync_folder(part_);
  // rename() takes the place of a missing or an empty folder only, atomically.
  if (std::rename(part_.c_str(), target_.c_str()) != 0) {
    if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) {
      fail(ErrorCode::kInvalidArgument, "{} exists and is not empty", path_text(target_));
    }
    fail_errno("rename to", target_, errno);
  }
  part_.clear();
  sync_folder(folder_of(target_));
}

}  // namespace gov

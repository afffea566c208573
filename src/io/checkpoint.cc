#include "io/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>

#include "io/beneath.h"
#include "io/weight_map.h"

namespace gov {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxIndexBytes = std::uint64_t{128} << 20;
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

bool ends_with(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

// The names in a folder that end with `suffix`, sorted.
std::vector<std::string> names_with_suffix(const fs::path& folder, std::string_view suffix) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator item(folder, error);
  for (; !error && item != fs::directory_iterator(); item.increment(error)) {
    std::string name = item->path().filename().native();
    if (ends_with(name, suffix) && is_plain_file_name(name)) names.push_back(std::move(name));
  }
  if (error) fail_errno("list", folder, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// The file in a folder that stands for the whole checkpoint: a safetensors file or an index.
std::string main_file(const fs::path& folder) {
  const std::vector<std::string> files = names_with_suffix(folder, ".safetensors");
  const std::vector<std::string> indices = names_with_suffix(folder, kIndexSuffix);
  if (std::binary_search(files.begin(), files.end(), kSingleName)) return std::string(kSingleName);
  if (std::binary_search(indices.begin(), indices.end(), kIndexName)) return std::string(kIndexName);
  const std::vector<std::string>& candidates = indices.empty() ? files : indices;
  if (candidates.empty()) {
    fail(ErrorCode::kNotFound, "{} holds no model.safetensors and no model.safetensors.index.json", path_text(folder));
  }
  if (candidates.size() > 1) {
    fail(ErrorCode::kInvalidArgument, "{} holds several candidates ({}, {}, ...); name one of them", path_text(folder),
         candidates[0], candidates[1]);
  }
  return candidates[0];
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& folder_or_file) {
  Checkpoint checkpoint;
  struct stat status {};
  if (::stat(folder_or_file.c_str(), &status) != 0) fail_errno("open", folder_or_file, errno);
  const bool is_folder = S_ISDIR(status.st_mode);
  checkpoint.folder_ = is_folder ? folder_or_file : folder_of(folder_or_file);
  const fs::path file = is_folder ? folder_or_file / main_file(folder_or_file) : folder_or_file;
  if (ends_with(file.native(), ".index.json")) {
    checkpoint.open_index(file);
  } else if (is_folder) {
    checkpoint.files_.push_back(SafetensorsFile::open(Folder(folder_or_file).open(file.filename().native()), file));
  } else {
    checkpoint.files_.push_back(SafetensorsFile::open(file));  // the user's own path: links in it are the user's
  }
  checkpoint.collect_names();
  return checkpoint;
}

void Checkpoint::open_index(const fs::path& index) {
  const Folder folder(folder_);
  const std::string json = read_all_text(folder.open(index.filename().native()), kMaxIndexBytes, index);
  const std::vector<WeightMapEntry> map = parse_weight_map(json, path_text(index));
  std::map<std::string_view, std::size_t> expected;  // shard -> number of tensors
  for (const WeightMapEntry& entry : map) ++expected[entry.file];
  std::unordered_map<std::string_view, std::uint32_t> file_of;
  for (const auto& [shard, count] : expected) {
    file_of.emplace(shard, static_cast<std::uint32_t>(files_.size()));
    files_.push_back(SafetensorsFile::open(folder.open(shard), folder_ / shard));
  }
  std::unordered_map<std::string_view, std::uint32_t> file_of_tensor;
  file_of_tensor.reserve(map.size());
  for (const WeightMapEntry& entry : map) {
    const std::uint32_t file = file_of.at(entry.file);
    file_of_tensor.emplace(entry.tensor, file);
    if (!files_[file].find(entry.tensor)) {
      fail(ErrorCode::kCorrupt, "{}: tensor '{}' is not in {}", path_text(index), printable(entry.tensor), entry.file);
    }
  }
  for (std::uint32_t file = 0; file < files_.size(); ++file) {
    for (const SafetensorsEntry& entry : files_[file].entries()) {
      const auto listed = file_of_tensor.find(entry.name);
      if (listed != file_of_tensor.end() && listed->second == file) continue;
      const std::string where = listed == file_of_tensor.end() ? "the index does not list" : "the index puts elsewhere";
      fail(ErrorCode::kCorrupt, "{} holds tensor '{}', which {}", path_text(files_[file].path()), printable(entry.name),
           where);
    }
  }
}

void Checkpoint::collect_names() {
  for (std::uint32_t file = 0; file < files_.size(); ++file) {
    const auto entries = files_[file].entries();
    file_bytes_ += files_[file].mapped().bytes().size();
    for (std::uint32_t entry = 0; entry < entries.size(); ++entry) {
      names_.push_back({entries[entry].name, file, entry});
      tensor_bytes_ += entries[entry].bytes();
    }
  }
  std::sort(names_.begin(), names_.end(), [](const Name& a, const Name& b) { return a.name < b.name; });
}

std::optional<Checkpoint::Location> Checkpoint::locate(std::string_view name) const {
  const auto at = std::lower_bound(names_.begin(), names_.end(), name,
                                   [](const Name& a, std::string_view n) { return a.name < n; });
  if (at == names_.end() || at->name != name) return std::nullopt;
  return Location{&files_[at->file], &files_[at->file].entries()[at->entry]};
}

std::optional<Tensor> Checkpoint::find(std::string_view name) const {
  const std::optional<Location> location = locate(name);
  if (!location) return std::nullopt;
  return location->file->tensor(*location->entry);
}

std::vector<std::string_view> Checkpoint::names() const {
  std::vector<std::string_view> names;
  names.reserve(names_.size());
  for (const Name& name : names_) names.push_back(name.name);
  return names;
}

void Checkpoint::check_unchanged() const {
  for (const SafetensorsFile& file : files_) {
    file.mapped().check_unchanged();
    struct stat status {};
    if (::stat(file.path().c_str(), &status) != 0) fail_errno("inspect", file.path(), errno);
    const FileStamp& opened = file.mapped().stamp();
    if (status.st_dev != opened.device || status.st_ino != opened.inode) {
      fail(ErrorCode::kIo, "{} was replaced while it was being loaded", path_text(file.path()));
    }
  }
}

}  // namespace gov

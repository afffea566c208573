#pragma once
// Opening a model folder's files by names that come from the folder itself, without ever leaving it.

#include <filesystem>
#include <string>
#include <string_view>

#include "io/file_descriptor.h"

namespace gov {

// A folder held open: what it names stays the same folder even if its path is renamed or replaced meanwhile.
class Folder {
 public:
  // Error kNotFound if it is missing or is no folder.
  explicit Folder(const std::filesystem::path& path);

  // Opens `name` (is_plain_file_name, otherwise Error kCorrupt) for reading. A symbolic link is followed only to a
  // plain name in the same folder or, inside a Hugging Face cache (.../snapshots/<revision>/), to "../../blobs/<hex>"
  // of the same cache; the target itself must not be a link again. Error kCorrupt for any other link, kNotFound if
  // missing.
  FileDescriptor open(std::string_view name) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  FileDescriptor open_link_target(const std::string& name) const;
  FileDescriptor open_cache_blob(std::string_view target, const std::filesystem::path& full) const;

  std::filesystem::path path_;
  FileDescriptor folder_;
};

}  // namespace gov

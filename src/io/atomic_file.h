#pragma once
// A file that appears under its name complete and synced, or not at all.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "io/file_descriptor.h"

namespace gov {

// "<name>.part-<16 hex digits>": unused as far as chance goes; creators still use O_EXCL or mkdir.
std::string part_name(const std::string& name);

class AtomicFile {
 public:
  // Creates "<path>.part-<random>" in the same folder. Error if the folder is missing or cannot be written.
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();  // removes the part file unless commit() succeeded
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  // Syncs the data, renames over the final name (an older file there is replaced), syncs the folder. Once only.
  void commit();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_, part_;
  FileDescriptor file_;
};

}  // namespace gov

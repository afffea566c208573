#pragma once
// Whole files: mapped read-only, read as text, written atomically.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "io/file_descriptor.h"

namespace gov {

// A regular file mapped read-only. Move-only; the bytes keep their address when it is moved.
//
// A file that is replaced (renamed over) stays intact here, since the map holds the old one. A file that is cut in
// place while mapped is different: touching bytes() beyond its new end raises SIGBUS, which no library can catch
// cleanly. Code that wants an Error instead reads with read_at(); check_unchanged() tells after the fact whether the
// bytes were stable.
class MappedFile {
 public:
  // Error kNotFound or kIo with the path; kInvalidArgument if it is not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  // Takes an open file over; `path` is used in messages only.
  MappedFile(FileDescriptor file, std::filesystem::path path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Empty for an empty file. The first byte lies on a page boundary.
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }
  const FileStamp& stamp() const { return stamp_; }

  // Copies bytes [offset, offset + out.size()) through read calls; Error kIo if the file has become shorter.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;
  // Error kIo if size or modification time are no longer those of the moment when the file was opened.
  void check_unchanged() const;

  // Hints for the system's read-ahead; they cannot fail.
  void will_need() const;
  void sequential() const;
  // Brings bytes [offset, offset + count) into memory and into the page tables, so that later reads do not fault.
  // Safe to call from several threads. Error kIo if the file has become shorter or cannot be read.
  void prefault(std::uint64_t offset, std::uint64_t count) const;
  // The whole file, by all threads of the pool.
  void prefault(ThreadPool& pool) const;

 private:
  FileDescriptor file_;
  std::filesystem::path path_;
  FileStamp stamp_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// The bytes of a regular file; Error kInvalidArgument if there are more than max_bytes.
std::string read_text_file(const std::filesystem::path& path, std::uint64_t max_bytes);

// Writes beside `path` under a temporary name, syncs, renames over `path` and syncs the folder: after a crash `path` is
// either the old file or the new one. A symbolic link at `path` is replaced, not followed.
void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace gov

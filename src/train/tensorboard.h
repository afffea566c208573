#pragma once
// Event files that TensorBoard reads: TFRecords of Event messages (tensorflow/core/util/event.proto), scalars only.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "io/file_descriptor.h"

namespace gov::train {

// CRC-32C (Castagnoli, RFC 3720 B.4).
std::uint32_t crc32c(std::string_view bytes);
// Length, its masked checksum, the data, theirs.
std::string tf_record(std::string_view data);
// Messages in protocol buffers' wire form.
std::string version_event(double wall_time);  // the first of every file
std::string scalar_event(double wall_time, std::int64_t step, std::string_view tag, float value);

// Appends to "events.out.tfevents.<seconds>.<host>.<process>.<number>" in `folder`, which must exist. Several files in
// one folder are one run, so a resumed run starts another.
class EventFile {
 public:
  EventFile(const std::filesystem::path& folder, double wall_time);
  void add(double wall_time, std::int64_t step, std::string_view tag, float value);
  void flush();  // what was added reaches the file
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::uint64_t written_ = 0;
  std::string pending_;
};

}  // namespace gov::train

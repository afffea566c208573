#pragma once
// The safetensors format (github.com/huggingface/safetensors): 8 bytes header length N (little endian), N bytes of JSON
//   {"<name>": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}}
// then the data, which the tensors cover without hole or overlap. Offsets count from the end of the header.
//
// The reader is stricter than the format's reference where that one is lenient: no duplicate keys (compared after their
// escapes are decoded), no unknown keys in an entry, padding after the JSON only as spaces, at most kMaxRank axes.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"
#include "tensor/tensor.h"

namespace gov {

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes, the reference's limit
inline constexpr std::size_t kMaxSafetensorsTensors = 1'000'000;
inline constexpr std::size_t kMaxSafetensorsMetadata = 65'536;  // pairs

// The rule that a file breaks; offset() of the error says where in the file.
enum class SafetensorsRule {
  kTooShort,         // fewer than 8 bytes
  kHeaderTooLarge,   // N > kMaxSafetensorsHeader
  kHeaderTruncated,  // the file ends inside the header
  kHeaderNotUtf8,
  kHeaderNotJson,   // breaks RFC 8259, does not start with '{', or is followed by anything but spaces
  kDuplicateKey,    // two tensors, two metadata keys or two fields of an entry share a name
  kBadMetadata,     // __metadata__ is not an object of strings, or has too many pairs
  kBadEntry,        // an entry is not an object, lacks a field or has an unknown one
  kBadDType,        // dtype is not a string or not a known type
  kBadShape,        // shape is not a list of non-negative integers
  kTooManyAxes,     // more than kMaxRank axes: valid in the format, but not supported here (Error kUnsupported)
  kShapeOverflow,   // the extents or their product with the element size do not fit 63 bits
  kBadOffsets,      // data_offsets is not [begin, end] with begin <= end
  kSizeMismatch,    // end - begin is not what dtype and shape need
  kDataTruncated,   // end lies beyond the file
  kTooManyTensors,  // more than kMaxSafetensorsTensors
  kHole,            // bytes before a tensor belong to no tensor
  kOverlap,         // two tensors share bytes
  kTrailingBytes,   // bytes after the last tensor
};

const char* safetensors_rule_name(SafetensorsRule rule);  // "too_short", ...

class SafetensorsError : public Error {
 public:
  SafetensorsError(SafetensorsRule rule, std::uint64_t offset, const std::string& message);
  SafetensorsRule rule() const { return rule_; }
  std::uint64_t offset() const { return offset_; }  // byte of the file, at most its size

 private:
  SafetensorsRule rule_;
  std::uint64_t offset_;
};

struct SafetensorsEntry {
  std::string name;
  std::string_view stored_dtype;     // as in the file: "F8_E4M3"
  std::optional<DType> dtype;        // empty if DType lacks the stored type; such an entry cannot become a Tensor
  Shape shape;                       // in elements of the stored type
  std::uint64_t begin = 0, end = 0;  // offsets in the file

  std::uint64_t bytes() const { return end - begin; }
  // Whether the data lies on a multiple of its element size. The format does not promise it.
  bool aligned() const { return !dtype || begin == end || begin % dtype_size(*dtype) == 0; }
};

// Validates the first 8 bytes (fewer if the file is shorter) and returns the header's length N.
std::uint64_t safetensors_header_bytes(std::span<const std::byte> start, std::uint64_t file_bytes);

// Validates the N header bytes of a file of `file_bytes` and lists its tensors in the order of their data. Throws
// SafetensorsError. Until the header is known to be valid, at most its own size + 1 MB is allocated.
std::vector<SafetensorsEntry> parse_safetensors_header(std::span<const std::byte> header, std::uint64_t file_bytes,
                                                       std::map<std::string, std::string>* metadata = nullptr);

// The two together, for a file that is in memory.
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::map<std::string, std::string>* metadata = nullptr);

// "BF16", "F32", ...
std::string_view safetensors_dtype_name(DType dtype);

// A mapped file. Its tensors are views that live as long as it; moving it keeps them valid.
class SafetensorsFile {
 public:
  // SafetensorsError with the path in its message, or an Error of MappedFile. The header is read, not mapped.
  static SafetensorsFile open(const std::filesystem::path& path);
  static SafetensorsFile open(FileDescriptor file, const std::filesystem::path& path);

  std::span<const SafetensorsEntry> entries() const { return entries_; }  // by position of their data
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const SafetensorsEntry* find(std::string_view name) const;  // nullptr if absent
  // The data of one of entries(): a view of the map or, if that is not aligned to the element size, of a copy that is
  // made at the first call and kept. Error kUnsupported names a type that DType lacks. Thread-safe.
  Tensor tensor(const SafetensorsEntry& entry) const;
  // Copies an entry's bytes through read calls, for loaders that must not meet SIGBUS; out.size() == entry.bytes().
  void read(const SafetensorsEntry& entry, std::span<std::byte> out) const;

  const MappedFile& mapped() const { return map_; }
  const std::filesystem::path& path() const { return map_.path(); }

 private:
  struct Copies {
    std::mutex mutex;
    std::unordered_map<const SafetensorsEntry*, Buffer> by_entry;
  };
  explicit SafetensorsFile(MappedFile map) : map_(std::move(map)), copies_(std::make_unique<Copies>()) {}

  MappedFile map_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::uint32_t> by_name_;  // indices of entries_, sorted by name
  std::unique_ptr<Copies> copies_;
};

struct TensorSpec {
  std::string name;
  DType dtype;
  Shape shape;
  std::uint64_t bytes() const { return static_cast<std::uint64_t>(shape.elements()) * dtype_size(dtype); }
};

// Error kInvalidArgument: two tensors of one name, a name that is not UTF-8 or is "__metadata__", a negative or
// overflowing shape, too many tensors. The writers call it first.
void check_tensor_specs(std::span<const TensorSpec> tensors);

// Writes one file, streaming. The file appears under its name when finish() has synced it, complete, or never.
// The data starts on a multiple of 64 bytes (the header is padded with spaces) and is ordered by falling element size,
// then by name, as the reference does, so every tensor is aligned; write() still takes the tensors in the caller's
// order.
class SafetensorsWriter {
 public:
  // Error kInvalidArgument as check_tensor_specs, or if the header would exceed the format's limits.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  // The next bytes of the tensors' data, in the order of the list given; a call may end anywhere, also inside an
  // element. Error kInvalidArgument if there is more data than the list needs.
  void write(std::span<const std::byte> bytes);
  // Error kInvalidArgument if data is missing.
  void finish();
  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  AtomicFile file_;
  std::vector<TensorSpec> tensors_;
  std::vector<std::uint64_t> begins_;  // file offset of each tensor
  std::size_t current_ = 0;            // tensor that the next byte belongs to
  std::uint64_t written_ = 0;          // bytes of it already there
  std::uint64_t file_bytes_ = 0;
};

}  // namespace gov

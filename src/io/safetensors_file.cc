#include <algorithm>
#include <array>
#include <numeric>

#include "io/safetensors.h"

namespace gov {

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) { return open(open_for_reading(path), path); }

SafetensorsFile SafetensorsFile::open(FileDescriptor descriptor, const std::filesystem::path& path) {
  SafetensorsFile file{MappedFile(std::move(descriptor), path)};
  const std::uint64_t size = file.map_.bytes().size();
  try {
    std::array<std::byte, 8> start{};
    const std::span<std::byte> prefix =
        std::span(start).first(static_cast<std::size_t>(std::min<std::uint64_t>(size, 8)));
    file.map_.read_at(0, prefix);
    std::vector<std::byte> header(static_cast<std::size_t>(safetensors_header_bytes(prefix, size)));
    file.map_.read_at(start.size(), header);
    file.entries_ = parse_safetensors_header(header, size, &file.metadata_);
  } catch (const SafetensorsError& error) {
    throw SafetensorsError(error.rule(), error.offset(), fmt::format("{}: {}", path_text(path), error.what()));
  }
  file.by_name_.resize(file.entries_.size());
  std::iota(file.by_name_.begin(), file.by_name_.end(), 0u);
  std::sort(file.by_name_.begin(), file.by_name_.end(),
            [&](std::uint32_t a, std::uint32_t b) { return file.entries_[a].name < file.entries_[b].name; });
  return file;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](std::uint32_t index, std::string_view n) { return entries_[index].name < n; });
  if (at == by_name_.end() || entries_[*at].name != name) return nullptr;
  return &entries_[*at];
}

Tensor SafetensorsFile::tensor(const SafetensorsEntry& entry) const {
  GOV_DCHECK(&entry >= entries_.data() && &entry < entries_.data() + entries_.size());
  if (!entry.dtype) {
    fail(ErrorCode::kUnsupported, "{}: tensor '{}' has the type {}, which is not supported", path_text(path()),
         printable(entry.name), entry.stored_dtype);
  }
  // Views are const in spirit: the map is read-only, and Tensor has one pointer type for weights and activations.
  auto* data = const_cast<std::byte*>(map_.bytes().data() + entry.begin);
  if (entry.aligned()) return Tensor(data, *entry.dtype, entry.shape, entry.name);
  const std::lock_guard lock(copies_->mutex);
  auto copy = copies_->by_entry.find(&entry);
  if (copy == copies_->by_entry.end()) {
    Buffer buffer(static_cast<std::size_t>(entry.bytes()), DeviceKind::kCpu, "an unaligned tensor");
    read(entry, {static_cast<std::byte*>(buffer.data()), buffer.bytes()});
    copy = copies_->by_entry.emplace(&entry, std::move(buffer)).first;
  }
  return Tensor(copy->second.data(), *entry.dtype, entry.shape, entry.name);
}

void SafetensorsFile::read(const SafetensorsEntry& entry, std::span<std::byte> out) const {
  if (out.size() != entry.bytes()) {
    fail(ErrorCode::kInvalidArgument, "{}: tensor '{}' has {} bytes, not {}", path_text(path()), printable(entry.name),
         entry.bytes(), out.size());
  }
  map_.read_at(entry.begin, out);
}

}  // namespace gov

#pragma once
// The manifest of a training checkpoint: what files it has, how long they are and their hashes. It is written last, so
// a folder whose manifest fits its files is complete.
//   {"format": "gov-train-checkpoint-1", "step": 1234,
//    "files": [{"name": "state.json", "bytes": 120, "sha256": "<64 hex digits>"}, ...]}

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"

namespace gov::train {

inline constexpr const char* kManifestName = "manifest.json";

struct ManifestFile {
  std::string name;  // relative to the folder, components that are plain file names, joined by '/'
  std::uint64_t bytes = 0;
  Sha256Digest sha256{};
};

struct Manifest {
  std::int64_t step = 0;
  std::vector<ManifestFile> files;
};

// The manifest of everything in the folder but a manifest, sorted by name; syncs all files and folders in it first,
// since some may be another's. Error kInvalidArgument: a name that is not plain, or neither a file nor a folder.
Manifest make_manifest(const std::filesystem::path& folder, std::int64_t step);

std::string manifest_json(const Manifest& manifest);
// Error kCorrupt in one line: anything that manifest_json() would not write. `what` names the file.
Manifest parse_manifest(std::string_view json, std::string_view what);

// The folder's manifest. Error kNotFound: no manifest or a file of it is missing; kCorrupt: it is damaged, or a file
// has another length than it says.
Manifest read_manifest(const std::filesystem::path& folder);
// Reads every file. Error kCorrupt names the first whose bytes are not those that were written.
void verify_manifest(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace gov::train

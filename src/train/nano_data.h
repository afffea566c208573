#pragma once
// The pictures and words that nano is trained on: images.bin (WebP files end to end) and index.json.gz, a JSON object:
//   pictures  [[concept, style, split, offset, length], ...]
//   concepts  [{"label", "tags": [..], "group", "sub", "lang": {"fr": .., ...}, "gloss": [word, text] or null,
//               "hold_design", ...}, ...]
//   glosses   [[word, text], ...]

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "image/image.h"
#include "io/mapped_file.h"

namespace gov::train {

inline constexpr std::array<const char*, 8> kNanoLanguages = {"fr", "de", "es", "it", "pt", "ja", "zh", "ru"};
inline constexpr std::array<const char*, 8> kNanoLanguageNames = {"French",     "German",   "Spanish", "Italian",
                                                                  "Portuguese", "Japanese", "Chinese", "Russian"};

struct NanoGloss {
  std::string word, text;
};

struct NanoConcept {
  std::string label;
  std::vector<std::string> tags;  // sorted, at least one
  std::string group, subgroup;
  std::array<std::string, 8> names;  // in kNanoLanguages
  NanoGloss gloss;                   // word empty: none
  bool hold_design = false;          // no drawing of the held-out style's design is among the training pictures
  bool may_flip = true;              // a mirrored picture still shows the same
};

struct NanoPicture {
  std::size_t concept_index = 0;
  std::string style, split;
  std::uint64_t offset = 0, length = 0;  // bytes of images.bin
};

// The concepts, pictures and glosses of an index. Error kCorrupt naming the place.
struct NanoIndex {
  std::vector<NanoConcept> concepts;
  std::vector<NanoPicture> pictures;
  std::vector<NanoGloss> glosses;
};
NanoIndex parse_nano_index(std::string_view json, std::uint64_t image_bytes);

class NanoData {
 public:
  // Error of MappedFile, gunzip and parse_nano_index, with the path.
  explicit NanoData(const std::filesystem::path& folder);
  const std::vector<NanoConcept>& concepts() const { return index_.concepts; }
  const std::vector<NanoPicture>& pictures() const { return index_.pictures; }
  const std::vector<NanoGloss>& glosses() const { return index_.glosses; }
  const NanoConcept& concept_of(std::size_t picture) const {
    return index_.concepts[index_.pictures[picture].concept_index];
  }
  std::span<const std::byte> encoded(std::size_t picture) const;
  AlphaImage decode(std::size_t picture) const;

  // The pictures of a set, in the order of the index: "train"; and those that are never trained on, "held_style" (the
  // style without a training picture), "held_style_design_unseen" (of these, concepts whose design is in no training
  // picture; not in held_style), "held_twemoji", "held_flat". Error kInvalidArgument for another name.
  std::vector<std::size_t> set(std::string_view name) const;

 private:
  MappedFile images_;
  NanoIndex index_;
};

}  // namespace gov::train

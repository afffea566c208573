#include "train/nano_data.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "io/gzip.h"

namespace gov::train {
namespace {

constexpr std::size_t kMaxIndexBytes = 64u << 20;

const Json& need(const Json& object, const char* name, const std::string& where) {
  const Json* value = object.find(name);
  if (!value) fail(ErrorCode::kCorrupt, "{}.{} is missing", where, name);
  return *value;
}

std::string text(const Json& value, const std::string& where) {
  if (!value.is_string() || value.string().empty()) fail(ErrorCode::kCorrupt, "{} must be a text", where);
  return value.string();
}

const Json::Array& list(const Json& value, const std::string& where, std::size_t length = 0) {
  if (!value.is_array() || (length > 0 && value.array().size() != length))
    fail(ErrorCode::kCorrupt, "{} must be a list{}", where, length > 0 ? fmt::format(" of {}", length) : "");
  return value.array();
}

std::uint64_t number(const Json& value, const std::string& where) {
  if (!value.is_integer() || value.integer() < 0) fail(ErrorCode::kCorrupt, "{} must be a number from 0 on", where);
  return static_cast<std::uint64_t>(value.integer());
}

NanoGloss gloss(const Json& value, const std::string& where) {
  const Json::Array& pair = list(value, where, 2);
  return {text(pair[0], where), text(pair[1], where)};
}

bool contains(std::string_view text, std::string_view word) { return text.find(word) != std::string_view::npos; }

// Directions, letters, clock faces and phases of the moon mean something else in a mirror.
bool flips(const NanoConcept& c) {
  static constexpr const char* kSubgroups[] = {"time",   "finger pointing", "alphanumeric symbols", "keypad characters",
                                               "arrows", "globes & maps"};
  static constexpr const char* kWords[] = {"left", "right", "facing", "moon", "chart", "clock", "calendar", "button"};
  if (c.group == "symbols" || c.group == "flags") return false;
  if (std::find(std::begin(kSubgroups), std::end(kSubgroups), c.subgroup) != std::end(kSubgroups)) return false;
  return std::none_of(std::begin(kWords), std::end(kWords), [&](const char* w) { return contains(c.label, w); });
}

NanoConcept read_concept(const Json& json, const std::string& where) {
  NanoConcept c;
  c.label = text(need(json, "label", where), where + ".label");
  c.group = text(need(json, "group", where), where + ".group");
  c.subgroup = text(need(json, "sub", where), where + ".sub");
  for (const Json& tag : list(need(json, "tags", where), where + ".tags")) c.tags.push_back(text(tag, where + ".tags"));
  if (c.tags.empty()) fail(ErrorCode::kCorrupt, "{}.tags is empty", where);
  const Json& names = need(json, "lang", where);
  for (std::size_t i = 0; i < kNanoLanguages.size(); ++i)
    c.names[i] = text(need(names, kNanoLanguages[i], where + ".lang"), where + ".lang");
  const Json& explanation = need(json, "gloss", where);
  if (!explanation.is_null()) c.gloss = gloss(explanation, where + ".gloss");
  const Json& held = need(json, "hold_design", where);
  if (!held.is_bool()) fail(ErrorCode::kCorrupt, "{}.hold_design must be true or false", where);
  c.hold_design = held.boolean();
  c.may_flip = flips(c);
  return c;
}

NanoPicture read_picture(const Json& json, const std::string& where, std::size_t concepts, std::uint64_t bytes) {
  const Json::Array& fields = list(json, where, 5);
  NanoPicture p;
  p.concept_index = number(fields[0], where);
  p.style = text(fields[1], where);
  p.split = text(fields[2], where);
  p.offset = number(fields[3], where);
  p.length = number(fields[4], where);
  if (p.concept_index >= concepts) fail(ErrorCode::kCorrupt, "{}: there is no concept {}", where, p.concept_index);
  if (p.offset > bytes || p.length > bytes - p.offset)
    fail(ErrorCode::kCorrupt, "{}: bytes {}+{} are not in images.bin", where, p.offset, p.length);
  return p;
}

// A concept whose picture is "X: facing right" tells us that plain X faces left.
void keep_faced_ones(std::vector<NanoConcept>& concepts) {
  for (const NanoConcept& faced : concepts) {
    const std::size_t at = faced.label.find(": facing");
    if (at == std::string::npos) continue;
    for (NanoConcept& other : concepts)
      if (other.label == faced.label.substr(0, at)) other.may_flip = false;
  }
}

}  // namespace

NanoIndex parse_nano_index(std::string_view json, std::uint64_t image_bytes) {
  const Json index = Json::parse(json);
  NanoIndex out;
  for (const Json& item : list(need(index, "concepts", "index"), "concepts"))
    out.concepts.push_back(read_concept(item, fmt::format("concepts[{}]", out.concepts.size())));
  for (const Json& item : list(need(index, "pictures", "index"), "pictures"))
    out.pictures.push_back(
        read_picture(item, fmt::format("pictures[{}]", out.pictures.size()), out.concepts.size(), image_bytes));
  for (const Json& item : list(need(index, "glosses", "index"), "glosses"))
    out.glosses.push_back(gloss(item, fmt::format("glosses[{}]", out.glosses.size())));
  keep_faced_ones(out.concepts);
  return out;
}

NanoData::NanoData(const std::filesystem::path& folder) : images_(folder / "images.bin") {
  const std::filesystem::path path = folder / "index.json.gz";
  try {
    index_ = parse_nano_index(gunzip(MappedFile(path).bytes(), kMaxIndexBytes), images_.bytes().size());
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path_text(path), e.what());
  }
}

std::span<const std::byte> NanoData::encoded(std::size_t picture) const {
  const NanoPicture& p = index_.pictures[picture];
  return images_.bytes().subspan(p.offset, p.length);
}

AlphaImage NanoData::decode(std::size_t picture) const { return decode_image_with_alpha(encoded(picture)); }

std::vector<std::size_t> NanoData::set(std::string_view name) const {
  const bool style = name == "held_style", unseen = name == "held_style_design_unseen";
  const std::string_view split = style || unseen ? "held" : name;
  if (name != "train" && !style && !unseen && name != "held_twemoji" && name != "held_flat")
    fail(ErrorCode::kInvalidArgument,
         "nano.split: \"{}\" is not train, held_style, held_style_design_unseen, held_twemoji or held_flat",
         printable(name, 40));
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < index_.pictures.size(); ++i) {
    if (index_.pictures[i].split != split) continue;
    if ((style || unseen) && concept_of(i).hold_design != unseen) continue;
    out.push_back(i);
  }
  return out;
}

}  // namespace gov::train

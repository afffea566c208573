#pragma once
// Where the records of a text file begin and end. Built in one pass over the mapped file; the data stay there.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"

namespace gov::train {

struct Record {
  std::uint64_t begin = 0, end = 0;  // bytes of the file
};

inline constexpr std::uint64_t kMaxRecordBytes = std::uint64_t{256} << 20;

// One record a line, without the line end; lines of white space are none.
std::vector<Record> index_lines(std::string_view text);
// Runs of lines between blank ones.
std::vector<Record> index_paragraphs(std::string_view text);
// The elements of one JSON array of objects, found by brackets and strings alone. Error kCorrupt, with the offset, when
// the brackets do not close or something other than objects is there.
std::vector<Record> index_json_array(std::string_view text);

// A mapped file and its records.
class RecordFile {
 public:
  enum class Kind { kLines, kParagraphs };
  // A file that begins with '[' is a JSON array, whatever the kind. Error of MappedFile, of index_json_array; kCorrupt
  // for a record of more than kMaxRecordBytes.
  RecordFile(const std::filesystem::path& path, Kind kind);
  std::int64_t size() const { return static_cast<std::int64_t>(records_.size()); }
  std::string_view text(std::int64_t i) const;
  std::int64_t line(std::int64_t i) const;  // of the record's first byte, from 1; reads the file up to there
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  std::string_view all() const;
  MappedFile file_;
  std::vector<Record> records_;
};

}  // namespace gov::train

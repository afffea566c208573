#include "train/record_index.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace gov::train {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_blank(std::string_view line) { return std::all_of(line.begin(), line.end(), is_space); }

// Calls body(begin, end) for every line, without its '\n' and a '\r' before it.
template <class Body>
void for_lines(std::string_view text, Body&& body) {
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    const std::size_t next = end == std::string_view::npos ? text.size() : end + 1;
    if (end == std::string_view::npos) end = text.size();
    if (end > begin && text[end - 1] == '\r') --end;
    body(begin, end);
    begin = next;
  }
}

// The end of the string that opens at `at`, behind its closing quote; npos if it does not close.
std::size_t string_end(std::string_view text, std::size_t at) {
  for (std::size_t i = at + 1; i < text.size(); ++i) {
    if (text[i] == '\\') ++i;
    else if (text[i] == '"') return i + 1;
  }
  return std::string_view::npos;
}

[[noreturn]] void broken_array(std::size_t offset, const char* what) {
  fail(ErrorCode::kCorrupt, "JSON array: {} at byte {}", what, offset);
}

// Behind the object that opens at `at`.
std::size_t object_end(std::string_view text, std::size_t at) {
  std::int64_t depth = 0;
  for (std::size_t i = at; i < text.size();) {
    const char c = text[i];
    if (c == '"') {
      i = string_end(text, i);
      if (i == std::string_view::npos) break;
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth == 0) return i + 1;
    ++i;
  }
  broken_array(at, "an element does not end that begins");
}

}  // namespace

std::vector<Record> index_lines(std::string_view text) {
  std::vector<Record> out;
  for_lines(text, [&](std::size_t begin, std::size_t end) {
    if (!is_blank(text.substr(begin, end - begin))) out.push_back({begin, end});
  });
  return out;
}

std::vector<Record> index_paragraphs(std::string_view text) {
  std::vector<Record> out;
  bool open = false;
  for_lines(text, [&](std::size_t begin, std::size_t end) {
    if (is_blank(text.substr(begin, end - begin))) {
      open = false;
    } else if (open) {
      out.back().end = end;
    } else {
      out.push_back({begin, end});
      open = true;
    }
  });
  return out;
}

std::vector<Record> index_json_array(std::string_view text) {
  std::size_t at = 0;
  const auto skip_space = [&] {
    while (at < text.size() && is_space(text[at])) ++at;
  };
  skip_space();
  if (at == text.size() || text[at] != '[') broken_array(at, "no '['");
  ++at;
  std::vector<Record> out;
  skip_space();
  if (at < text.size() && text[at] == ']') {
    ++at;
  } else {
    while (true) {
      skip_space();
      if (at == text.size() || text[at] != '{') broken_array(at, "expected an object");
      const std::size_t end = object_end(text, at);
      out.push_back({at, end});
      at = end;
      skip_space();
      if (at == text.size() || (text[at] != ',' && text[at] != ']')) broken_array(at, "expected ',' or ']'");
      if (text[at++] == ']') break;
    }
  }
  skip_space();
  if (at != text.size()) broken_array(at, "something follows the array");
  return out;
}

RecordFile::RecordFile(const std::filesystem::path& path, Kind kind) : file_(path) {
  file_.sequential();
  const std::string_view text = all();
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  try {
    if (first != std::string_view::npos && text[first] == '[' && kind == Kind::kLines)
      records_ = index_json_array(text);
    else records_ = kind == Kind::kLines ? index_lines(text) : index_paragraphs(text);
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path_text(path), e.what());
  }
  for (const Record& record : records_) {
    if (record.end - record.begin > kMaxRecordBytes)
      fail(ErrorCode::kCorrupt, "{}: the record at byte {} has more than {} bytes", path_text(path), record.begin,
           kMaxRecordBytes);
  }
}

std::string_view RecordFile::all() const {
  return {reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size()};
}

std::string_view RecordFile::text(std::int64_t i) const {
  const Record& record = records_[static_cast<std::size_t>(i)];
  return all().substr(record.begin, record.end - record.begin);
}

std::int64_t RecordFile::line(std::int64_t i) const {
  const std::string_view before = all().substr(0, records_[static_cast<std::size_t>(i)].begin);
  return 1 + std::count(before.begin(), before.end(), '\n');
}

}  // namespace gov::train

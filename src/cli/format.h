#pragma once
// Text output: numbers for people, aligned tables, and writing to standard output with errors noticed.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gov::cli {

std::string human_bytes(double bytes);         // "13.76 GB", powers of 1000
std::string human_count(double count);         // "20.91 B", "16.44 M"
std::string with_commas(std::int64_t number);  // "20,914,757,184"
std::string utc_time();                        // "2026-01-31T12:34:56Z"

// Rows of cells, columns padded to their widest cell; cells that look like numbers are set right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string str() const;  // with a line break after every row

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Writes to standard output at once; Error kIo when that fails (a full disk, a closed pipe that did not end us).
void put(std::string_view text);

// The middle value of a non-empty list.
double median(std::vector<double> values);

}  // namespace gov::cli

#pragma once
// Compiled schemas, kept for the next request with the same one: a client sends its tools with every turn.

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/json.h"
#include "text/grammar/grammar.h"

namespace gov::server {

// Thread-safe.
class SchemaCache {
 public:
  // Grammar::json_schema with its errors, which also come when compiling takes more than `seconds`.
  std::shared_ptr<const Grammar> schema(const Json& schema, double seconds);
  std::shared_ptr<const Grammar> json_object();

 private:
  static constexpr std::size_t kMost = 64;            // the least recently used is dropped
  static constexpr std::size_t kLongest = 256 << 10;  // longer texts are not kept
  using Entry = std::pair<std::string, std::shared_ptr<const Grammar>>;

  std::mutex mutex_;
  std::list<Entry> entries_;  // the most recently used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_text_;
  std::shared_ptr<const Grammar> json_object_;
};

}  // namespace gov::server

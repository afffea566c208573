#include "server/schema_cache.h"

#include <algorithm>

#include "base/error.h"

namespace gov::server {

std::shared_ptr<const Grammar> SchemaCache::schema(const Json& schema, double seconds) {
  std::string text = schema.dump();
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = by_text_.find(text); it != by_text_.end()) {
      entries_.splice(entries_.begin(), entries_, it->second);
      return it->second->second;
    }
  }
  if (seconds <= 0) fail(ErrorCode::kInvalidArgument, "schema: there is no time left to compile it");
  GrammarLimits limits;
  limits.seconds = std::min(limits.seconds, seconds);
  std::shared_ptr<const Grammar> grammar = Grammar::json_schema(schema, limits);  // without the lock: it may take that
  if (text.size() > kLongest) return grammar;
  const std::lock_guard lock(mutex_);
  if (by_text_.contains(text)) return grammar;
  entries_.emplace_front(std::move(text), grammar);
  by_text_.emplace(entries_.front().first, entries_.begin());
  if (entries_.size() > kMost) {
    by_text_.erase(entries_.back().first);
    entries_.pop_back();
  }
  return grammar;
}

std::shared_ptr<const Grammar> SchemaCache::json_object() {
  const std::lock_guard lock(mutex_);
  if (!json_object_) json_object_ = Grammar::json_object();
  return json_object_;
}

}  // namespace gov::server

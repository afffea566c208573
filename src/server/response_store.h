#pragma once
// Responses that were asked to be kept, for a while and within a bound: for GET, and as the beginning of others. A
// client (tenant) sees only its own.

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/timer.h"
#include "server/images.h"
#include "server/request_parts.h"

namespace gov::server {

class Generation;

// Ends a background response, also one whose generation has not begun yet.
class CancelHandle {
 public:
  void cancel();
  void set(const std::shared_ptr<Generation>& generation);
  bool wanted() const { return wanted_; }

 private:
  std::mutex mutex_;
  std::atomic<bool> wanted_ = false;
  std::weak_ptr<Generation> generation_;
};

struct StoredResponse {
  std::string id, tenant;
  std::string body;                      // the response as JSON
  std::string input_items;               // an array as JSON
  std::vector<HarmonyMessage> messages;  // the whole conversation with its answer, without instructions
  std::vector<ImageSource> images;       // of the messages, in order
  CallNames calls;
  bool running = false;                  // in the background
  std::shared_ptr<CancelHandle> cancel;  // of a running one

  std::size_t bytes() const;  // what it holds, about
};
using StoredPtr = std::shared_ptr<const StoredResponse>;

// Thread-safe.
class ResponseStore {
 public:
  ResponseStore(std::size_t most_bytes, double ttl_seconds) : most_bytes_(most_bytes), ttl_(ttl_seconds) {}

  // Adds or replaces. The oldest make room: of all if the store is full, of the same tenant if that has half of it; a
  // running one is kept. Error kInvalidArgument for more than half of the store, kOverloaded if only running ones are
  // left.
  void put(StoredResponse response);
  // Replaces a stored one; nothing happens if it was deleted in the meantime.
  void update(StoredResponse response);
  // The same, but only while it runs.
  void start(StoredResponse response);
  StoredPtr find(const std::string& tenant, const std::string& id);  // null if there is none
  bool erase(const std::string& tenant, const std::string& id);
  std::size_t bytes() const;

 private:
  struct Entry {
    StoredPtr response;
    std::size_t bytes;
    double time;
  };
  using Entries = std::list<Entry>;  // the oldest first
  void replace(StoredResponse response, bool only_running);
  void insert(StoredResponse response);
  void remove(Entries::iterator it);
  void make_room(const std::string& tenant, std::size_t bytes);
  Entries::iterator lookup(const std::string& tenant, const std::string& id);

  mutable std::mutex mutex_;
  const std::size_t most_bytes_;
  const double ttl_;
  Timer clock_;
  Entries entries_;
  std::map<std::string, Entries::iterator> by_id_;
  std::map<std::string, std::size_t> tenant_bytes_;
  std::size_t bytes_ = 0;
};

}  // namespace gov::server

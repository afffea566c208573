#include "server/response_store.h"

#include "server/generation.h"

namespace gov::server {

void CancelHandle::cancel() {
  const std::lock_guard lock(mutex_);
  wanted_ = true;
  if (const auto generation = generation_.lock()) generation->cancel();
}

void CancelHandle::set(const std::shared_ptr<Generation>& generation) {
  const std::lock_guard lock(mutex_);
  generation_ = generation;
  if (wanted_) generation->cancel();
}

std::size_t StoredResponse::bytes() const {
  std::size_t total = sizeof(StoredResponse) + body.size() + input_items.size() + calls.bytes();
  for (const HarmonyMessage& message : messages) {
    total += sizeof(HarmonyMessage) + message.generated.size() * sizeof(std::int32_t);
    for (const ContentPart& part : message.content) total += sizeof(ContentPart) + part.text.size();
  }
  for (const ImageSource& image : images) total += sizeof(ImageSource) + image.url->size();
  return total;
}

ResponseStore::Entries::iterator ResponseStore::lookup(const std::string& tenant, const std::string& id) {
  const double now = clock_.seconds();
  for (auto at = entries_.begin(); at != entries_.end() && at->time + ttl_ < now;) {
    const auto next = std::next(at);
    if (!at->response->running) remove(at);
    at = next;
  }
  const auto it = by_id_.find(id);
  if (it == by_id_.end() || it->second->response->tenant != tenant) return entries_.end();
  return it->second;
}

void ResponseStore::remove(Entries::iterator it) {
  bytes_ -= it->bytes;
  std::size_t& of_tenant = tenant_bytes_[it->response->tenant];
  of_tenant -= it->bytes;
  if (of_tenant == 0) tenant_bytes_.erase(it->response->tenant);
  by_id_.erase(it->response->id);
  entries_.erase(it);
}

// No tenant holds more than half of it.
void ResponseStore::make_room(const std::string& tenant, std::size_t bytes) {
  if (bytes > most_bytes_ / 2) {
    fail(ErrorCode::kInvalidArgument, "store: the response has {} bytes, at most {} are stored", bytes,
         most_bytes_ / 2);
  }
  for (auto it = entries_.begin(); it != entries_.end();) {
    const auto of_tenant = tenant_bytes_.find(tenant);
    const bool tenant_full = of_tenant != tenant_bytes_.end() && of_tenant->second + bytes > most_bytes_ / 2;
    const bool full = bytes_ + bytes > most_bytes_;
    if (!tenant_full && !full) return;
    const auto next = std::next(it);
    if (!it->response->running && (it->response->tenant == tenant || !tenant_full)) remove(it);
    it = next;
  }
  if (bytes_ + bytes > most_bytes_) fail(ErrorCode::kOverloaded, "too many background responses are stored");
}

void ResponseStore::insert(StoredResponse response) {
  const std::size_t bytes = response.bytes();
  make_room(response.tenant, bytes);
  bytes_ += bytes;
  tenant_bytes_[response.tenant] += bytes;
  const std::string id = response.id;
  entries_.push_back({std::make_shared<const StoredResponse>(std::move(response)), bytes, clock_.seconds()});
  by_id_[id] = std::prev(entries_.end());
}

void ResponseStore::put(StoredResponse response) {
  const std::lock_guard lock(mutex_);
  if (const auto it = lookup(response.tenant, response.id); it != entries_.end()) remove(it);
  insert(std::move(response));
}

void ResponseStore::replace(StoredResponse response, bool only_running) {
  const std::lock_guard lock(mutex_);
  const auto it = lookup(response.tenant, response.id);
  if (it == entries_.end() || (only_running && !it->response->running)) return;
  remove(it);
  insert(std::move(response));
}

void ResponseStore::update(StoredResponse response) { replace(std::move(response), false); }
void ResponseStore::start(StoredResponse response) { replace(std::move(response), true); }

StoredPtr ResponseStore::find(const std::string& tenant, const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto it = lookup(tenant, id);
  return it == entries_.end() ? nullptr : it->response;
}

bool ResponseStore::erase(const std::string& tenant, const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto it = lookup(tenant, id);
  if (it == entries_.end()) return false;
  remove(it);
  return true;
}

std::size_t ResponseStore::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace gov::server

#pragma once
// Whose turn it is: tenants share the model's rows evenly, however much each of them asks for.

#include <cstdint>
#include <map>
#include <string>

namespace gov {

struct Tenant {
  std::int64_t rows = 0;      // computed for it, on a scale that all tenants share: the least goes first
  std::int64_t requests = 0;  // that wait or run
};

class TenantTurns {
 public:
  // For a new request; valid until leave() was called as often. Who comes (again) starts level with the one who is
  // next, so that nobody saves up rows by asking for none.
  Tenant* enter(const std::string& name);
  void leave(Tenant* tenant);
  std::size_t size() const { return tenants_.size(); }

 private:
  std::map<std::string, Tenant> tenants_;  // those with requests, and others who had more than their share lately
};

}  // namespace gov

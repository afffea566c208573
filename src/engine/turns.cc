#include "engine/turns.h"

#include <algorithm>
#include <limits>

namespace gov {

Tenant* TenantTurns::enter(const std::string& name) {
  constexpr std::int64_t kNobody = std::numeric_limits<std::int64_t>::max();
  std::int64_t least = kNobody;
  for (const auto& [other, tenant] : tenants_) {
    if (tenant.requests > 0) least = std::min(least, tenant.rows);
  }
  // What an absent tenant had is of no use once it would start there anyway.
  std::erase_if(tenants_, [&](const auto& entry) { return entry.second.requests == 0 && entry.second.rows <= least; });
  Tenant& tenant = tenants_[name];
  if (tenant.requests++ == 0 && least != kNobody) tenant.rows = std::max(tenant.rows, least);
  return &tenant;
}

void TenantTurns::leave(Tenant* tenant) { --tenant->requests; }

}  // namespace gov

#pragma once
// Which route answers a method and a path.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"
#include "server/target.h"

namespace gov::server {

class Router {
 public:
  // Error kInvalidArgument for a pattern that does not begin with "/", or two routes of one method and pattern at
  // one listener.
  explicit Router(std::vector<Route> routes);

  struct Match {
    const Route* route = nullptr;  // null: no such path, or not with this method
    std::map<std::string, std::string> params;
    std::string allow;  // methods that the path has, "GET, HEAD, OPTIONS"; empty: no such path
  };
  // HEAD takes the route of GET. A literal component goes before a name in braces. admin: which listener asks.
  Match match(std::string_view method, const Target& target, bool admin) const;

  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
  std::vector<std::vector<std::string>> patterns_;  // components of each
};

}  // namespace gov::server

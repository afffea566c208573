#include "server/router.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/error.h"

namespace gov::server {
namespace {

std::vector<std::string> split_pattern(std::string_view pattern) {
  std::vector<std::string> components;
  while (!pattern.empty()) {
    pattern.remove_prefix(1);
    const std::size_t end = std::min(pattern.find('/'), pattern.size());
    components.emplace_back(pattern.substr(0, end));
    pattern.remove_prefix(end);
  }
  return components;
}

bool is_name(const std::string& component) {
  return component.size() > 2 && component.front() == '{' && component.back() == '}';
}

// Whether the components fit, and how many of them are literal.
bool fits(const std::vector<std::string>& pattern, const Target& target, std::size_t& literal) {
  if (pattern.size() != target.segments.size()) return false;
  literal = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (is_name(pattern[i])) {
      if (target.segments[i].empty()) return false;
    } else if (pattern[i] == target.segments[i]) {
      ++literal;
    } else {
      return false;
    }
  }
  return true;
}

std::string allow_list(const std::set<std::string>& methods) {
  std::string text;
  for (const std::string& method : methods) text += method + ", ";
  return text + "OPTIONS";
}

}  // namespace

Router::Router(std::vector<Route> routes) : routes_(std::move(routes)) {
  std::set<std::tuple<std::string, std::string, bool>> seen;
  for (const Route& route : routes_) {
    if (!route.pattern.starts_with('/')) fail(ErrorCode::kInvalidArgument, "route {}: no path", route.pattern);
    if (!seen.emplace(route.method, route.pattern, route.admin).second) {
      fail(ErrorCode::kInvalidArgument, "route {} {} is there twice", route.method, route.pattern);
    }
    patterns_.push_back(split_pattern(route.pattern));
  }
}

Router::Match Router::match(std::string_view method, const Target& target, bool admin) const {
  Match match;
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  std::set<std::string> methods;
  std::size_t best = 0, found = routes_.size();
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    std::size_t literal = 0;
    if (routes_[i].admin != admin || !fits(patterns_[i], target, literal)) continue;
    methods.insert(routes_[i].method);
    if (routes_[i].method == "GET") methods.insert("HEAD");
    if (routes_[i].method == wanted && (found == routes_.size() || literal > best)) {
      best = literal;
      found = i;
    }
  }
  if (!methods.empty()) match.allow = allow_list(methods);
  if (found == routes_.size()) return match;
  match.route = &routes_[found];
  for (std::size_t i = 0; i < patterns_[found].size(); ++i) {
    const std::string& component = patterns_[found][i];
    if (is_name(component)) match.params.emplace(component.substr(1, component.size() - 2), target.segments[i]);
  }
  return match;
}

}  // namespace gov::server

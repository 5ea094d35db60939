#include <algorithm>

#include "server/http.h"

namespace gptoss::server {
namespace {

std::vector<std::string> Split(std::string_view path) {
  std::vector<std::string> segments;
  while (true) {
    const size_t slash = path.find('/');
    segments.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return segments;
    path.remove_prefix(slash + 1);
  }
}

std::string_view Find(const std::vector<std::pair<std::string, std::string>>& pairs, std::string_view name) {
  const auto it = std::find_if(pairs.begin(), pairs.end(), [&](const auto& pair) { return pair.first == name; });
  return it == pairs.end() ? std::string_view() : std::string_view(it->second);
}

}  // namespace

std::string_view HttpRequest::Header(std::string_view name) const { return Find(headers, name); }
std::string_view HttpRequest::Query(std::string_view name) const { return Find(query, name); }

void Router::Add(std::string method, std::string pattern, Handler handler) {
  std::vector<std::string> segments = Split(pattern);
  routes_.push_back({{std::move(method), std::move(pattern)}, std::move(segments), std::move(handler)});
}

Router::Match Router::Find(std::string_view method, std::string_view path) const {
  const std::vector<std::string> segments = Split(path);
  const auto fits = [&](const Route& route) {
    return std::equal(segments.begin(), segments.end(), route.segments.begin(), route.segments.end(),
                      [](const std::string& given, const std::string& wanted) {
                        return wanted == "{}" ? !given.empty() : given == wanted;
                      });
  };
  Match match;
  for (const Route& route : routes_) {
    if (!fits(route)) continue;
    // The route that was added first wins; a HEAD is answered as its GET, whose body is then not sent.
    if (match.handler == nullptr && (route.name.method == method || (method == "HEAD" && route.name.method == "GET"))) {
      match.handler = &route.handler;
      match.pattern = route.name.pattern;
    }
    match.allowed += (match.allowed.empty() ? "" : ", ") + route.name.method;
  }
  return match;
}

std::vector<Router::RouteName> Router::routes() const {
  std::vector<RouteName> names;
  for (const Route& route : routes_) names.push_back(route.name);
  return names;
}

}  // namespace gptoss::server

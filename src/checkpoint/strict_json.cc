#include "checkpoint/strict_json.h"

#include <set>
#include <string>
#include <vector>

#include "base/utf8.h"

namespace gptoss {
namespace {

/// Follows the parser's events and stops at the first key seen twice, or at too many levels.
class Watcher {
 public:
  explicit Watcher(int max_depth) : max_depth_(max_depth) {}

  bool OnEvent(MapJson::parse_event_t event, const MapJson& parsed) {
    using Event = MapJson::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        keys_.emplace_back();
        if (keys_.size() > static_cast<size_t>(max_depth_)) throw TooDeep{};
        break;
      case Event::object_end:
      case Event::array_end:
        keys_.pop_back();
        break;
      case Event::key:
        if (!keys_.back().insert(parsed.get_ref<const std::string&>()).second) {
          throw Duplicate{parsed.get_ref<const std::string&>()};
        }
        break;
      case Event::value:
        break;
    }
    return true;
  }

  struct TooDeep {};
  struct Duplicate {
    std::string key;
  };

 private:
  int max_depth_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

Result<MapJson> ParseStrictJson(std::string_view text, int max_depth) {
  const size_t bad = FirstInvalidUtf8(text);
  if (bad != text.size()) return CorruptData("not UTF-8 at byte " + std::to_string(bad));
  Watcher watcher(max_depth);
  // The library reports through exceptions; this function is where they end.
  try {
    return MapJson::parse(text.begin(), text.end(), [&](int, MapJson::parse_event_t event, MapJson& parsed) {
      return watcher.OnEvent(event, parsed);
    });
  } catch (const Watcher::TooDeep&) {
    return ResourceExhausted("JSON is nested deeper than " + std::to_string(max_depth) + " levels");
  } catch (const Watcher::Duplicate& duplicate) {
    return CorruptData("the key \"" + duplicate.key + "\" occurs twice");
  } catch (const MapJson::parse_error& e) {
    return CorruptData("not valid JSON at byte " + std::to_string(e.byte));
  } catch (const MapJson::exception& e) {
    return CorruptData(std::string("not valid JSON: ") + e.what());
  }
}

}  // namespace gptoss

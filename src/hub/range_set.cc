#include "hub/range_set.h"

#include <algorithm>

namespace gptoss::hub {

void RangeSet::Add(ByteRange range) {
  if (range.begin >= range.end) return;
  // [first, last) are the ranges that touch the new one; they and it become one.
  const auto first = std::lower_bound(ranges_.begin(), ranges_.end(), range.begin,
                                      [](const ByteRange& r, uint64_t begin) { return r.end < begin; });
  auto last = first;
  while (last != ranges_.end() && last->begin <= range.end) {
    range.begin = std::min(range.begin, last->begin);
    range.end = std::max(range.end, last->end);
    ++last;
  }
  ranges_.insert(ranges_.erase(first, last), range);
}

uint64_t RangeSet::TotalBytes() const {
  uint64_t total = 0;
  for (const ByteRange& r : ranges_) total += r.size();
  return total;
}

std::vector<ByteRange> RangeSet::Missing(uint64_t size, uint64_t chunk) const {
  std::vector<ByteRange> missing;
  const auto add_gap = [&](uint64_t begin, uint64_t end) {
    while (begin < end) {
      const uint64_t to_border = chunk - begin % chunk;
      const uint64_t stop = end - begin > to_border ? begin + to_border : end;
      missing.push_back({begin, stop});
      begin = stop;
    }
  };
  uint64_t position = 0;
  for (const ByteRange& r : ranges_) {
    add_gap(position, std::min(r.begin, size));
    position = std::max(position, r.end);
  }
  add_gap(position, size);
  return missing;
}

Json RangeSet::ToJson() const {
  Json out = Json::array();
  for (const ByteRange& r : ranges_) out.push_back(Json::array({r.begin, r.end}));
  return out;
}

Result<RangeSet> RangeSet::FromJson(const Json& json, uint64_t size) {
  const Status malformed = CorruptData("the list of finished ranges is malformed");
  if (!json.is_array()) return malformed;
  RangeSet set;
  uint64_t previous_end = 0;
  for (const Json& item : json) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_number_unsigned() || !item[1].is_number_unsigned()) {
      return malformed;
    }
    const ByteRange range{item[0].get<uint64_t>(), item[1].get<uint64_t>()};
    if (range.begin >= range.end || range.end > size || range.begin < previous_end) return malformed;
    previous_end = range.end;
    set.Add(range);
  }
  return set;
}

}  // namespace gptoss::hub

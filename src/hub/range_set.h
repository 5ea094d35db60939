// Which bytes of a file are already on disk: the book-keeping behind parallel ranges and resuming.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "json/json.h"

namespace gptoss::hub {

/// Bytes [begin, end) of a file.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - begin; }
  bool operator==(const ByteRange&) const = default;
};

/// A set of bytes as sorted, disjoint, non-adjacent ranges.
class RangeSet {
 public:
  /// Adds [begin, end), which may overlap what is there. An empty range changes nothing.
  void Add(ByteRange range);
  void Clear() { ranges_.clear(); }

  uint64_t TotalBytes() const;
  const std::vector<ByteRange>& ranges() const { return ranges_; }

  /// The bytes of [0, size) that are absent, in order, cut so that no piece crosses a multiple of `chunk` (> 0): pieces
  /// of an interrupted download then begin where an uninterrupted one would have begun them.
  std::vector<ByteRange> Missing(uint64_t size, uint64_t chunk) const;

  /// [[begin, end], …]
  Json ToJson() const;
  /// On failure: kCorruptData when a range is malformed, empty, out of order or past `size`.
  static Result<RangeSet> FromJson(const Json& json, uint64_t size);

 private:
  std::vector<ByteRange> ranges_;
};

}  // namespace gptoss::hub

// Sets of Unicode code points as sorted ranges. Surrogates are never members: they have no UTF-8.
#pragma once

#include <compare>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace gptoss {

struct CodePointRange {
  uint32_t lo;
  uint32_t hi;  // inclusive
  auto operator<=>(const CodePointRange&) const = default;
};

/// Disjoint, sorted, not adjacent ranges within U+0000..U+10FFFF without the surrogates.
class CodePointSet {
 public:
  CodePointSet() = default;
  static CodePointSet All();
  static CodePointSet Of(std::vector<CodePointRange> ranges);

  const std::vector<CodePointRange>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool Contains(uint32_t c) const;
  CodePointSet Union(const CodePointSet& other) const;
  CodePointSet Intersection(const CodePointSet& other) const;
  CodePointSet Complement() const;
  /// With the other case of every ASCII letter in the set.
  CodePointSet FoldAsciiCase() const;
  auto operator<=>(const CodePointSet&) const = default;

 private:
  std::vector<CodePointRange> ranges_;
};

// The classes of ECMA-262 (section 22.2.2.9): \d, \w, \s, and the dot, which excludes line terminators.
CodePointSet DigitClass();
CodePointSet WordClass();
CodePointSet SpaceClass();
CodePointSet DotClass();

/// \p{NAME}: a general category (L, Lu, Letter, Uppercase_Letter, ...), Any or ASCII; by utf8proc's Unicode version.
/// On failure: kUnsupported naming the property.
Result<CodePointSet> PropertyClass(std::string_view name);

}  // namespace gptoss

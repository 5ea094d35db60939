#include "grammar/code_point_set.h"

#include <utf8proc.h>
#include <map>
#include <mutex>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace gptoss {
namespace {

constexpr uint32_t kLast = 0x10FFFF;
constexpr uint32_t kSurrogateFirst = 0xD800;
constexpr uint32_t kSurrogateLast = 0xDFFF;

std::vector<CodePointRange> Normalised(std::vector<CodePointRange> in) {
  std::sort(in.begin(), in.end());
  std::vector<CodePointRange> out;
  const auto add = [&](uint32_t lo, uint32_t hi) {
    if (lo > hi) return;
    if (!out.empty() && lo <= out.back().hi + 1) {
      out.back().hi = std::max(out.back().hi, hi);
    } else {
      out.push_back({lo, hi});
    }
  };
  for (CodePointRange r : in) {
    r.hi = std::min(r.hi, kLast);
    if (r.lo < kSurrogateFirst) add(r.lo, std::min(r.hi, kSurrogateFirst - 1));
    if (r.hi > kSurrogateLast) add(std::max(r.lo, kSurrogateLast + 1), r.hi);
  }
  return out;
}

struct CategoryName {
  std::string_view brief;
  std::string_view full;
};
// In the order of utf8proc_category_t, Cn first.
constexpr std::array<CategoryName, 30> kCategories = {{
    {"Cn", "Unassigned"},
    {"Lu", "Uppercase_Letter"},
    {"Ll", "Lowercase_Letter"},
    {"Lt", "Titlecase_Letter"},
    {"Lm", "Modifier_Letter"},
    {"Lo", "Other_Letter"},
    {"Mn", "Nonspacing_Mark"},
    {"Mc", "Spacing_Mark"},
    {"Me", "Enclosing_Mark"},
    {"Nd", "Decimal_Number"},
    {"Nl", "Letter_Number"},
    {"No", "Other_Number"},
    {"Pc", "Connector_Punctuation"},
    {"Pd", "Dash_Punctuation"},
    {"Ps", "Open_Punctuation"},
    {"Pe", "Close_Punctuation"},
    {"Pi", "Initial_Punctuation"},
    {"Pf", "Final_Punctuation"},
    {"Po", "Other_Punctuation"},
    {"Sm", "Math_Symbol"},
    {"Sc", "Currency_Symbol"},
    {"Sk", "Modifier_Symbol"},
    {"So", "Other_Symbol"},
    {"Zs", "Space_Separator"},
    {"Zl", "Line_Separator"},
    {"Zp", "Paragraph_Separator"},
    {"Cc", "Control"},
    {"Cf", "Format"},
    {"Cs", "Surrogate"},
    {"Co", "Private_Use"},
}};
constexpr std::array<CategoryName, 7> kGroups = {{{"L", "Letter"},
                                                  {"M", "Mark"},
                                                  {"N", "Number"},
                                                  {"P", "Punctuation"},
                                                  {"S", "Symbol"},
                                                  {"Z", "Separator"},
                                                  {"C", "Other"}}};

}  // namespace

CodePointSet CodePointSet::Of(std::vector<CodePointRange> ranges) {
  CodePointSet out;
  out.ranges_ = Normalised(std::move(ranges));
  return out;
}

CodePointSet CodePointSet::All() { return Of({{0, kLast}}); }

bool CodePointSet::Contains(uint32_t c) const {
  const auto it =
      std::upper_bound(ranges_.begin(), ranges_.end(), c, [](uint32_t v, const CodePointRange& r) { return v < r.lo; });
  return it != ranges_.begin() && c <= std::prev(it)->hi;
}

CodePointSet CodePointSet::Union(const CodePointSet& other) const {
  std::vector<CodePointRange> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  return Of(std::move(all));
}

CodePointSet CodePointSet::Intersection(const CodePointSet& other) const {
  std::vector<CodePointRange> out;
  for (size_t i = 0, j = 0; i < ranges_.size() && j < other.ranges_.size();) {
    const uint32_t lo = std::max(ranges_[i].lo, other.ranges_[j].lo);
    const uint32_t hi = std::min(ranges_[i].hi, other.ranges_[j].hi);
    if (lo <= hi) out.push_back({lo, hi});
    if (ranges_[i].hi < other.ranges_[j].hi) {
      ++i;
    } else {
      ++j;
    }
  }
  return Of(std::move(out));
}

CodePointSet CodePointSet::Complement() const {
  std::vector<CodePointRange> out;
  uint32_t next = 0;
  for (const CodePointRange& r : ranges_) {
    if (r.lo > next) out.push_back({next, r.lo - 1});
    next = r.hi + 1;
  }
  if (next <= kLast) out.push_back({next, kLast});
  return Of(std::move(out));
}

CodePointSet CodePointSet::FoldAsciiCase() const {
  std::vector<CodePointRange> out = ranges_;
  for (uint32_t c = 'a'; c <= 'z'; ++c) {
    if (Contains(c)) out.push_back({c - 32, c - 32});
    if (Contains(c - 32)) out.push_back({c, c});
  }
  return Of(std::move(out));
}

CodePointSet DigitClass() { return CodePointSet::Of({{'0', '9'}}); }
CodePointSet WordClass() { return CodePointSet::Of({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}); }
CodePointSet SpaceClass() {
  return CodePointSet::Of({{0x09, 0x0D},
                           {0x20, 0x20},
                           {0xA0, 0xA0},
                           {0x1680, 0x1680},
                           {0x2000, 0x200A},
                           {0x2028, 0x2029},
                           {0x202F, 0x202F},
                           {0x205F, 0x205F},
                           {0x3000, 0x3000},
                           {0xFEFF, 0xFEFF}});
}
CodePointSet DotClass() { return CodePointSet::Of({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).Complement(); }

Result<CodePointSet> PropertyClass(std::string_view name) {
  for (std::string_view prefix : {"General_Category=", "gc="}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  if (name == "Any") return CodePointSet::All();
  if (name == "ASCII") return CodePointSet::Of({{0, 0x7F}});
  uint32_t wanted = 0;
  for (size_t i = 0; i < kCategories.size(); ++i) {
    if (name == kCategories[i].brief || name == kCategories[i].full) wanted |= 1u << i;
    for (const CategoryName& group : kGroups) {
      if (kCategories[i].brief[0] == group.brief[0] && (name == group.brief || name == group.full)) wanted |= 1u << i;
    }
  }
  if (wanted == 0) {
    return Unsupported("\\p{" + std::string(name) + "}: only general categories, Any and ASCII are supported");
  }
  // A million look-ups; an expression may name a property thousands of times.
  static std::mutex mutex;
  static std::map<uint32_t, CodePointSet>* const known = new std::map<uint32_t, CodePointSet>();
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto it = known->find(wanted); it != known->end()) return it->second;
  std::vector<CodePointRange> ranges;
  for (uint32_t c = 0; c <= kLast; ++c) {
    if ((wanted >> utf8proc_category(static_cast<utf8proc_int32_t>(c)) & 1) == 0) continue;
    if (!ranges.empty() && ranges.back().hi + 1 == c) {
      ranges.back().hi = c;
    } else {
      ranges.push_back({c, c});
    }
  }
  return known->emplace(wanted, CodePointSet::Of(std::move(ranges))).first->second;
}

}  // namespace gptoss

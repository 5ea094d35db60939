#include "grammar/number_range.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "grammar/regex.h"

namespace gptoss {
namespace {

constexpr uint32_t kMaxModStates = 20'000;

std::string Nines(size_t n) { return std::string(n, '9'); }

int CompareWhole(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  const int order = a.compare(b);
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

/// The decimal text of `whole` plus or minus one; not below zero.
std::string Plus(std::string whole, int step) {
  for (size_t i = whole.size(); i-- > 0;) {
    if (step > 0 && whole[i] != '9') {
      ++whole[i];
      return whole;
    }
    if (step < 0 && whole[i] != '0') {
      --whole[i];
      if (i == 0 && whole[0] == '0' && whole.size() > 1) whole.erase(0, 1);
      return whole;
    }
    whole[i] = step > 0 ? '0' : '9';
  }
  return "1" + whole;
}

/// Magnitudes: [low, high] with low, high >= 0.
struct Span {
  Decimal low, high;
  bool low_exclusive = false, high_exclusive = false;
};

class NumberEmitter {
 public:
  explicit NumberEmitter(AutomatonBuilder* builder) : builder_(builder) {}

  /// Natural numbers from low to high, multiples of `mod`, digits only.
  void Naturals(const std::string& low, const std::string& high, uint32_t mod, NodeId from, NodeId to) {
    if (CompareWhole(low, high) > 0) return;
    low_ = low;
    high_ = high;
    mod_ = mod;
    to_ = to;
    nodes_.clear();
    for (size_t length = low.size(); length <= high.size(); ++length) {
      const bool tight_low = length == low.size(), tight_high = length == high.size();
      Digits(length, tight_low, tight_high, 0, true, from);
    }
  }

  /// Decimals within `span` with at most `places` digits after the point.
  void Decimals(const Span& span, size_t places, NodeId from, NodeId to) {
    const std::string& a = span.low.whole;
    const std::string& b = span.high.whole;
    if (CompareWhole(a, b) > 0) return;
    if (a == b) {
      const NodeId after = builder_->NewNode();
      builder_->Literal(from, a, after);
      return Fraction(&span, &span, places, after, to);
    }
    NodeId after = builder_->NewNode();
    builder_->Literal(from, a, after);
    Fraction(&span, nullptr, places, after, to);
    after = builder_->NewNode();
    builder_->Literal(from, b, after);
    Fraction(nullptr, &span, places, after, to);
    after = builder_->NewNode();
    Naturals(Plus(a, 1), Plus(b, -1), 1, from, after);
    Fraction(nullptr, nullptr, places, after, to);
  }

 private:
  void Digits(size_t remaining, bool tight_low, bool tight_high, uint32_t mod, bool first, NodeId node) {
    const char least = first && remaining > 1 ? '1' : '0';
    for (char d = least; d <= '9'; ++d) {
      const char lo = tight_low ? low_[low_.size() - remaining] : '0';
      const char hi = tight_high ? high_[high_.size() - remaining] : '9';
      if (d < lo || d > hi) continue;
      const uint32_t next = static_cast<uint32_t>((uint64_t{mod} * 10 + static_cast<uint64_t>(d - '0')) % mod_);
      const NodeId after = NodeFor(remaining - 1, tight_low && d == lo, tight_high && d == hi, next);
      builder_->Bytes(node, static_cast<uint8_t>(d), static_cast<uint8_t>(d), after);
    }
  }

  NodeId NodeFor(size_t remaining, bool tight_low, bool tight_high, uint32_t mod) {
    const auto [it, added] = nodes_.try_emplace({remaining, tight_low, tight_high, mod}, 0);
    if (!added) return it->second;
    const NodeId node = builder_->NewNode();
    it->second = node;
    if (remaining > 0) {
      Digits(remaining, tight_low, tight_high, mod, false, node);
    } else if (mod == 0) {
      builder_->Empty(node, to_);
    }
    return node;
  }

  /// What may follow the whole part: nothing or a point and digits, not below low's fraction, not above high's.
  void Fraction(const Span* low, const Span* high, size_t places, NodeId from, NodeId to) {
    std::map<std::tuple<size_t, bool, bool>, NodeId> nodes;
    struct Open {
      size_t at;
      bool low, high;
      NodeId node;
    };
    std::vector<Open> work;
    const auto visit = [&](size_t at, bool tight_low, bool tight_high) {
      const auto [it, added] = nodes.try_emplace({at, tight_low, tight_high}, 0);
      if (added) {
        it->second = builder_->NewNode();
        work.push_back({at, tight_low, tight_high, it->second});
      }
      return it->second;
    };
    builder_->Empty(from, visit(0, low != nullptr, high != nullptr));
    while (!work.empty()) {
      const Open open = work.back();
      work.pop_back();
      const std::string& fa = low != nullptr ? low->low.fraction : kNoDigits;
      const std::string& fb = high != nullptr ? high->high.fraction : kNoDigits;
      const bool low_holds = !open.low || (open.at >= fa.size() && !low->low_exclusive);
      const bool high_holds = !open.high || open.at < fb.size() || !high->high_exclusive;
      if (low_holds && high_holds) builder_->Empty(open.node, to);
      if (open.at >= places) continue;
      NodeId node = open.node;
      if (open.at == 0) {
        node = builder_->NewNode();
        builder_->Bytes(open.node, '.', '.', node);
      }
      for (char d = '0'; d <= '9'; ++d) {
        const char lo = open.low && open.at < fa.size() ? fa[open.at] : '0';
        const char hi = !open.high ? '9' : open.at < fb.size() ? fb[open.at] : '0';
        if (d < lo || d > hi) continue;
        const NodeId next = visit(open.at + 1, open.low && d == lo, open.high && d == hi);
        builder_->Bytes(node, static_cast<uint8_t>(d), static_cast<uint8_t>(d), next);
      }
    }
  }

  static inline const std::string kNoDigits;
  AutomatonBuilder* builder_;
  std::string low_, high_;
  uint32_t mod_ = 1;
  NodeId to_ = 0;
  std::map<std::tuple<size_t, bool, bool, uint32_t>, NodeId> nodes_;
};

/// The part of the range above zero (or below it, mirrored), without zero; nothing when it is empty.
std::optional<Span> Side(const NumberRange& range, bool negative) {
  const std::optional<NumberBound>& near = negative ? range.upper : range.lower;
  const std::optional<NumberBound>& far = negative ? range.lower : range.upper;
  Span span;
  span.low_exclusive = true;
  if (near && near->value.negative == negative && !near->value.IsZero()) {
    span.low = near->value;
    span.low_exclusive = near->exclusive;
  }
  if (far) {
    if (far->value.IsZero() || far->value.negative != negative) return std::nullopt;
    span.high = far->value;
    span.high_exclusive = far->exclusive;
  } else {
    span.high.whole = Nines(std::max<size_t>(kMaxBoundedDigits, span.low.whole.size() + 1));
  }
  span.low.negative = span.high.negative = false;
  return span;
}

Status EmitIntegers(const NumberRange& range, NodeId from, NodeId to, AutomatonBuilder* builder) {
  size_t digits = kMaxBoundedDigits + 1;
  for (const auto& bound : {range.lower, range.upper}) {
    if (bound) digits = std::max(digits, bound->value.whole.size() + 1);
  }
  if (uint64_t{range.multiple_of} * digits > kMaxModStates) {
    return Unsupported("multiples of " + std::to_string(range.multiple_of) + " need too large an automaton");
  }
  if (range.Contains(Decimal())) builder->Literal(from, "0", to);
  for (const bool negative : {false, true}) {
    const std::optional<Span> side = Side(range, negative);
    if (!side) continue;
    NodeId start = from;
    if (negative) {
      start = builder->NewNode();
      builder->Bytes(from, '-', '-', start);
    }
    std::string low = side->low.whole, high = side->high.whole;
    if (!side->low.IsInteger() || side->low_exclusive) low = Plus(low, 1);
    if (side->high.IsInteger() && side->high_exclusive) high = high == "0" ? high : Plus(high, -1);
    if (high == "0") continue;
    NumberEmitter(builder).Naturals(low, high, range.multiple_of, start, to);
  }
  return {};
}

/// Numbers without bounds, as a regular expression.
Status EmitFree(bool integer, NodeId from, NodeId to, AutomatonBuilder* builder) {
  const std::string more = std::to_string(kMaxNumberDigits - 1), places = std::to_string(kMaxNumberDigits);
  std::string pattern = "-?(?:0|[1-9][0-9]{0," + more + "})";
  if (!integer) pattern += "(?:\\.[0-9]{1," + places + "})?(?:[eE][+-]?[0-9]{1,2})?";
  GPTOSS_ASSIGN_OR_RETURN(const Regex regex, ParseRegex(pattern));
  return EmitRegex(regex, TextForm::kUtf8, from, to, builder);
}

}  // namespace

Result<Decimal> Decimal::Parse(std::string_view text) {
  Decimal out;
  std::string digits;
  int64_t point = -1, exponent = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '-' && i == 0) {
      out.negative = true;
    } else if (c == '.') {
      point = static_cast<int64_t>(digits.size());
    } else if (c == 'e' || c == 'E') {
      int64_t sign = 1;
      for (char e : text.substr(i + 1)) {
        if (e == '-') sign = -1;
        if (e >= '0' && e <= '9') exponent = std::min<int64_t>(exponent * 10 + (e - '0'), 100000);
      }
      exponent *= sign;
      break;
    } else if (c >= '0' && c <= '9') {
      digits += c;
    } else {
      return InvalidArgument("'" + std::string(text) + "' is no number");
    }
  }
  if (point < 0) point = static_cast<int64_t>(digits.size());
  point += exponent;
  const size_t zeros = std::min(digits.find_first_not_of('0'), digits.size());
  digits.erase(0, zeros);
  point -= static_cast<int64_t>(zeros);
  while (!digits.empty() && digits.back() == '0') digits.pop_back();
  if (digits.empty()) return Decimal();
  const int64_t after = static_cast<int64_t>(digits.size()) - point;
  if (point > kMaxNumberDigits || after > kMaxNumberDigits) {
    return Unsupported("the number " + std::string(text) + " has more than 60 digits on one side of the point");
  }
  if (point <= 0) {
    out.fraction = std::string(static_cast<size_t>(-point), '0') + digits;
  } else if (after <= 0) {
    out.whole = digits + std::string(static_cast<size_t>(-after), '0');
  } else {
    out.whole = digits.substr(0, static_cast<size_t>(point));
    out.fraction = digits.substr(static_cast<size_t>(point));
  }
  return out;
}

std::string Decimal::Text() const {
  return (negative && !IsZero() ? "-" : "") + whole + (fraction.empty() ? "" : "." + fraction);
}

int Compare(const Decimal& a, const Decimal& b) {
  const bool an = a.negative && !a.IsZero(), bn = b.negative && !b.IsZero();
  if (an != bn) return an ? -1 : 1;
  int order = CompareWhole(a.whole, b.whole);
  if (order == 0) order = a.fraction < b.fraction ? -1 : a.fraction > b.fraction ? 1 : 0;
  return an ? -order : order;
}

bool NumberRange::Contains(const Decimal& value) const {
  if ((integer || multiple_of != 1) && !value.IsInteger()) return false;
  if (lower) {
    const int order = Compare(value, lower->value);
    if (order < 0 || (order == 0 && lower->exclusive)) return false;
  }
  if (upper) {
    const int order = Compare(value, upper->value);
    if (order > 0 || (order == 0 && upper->exclusive)) return false;
  }
  uint64_t rest = 0;
  for (char c : value.whole) rest = (rest * 10 + static_cast<uint64_t>(c - '0')) % multiple_of;
  return rest == 0;
}

Status EmitNumber(const NumberRange& range, NodeId from, NodeId to, AutomatonBuilder* builder) {
  const bool integer = range.integer || range.multiple_of != 1;
  if (!range.lower && !range.upper && range.multiple_of == 1) return EmitFree(integer, from, to, builder);
  if (integer) return EmitIntegers(range, from, to, builder);
  if (range.Contains(Decimal())) {
    const Span zero;
    NumberEmitter(builder).Decimals(zero, kMaxBoundedDigits, from, to);
  }
  for (const bool negative : {false, true}) {
    const std::optional<Span> side = Side(range, negative);
    if (!side) continue;
    NodeId start = from;
    if (negative) {
      start = builder->NewNode();
      builder->Bytes(from, '-', '-', start);
    }
    // Only near a bound can rounding to a double move a number across it.
    size_t whole = 1, places = 0;
    for (const auto& bound : {range.lower, range.upper}) {
      if (!bound) continue;
      whole = std::max(whole, bound->value.whole.size());
      places = std::max(places, bound->value.fraction.size() + 1);
    }
    places = std::max<size_t>(places, kMaxBoundedDigits - std::min<size_t>(whole, kMaxBoundedDigits));
    NumberEmitter(builder).Decimals(*side, places, start, to);
  }
  return {};
}

}  // namespace gptoss

// JSON numbers within decimal bounds, as automata over their digits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "grammar/automaton.h"

namespace gptoss {

/// An exact decimal number: digits without superfluous zeros ("0" and "" for the parts of zero).
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction;

  /// Of a JSON number's text, exponents included. On failure: kUnsupported past 60 digits before or after the point.
  static Result<Decimal> Parse(std::string_view text);
  bool IsZero() const { return whole == "0" && fraction.empty(); }
  bool IsInteger() const { return fraction.empty(); }
  std::string Text() const;
};

/// -1, 0, 1
int Compare(const Decimal& a, const Decimal& b);

struct NumberBound {
  Decimal value;
  bool exclusive = false;
};

struct NumberRange {
  std::optional<NumberBound> lower, upper;
  bool integer = false;
  uint32_t multiple_of = 1;  // integers only

  bool Contains(const Decimal& value) const;
};

/// Digits that a number without bounds may have on each side of the point; exponents have at most two digits, so that
/// every number is finite as a double.
inline constexpr uint32_t kMaxNumberDigits = 60;
/// With bounds there is no exponent; the whole part has at most this many digits unless a bound has more, and so have
/// the digits of a bound's whole part and the decimal places together: such decimals keep their order as doubles.
inline constexpr uint32_t kMaxBoundedDigits = 15;

/// Adds the numbers of `range` between two nodes. Integers are written without point and exponent; zero has no sign.
/// On failure: kUnsupported when multiple_of needs too many states.
Status EmitNumber(const NumberRange& range, NodeId from, NodeId to, AutomatonBuilder* builder);

}  // namespace gptoss

// Deterministic automata over code points, for what regular expressions alone cannot say: intersection, complement,
// lengths. Exact; what would grow too large is an error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/regex.h"

namespace gptoss {

class CharDfa {
 public:
  static constexpr size_t kMaxStates = 20'000;

  /// Of a regular expression without anchors. On failure: kResourceExhausted, kUnsupported.
  static Result<CharDfa> FromRegex(const Regex& regex);
  /// Texts of min to max code points (max may be kUnbounded). On failure: kResourceExhausted.
  static Result<CharDfa> FromLength(uint32_t min, uint32_t max);
  static CharDfa FromTexts(const std::vector<std::string>& texts);
  static CharDfa All();

  Result<CharDfa> Intersection(const CharDfa& other) const;
  CharDfa Complement() const;

  bool Matches(std::string_view utf8) const;
  bool empty() const;
  /// Matches every text.
  bool IsAll() const { return Complement().empty(); }

  /// A loop of one state over a class becomes a counted call, for which tokens are known beforehand.
  void Emit(TextForm form, NodeId from, NodeId to, AutomatonBuilder* builder) const;

 private:
  struct Edge {
    CodePointSet set;
    uint32_t to;
  };
  struct State {
    std::vector<Edge> edges;  // disjoint
    bool accept = false;
  };
  /// Without the states from which nothing is accepted.
  CharDfa Trimmed() const;

  std::vector<State> states_;  // 0 is the start
};

}  // namespace gptoss

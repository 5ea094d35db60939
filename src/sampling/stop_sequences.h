// Stop strings over streamed text, wherever the borders of the pieces fall. Source of the multi-pattern automaton: Aho
// and Corasick, "Efficient string matching", 1975.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace gptoss {

/// Watches one stream of text. The match that ends first wins; of those that end together, the longest. What is given
/// out never contains part of the match, and does not depend on how the stream was cut into pieces. When every piece
/// and every stop string is whole UTF-8, so is every piece given out.
class StopSequences {
 public:
  /// On failure: kInvalidArgument for an empty string, or when there is more than 64 KiB of them. None at all is legal.
  static Result<StopSequences> Make(std::vector<std::string> stops);

  /// Adds text; returns what can no longer become part of a stop string. After a match: nothing.
  std::string Feed(std::string_view text);
  /// The stream has ended: returns what was held back, or nothing after a match.
  std::string Finish();

  bool matched() const { return matched_ >= 0; }
  /// The stop string that matched; empty before.
  std::string_view match() const;
  /// Forgets the stream, keeps the stop strings.
  void Reset();

 private:
  struct Node {
    std::map<unsigned char, int32_t> next;
    int32_t fail = 0;
    int32_t stop = -1;  // the longest stop string that ends here
    size_t depth = 0;
  };
  StopSequences() : nodes_(1) {}
  void Insert(size_t stop);
  void LinkFailures();
  int32_t Step(int32_t node, unsigned char byte) const;

  std::vector<std::string> stops_;
  std::vector<Node> nodes_;
  int32_t state_ = 0;
  int32_t matched_ = -1;
  std::string pending_;  // the last nodes_[state_].depth bytes of the stream
};

}  // namespace gptoss

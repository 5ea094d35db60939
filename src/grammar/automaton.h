// The one form that every grammar is compiled to: rules over bytes whose nodes have byte edges and calls of other rules
// (a recursive transition network). Calls may be counted, so that {0,1000} costs two numbers and not 1000 copies.
// The language is the set of byte strings that lead the root rule from its start to an accepting node.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace gptoss {

inline constexpr uint32_t kUnbounded = UINT32_MAX;

/// Immutable. Every node can reach an accepting node of its rule, so whatever is matched so far can be completed.
struct Automaton {
  struct ByteEdge {
    uint8_t lo, hi;  // inclusive
    uint32_t to;
  };
  /// Matches `rule` between min and max times, then goes on at `to`. A rule that is called repeatedly (min, max other
  /// than 1, 1) and matches the empty string has min 0.
  struct Call {
    uint32_t rule;
    uint32_t to;
    uint32_t min, max;
    bool tail;  // `to` accepts and leads nowhere: nothing has to be remembered
  };
  struct Node {
    uint32_t byte_begin = 0, byte_end = 0;
    uint32_t call_begin = 0, call_end = 0;
    bool accept = false;
  };
  struct Rule {
    std::string name;
    uint32_t start = 0;
    bool nullable = false;
    /// A deterministic prefix-free set of byte strings without calls, such as one character of a class.
    bool unit = false;
  };

  std::vector<ByteEdge> bytes;
  std::vector<Call> calls;
  std::vector<Node> nodes;
  std::vector<Rule> rules;
  uint32_t root = 0;
};

struct AutomatonLimits {
  size_t max_nodes = 400'000;
  size_t max_edges = 2'000'000;
};

using RuleId = uint32_t;
using NodeId = uint32_t;

/// Collects rules; past a limit it stops growing and Build() fails, so callers need not check every step.
class AutomatonBuilder {
 public:
  explicit AutomatonBuilder(const AutomatonLimits& limits = {}) : limits_(limits) {}

  /// A rule with one start and one end node; nothing connects them yet (as such it matches nothing).
  RuleId NewRule(std::string name);
  NodeId Start(RuleId rule) const { return rules_[rule].start; }
  NodeId End(RuleId rule) const { return rules_[rule].end; }
  NodeId NewNode();

  void Bytes(NodeId from, uint8_t lo, uint8_t hi, NodeId to);
  void Literal(NodeId from, std::string_view bytes, NodeId to);
  void Empty(NodeId from, NodeId to);
  void Call(NodeId from, RuleId rule, NodeId to) { Repeat(from, rule, 1, 1, to); }
  void Repeat(NodeId from, RuleId rule, uint32_t min, uint32_t max, NodeId to);

  /// A rule kept under a key, so that equal parts are built once. False when `*rule` is new and must be filled.
  bool FindOrAddRule(const std::string& key, const std::string& name, RuleId* rule);

  bool full() const { return full_; }

  /// On failure: kInvalidArgument when nothing matches `root` or a rule calls itself before it reads a byte (naming the
  /// rule), kResourceExhausted past a limit.
  Result<Automaton> Build(RuleId root);

 private:
  friend class AutomatonCompiler;
  struct ByteEdge {
    NodeId from;
    uint8_t lo, hi;
    NodeId to;
  };
  struct CallEdge {
    NodeId from;
    RuleId rule;
    uint32_t min, max;
    NodeId to;
  };
  struct EmptyEdge {
    NodeId from, to;
  };
  struct RuleEnds {
    std::string name;
    NodeId start, end;
  };
  bool Grow();

  AutomatonLimits limits_;
  uint32_t node_count_ = 0;
  std::vector<ByteEdge> bytes_;
  std::vector<CallEdge> calls_;
  std::vector<EmptyEdge> empties_;
  std::vector<RuleEnds> rules_;
  std::map<std::string, RuleId> keyed_;
  bool full_ = false;
};

}  // namespace gptoss

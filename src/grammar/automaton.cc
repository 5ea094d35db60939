#include "grammar/automaton.h"

#include <algorithm>
#include <utility>

namespace gptoss {

bool AutomatonBuilder::Grow() {
  const size_t edges = bytes_.size() + calls_.size() + empties_.size();
  full_ = full_ || node_count_ >= limits_.max_nodes || edges >= limits_.max_edges;
  return !full_;
}

NodeId AutomatonBuilder::NewNode() { return Grow() || node_count_ == 0 ? node_count_++ : 0; }

RuleId AutomatonBuilder::NewRule(std::string name) {
  const NodeId start = NewNode();
  const NodeId end = NewNode();
  rules_.push_back({std::move(name), start, end});
  return static_cast<RuleId>(rules_.size() - 1);
}

void AutomatonBuilder::Bytes(NodeId from, uint8_t lo, uint8_t hi, NodeId to) {
  if (Grow()) bytes_.push_back({from, lo, hi, to});
}

void AutomatonBuilder::Literal(NodeId from, std::string_view bytes, NodeId to) {
  if (bytes.empty()) return Empty(from, to);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const NodeId next = i + 1 == bytes.size() ? to : NewNode();
    const uint8_t b = static_cast<uint8_t>(bytes[i]);
    Bytes(from, b, b, next);
    from = next;
  }
}

void AutomatonBuilder::Empty(NodeId from, NodeId to) {
  if (Grow()) empties_.push_back({from, to});
}

void AutomatonBuilder::Repeat(NodeId from, RuleId rule, uint32_t min, uint32_t max, NodeId to) {
  if (max == 0) return Empty(from, to);
  if (Grow()) calls_.push_back({from, rule, min, max, to});
}

bool AutomatonBuilder::FindOrAddRule(const std::string& key, const std::string& name, RuleId* rule) {
  const auto [it, added] = keyed_.try_emplace(key, 0);
  if (added) it->second = NewRule(name);
  *rule = it->second;
  return !added;
}

/// Removes empty edges, everything that cannot be completed, and what nothing reaches.
class AutomatonCompiler {
 public:
  explicit AutomatonCompiler(AutomatonBuilder& in) : in_(in) {}

  Result<Automaton> Compile(RuleId root) {
    if (in_.full_) return TooLarge();
    SortEdges();
    FindNullable();
    FindProductive();
    if (!productive_[root]) return InvalidArgument("the grammar matches no text at all");
    accepts_.assign(in_.node_count_, false);
    for (size_t r = 0; r < in_.rules_.size(); ++r) accepts_[in_.rules_[r].end] = true;
    index_.assign(in_.node_count_, UINT32_MAX);
    rule_index_.assign(in_.rules_.size(), UINT32_MAX);
    out_.root = AddRule(root);
    // Nodes and rules are numbered as they are found; both lists grow while they are walked.
    for (size_t n = 0; n < order_.size(); ++n) {
      FlattenNode(order_[n]);
      if (out_.bytes.size() + out_.calls.size() > in_.limits_.max_edges) return TooLarge();
    }
    Finish();
    GPTOSS_RETURN_IF_ERROR(CheckLeftRecursion());
    return std::move(out_);
  }

 private:
  Status TooLarge() const {
    return ResourceExhausted("the grammar is too large: its automaton needs more than " +
                             std::to_string(in_.limits_.max_nodes) + " nodes or " +
                             std::to_string(in_.limits_.max_edges) + " edges; simplify it");
  }

  template <typename Edge>
  static std::vector<uint32_t> Offsets(std::vector<Edge>& edges, uint32_t nodes) {
    std::stable_sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.from < b.from; });
    std::vector<uint32_t> offsets(nodes + 1, 0);
    for (const Edge& e : edges) ++offsets[e.from + 1];
    for (uint32_t n = 0; n < nodes; ++n) offsets[n + 1] += offsets[n];
    return offsets;
  }

  void SortEdges() {
    byte_at_ = Offsets(in_.bytes_, in_.node_count_);
    call_at_ = Offsets(in_.calls_, in_.node_count_);
    empty_at_ = Offsets(in_.empties_, in_.node_count_);
  }

  /// Marks the nodes from which the end of their rule is reached, over empty edges and calls of rules for which that
  /// holds of the start, and over bytes too where asked; returns the rules for which it holds.
  std::vector<bool> ReachEnd(bool over_bytes, std::vector<bool>* reach) const {
    std::vector<std::vector<NodeId>> back(in_.node_count_);
    std::vector<std::vector<uint32_t>> calls_to(in_.node_count_), calls_of(in_.rules_.size()), starts(in_.node_count_);
    for (const auto& e : in_.empties_) back[e.to].push_back(e.from);
    for (uint32_t i = 0; i < in_.calls_.size(); ++i) {
      const auto& e = in_.calls_[i];
      if (e.min == 0) back[e.to].push_back(e.from);
      calls_to[e.to].push_back(i);
      calls_of[e.rule].push_back(i);
    }
    if (over_bytes) {
      for (const auto& e : in_.bytes_) back[e.to].push_back(e.from);
    }
    std::vector<bool> holds(in_.rules_.size(), false);
    reach->assign(in_.node_count_, false);
    std::vector<NodeId> work;
    const auto visit = [&](NodeId n) {
      if ((*reach)[n]) return;
      (*reach)[n] = true;
      work.push_back(n);
    };
    for (uint32_t r = 0; r < in_.rules_.size(); ++r) {
      starts[in_.rules_[r].start].push_back(r);
      visit(in_.rules_[r].end);
    }
    while (!work.empty()) {
      const NodeId n = work.back();
      work.pop_back();
      for (NodeId m : back[n]) visit(m);
      for (uint32_t c : calls_to[n]) {
        if (holds[in_.calls_[c].rule]) visit(in_.calls_[c].from);
      }
      for (uint32_t r : starts[n]) {
        holds[r] = true;
        for (uint32_t c : calls_of[r]) {
          if ((*reach)[in_.calls_[c].to]) visit(in_.calls_[c].from);
        }
      }
    }
    return holds;
  }

  void FindNullable() {
    std::vector<bool> nodes;
    nullable_ = ReachEnd(false, &nodes);
  }
  void FindProductive() { productive_ = ReachEnd(true, &live_); }

  uint32_t AddNode(NodeId n) {
    if (index_[n] == UINT32_MAX) {
      index_[n] = static_cast<uint32_t>(order_.size());
      order_.push_back(n);
    }
    return index_[n];
  }

  uint32_t AddRule(RuleId r) {
    if (rule_index_[r] == UINT32_MAX) {
      rule_index_[r] = static_cast<uint32_t>(out_.rules.size());
      Automaton::Rule rule;
      rule.name = in_.rules_[r].name;
      rule.nullable = nullable_[r];
      rule.start = AddNode(in_.rules_[r].start);
      out_.rules.push_back(std::move(rule));
    }
    return rule_index_[r];
  }

  void FlattenNode(NodeId origin) {
    Automaton::Node node;
    node.byte_begin = static_cast<uint32_t>(out_.bytes.size());
    node.call_begin = static_cast<uint32_t>(out_.calls.size());
    std::vector<NodeId> closure = {origin};
    ++epoch_;
    seen_.resize(in_.node_count_, 0);
    seen_[origin] = epoch_;
    for (size_t i = 0; i < closure.size(); ++i) {
      const NodeId n = closure[i];
      node.accept = node.accept || accepts_[n];
      for (uint32_t e = empty_at_[n]; e < empty_at_[n + 1]; ++e) {
        const NodeId to = in_.empties_[e].to;
        if (!live_[to] || seen_[to] == epoch_) continue;
        seen_[to] = epoch_;
        closure.push_back(to);
      }
      for (uint32_t e = byte_at_[n]; e < byte_at_[n + 1]; ++e) {
        const auto& edge = in_.bytes_[e];
        if (live_[edge.to]) out_.bytes.push_back({edge.lo, edge.hi, AddNode(edge.to)});
      }
      for (uint32_t e = call_at_[n]; e < call_at_[n + 1]; ++e) FlattenCall(in_.calls_[e], &closure);
    }
    std::sort(out_.bytes.begin() + node.byte_begin, out_.bytes.end(),
              [](const auto& a, const auto& b) { return a.lo != b.lo ? a.lo < b.lo : a.hi < b.hi; });
    node.byte_end = static_cast<uint32_t>(out_.bytes.size());
    node.call_end = static_cast<uint32_t>(out_.calls.size());
    out_.nodes.push_back(node);
  }

  void FlattenCall(const AutomatonBuilder::CallEdge& edge, std::vector<NodeId>* closure) {
    if (!live_[edge.to]) return;
    uint32_t min = edge.min;
    const bool counted = edge.min != 1 || edge.max != 1;
    if (counted && nullable_[edge.rule]) min = 0;
    if (productive_[edge.rule]) {
      out_.calls.push_back({AddRule(edge.rule), AddNode(edge.to), min, edge.max, false});
    } else if (min == 0 && seen_[edge.to] != epoch_) {  // none is the only count left
      seen_[edge.to] = epoch_;
      closure->push_back(edge.to);
    }
  }

  void Finish() {
    for (Automaton::Call& call : out_.calls) {
      const Automaton::Node& to = out_.nodes[call.to];
      call.tail =
          call.min == 1 && call.max == 1 && to.accept && to.byte_begin == to.byte_end && to.call_begin == to.call_end;
    }
    for (Automaton::Rule& rule : out_.rules) rule.unit = IsUnit(rule);
  }

  bool IsUnit(const Automaton::Rule& rule) {
    constexpr size_t kMaxUnitNodes = 4096;
    if (rule.nullable) return false;
    std::vector<uint32_t> work = {rule.start};
    seen_.resize(std::max<size_t>(seen_.size(), out_.nodes.size()), 0);
    seen_[rule.start] = ++epoch_;
    for (size_t i = 0; i < work.size(); ++i) {
      const Automaton::Node& node = out_.nodes[work[i]];
      if (node.call_begin != node.call_end || (node.accept && node.byte_begin != node.byte_end)) return false;
      for (uint32_t e = node.byte_begin; e < node.byte_end; ++e) {
        if (e > node.byte_begin && out_.bytes[e].lo <= out_.bytes[e - 1].hi) return false;
        if (out_.bytes[e].to == rule.start) return false;
        if (seen_[out_.bytes[e].to] == epoch_) continue;
        seen_[out_.bytes[e].to] = epoch_;
        work.push_back(out_.bytes[e].to);
        if (work.size() > kMaxUnitNodes) return false;
      }
    }
    return true;
  }

  /// Rules that `rule` may call before it has read a byte.
  std::vector<uint32_t> LeftCalls(uint32_t rule) {
    std::vector<uint32_t> found;
    std::vector<uint32_t> work = {out_.rules[rule].start};
    seen_.resize(std::max<size_t>(seen_.size(), out_.nodes.size()), 0);
    seen_[work[0]] = ++epoch_;
    const auto visit = [&](uint32_t n) {
      if (seen_[n] == epoch_) return;
      seen_[n] = epoch_;
      work.push_back(n);
    };
    while (!work.empty()) {
      const Automaton::Node& node = out_.nodes[work.back()];
      work.pop_back();
      for (uint32_t c = node.call_begin; c < node.call_end; ++c) {
        const Automaton::Call& call = out_.calls[c];
        found.push_back(call.rule);
        if (call.min == 0 || out_.rules[call.rule].nullable) visit(call.to);
      }
    }
    return found;
  }

  Status CheckLeftRecursion() {
    enum : uint8_t { kNew, kOpen, kDone };
    std::vector<uint8_t> state(out_.rules.size(), kNew);
    struct Frame {
      uint32_t rule;
      std::vector<uint32_t> calls;
      size_t next = 0;
    };
    for (uint32_t r = 0; r < out_.rules.size(); ++r) {
      if (state[r] != kNew) continue;
      std::vector<Frame> stack;
      stack.push_back({r, LeftCalls(r)});
      state[r] = kOpen;
      while (!stack.empty()) {
        Frame& top = stack.back();
        if (top.next == top.calls.size()) {
          state[top.rule] = kDone;
          stack.pop_back();
          continue;
        }
        const uint32_t callee = top.calls[top.next++];
        if (state[callee] == kOpen) {
          return InvalidArgument(
              "rule '" + out_.rules[callee].name +
              "' can call itself before it reads anything (left recursion); write it as a repetition");
        }
        if (state[callee] == kNew) {
          state[callee] = kOpen;
          stack.push_back({callee, LeftCalls(callee)});
        }
      }
    }
    return {};
  }

  AutomatonBuilder& in_;
  Automaton out_;
  std::vector<uint32_t> byte_at_, call_at_, empty_at_;
  std::vector<bool> nullable_, productive_, live_, accepts_;
  std::vector<uint32_t> index_, rule_index_;
  std::vector<NodeId> order_;
  std::vector<uint32_t> seen_;
  uint32_t epoch_ = 0;
};

Result<Automaton> AutomatonBuilder::Build(RuleId root) { return AutomatonCompiler(*this).Compile(root); }

}  // namespace gptoss

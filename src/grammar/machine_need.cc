// How far a state is from a whole text: shortest completions, by the generalisation of Dijkstra's algorithm to grammars
// (Knuth, "A generalization of Dijkstra's algorithm", 1977).
#include <algorithm>
#include <queue>

#include "grammar/machine.h"

namespace gptoss {
namespace {

constexpr uint32_t kFar = UINT32_MAX;

uint32_t Add(uint64_t a, uint64_t b) { return static_cast<uint32_t>(std::min<uint64_t>(a + b, kFar)); }

/// Edges by the node that they lead to, and calls by rule.
struct Backwards {
  struct Edge {
    uint32_t from;
    uint32_t call;  // kFar: a byte
  };
  std::vector<uint32_t> begin;
  std::vector<Edge> edges;
  std::vector<std::vector<Edge>> of_rule;

  explicit Backwards(const Automaton& a) : begin(a.nodes.size() + 1, 0), of_rule(a.rules.size()) {
    const auto each = [&](const auto& visit) {
      for (uint32_t n = 0; n < a.nodes.size(); ++n) {
        const Automaton::Node& node = a.nodes[n];
        for (uint32_t e = node.byte_begin; e < node.byte_end; ++e) visit(a.bytes[e].to, Edge{n, kFar});
        for (uint32_t c = node.call_begin; c < node.call_end; ++c) visit(a.calls[c].to, Edge{n, c});
      }
    };
    each([&](uint32_t to, const Edge&) { ++begin[to + 1]; });
    for (size_t n = 1; n < begin.size(); ++n) begin[n] += begin[n - 1];
    edges.resize(begin.back());
    std::vector<uint32_t> at(begin.begin(), begin.end() - 1);
    each([&](uint32_t to, const Edge& edge) {
      edges[at[to]++] = edge;
      if (edge.call != kFar) of_rule[a.calls[edge.call].rule].push_back(edge);
    });
  }
};

}  // namespace

void Machine::PrepareNeeds() {
  if (!node_need_.empty()) return;
  const Automaton& a = automaton_;
  const Backwards back(a);
  node_need_.assign(a.nodes.size(), kFar);
  rule_need_.assign(a.rules.size(), kFar);
  std::vector<std::vector<uint32_t>> rules_at(a.nodes.size());
  for (uint32_t r = 0; r < a.rules.size(); ++r) rules_at[a.rules[r].start].push_back(r);
  std::vector<bool> done(a.nodes.size(), false);
  using Item = std::pair<uint32_t, uint32_t>;  // bytes, node
  std::priority_queue<Item, std::vector<Item>, std::greater<>> queue;
  const auto offer = [&](uint32_t node, uint32_t need) {
    if (need >= node_need_[node]) return;
    node_need_[node] = need;
    queue.emplace(need, node);
  };
  const auto offer_call = [&](const Backwards::Edge& edge) {
    const Automaton::Call& call = a.calls[edge.call];
    if (!done[call.to] || (call.min > 0 && rule_need_[call.rule] == kFar)) return;
    const uint64_t rounds = call.min == 0 ? 0 : uint64_t{call.min} * rule_need_[call.rule];
    offer(edge.from, Add(std::min<uint64_t>(rounds, kFar), node_need_[call.to]));
  };
  for (uint32_t n = 0; n < a.nodes.size(); ++n) {
    if (a.nodes[n].accept) offer(n, 0);
  }
  while (!queue.empty()) {
    const uint32_t n = queue.top().second;
    queue.pop();
    if (done[n]) continue;
    done[n] = true;
    longest_need_ = std::max(longest_need_, node_need_[n]);
    for (uint32_t e = back.begin[n]; e < back.begin[n + 1]; ++e) {
      if (back.edges[e].call != kFar) {
        offer_call(back.edges[e]);
      } else {
        offer(back.edges[e].from, Add(node_need_[n], 1));
      }
    }
    for (const uint32_t r : rules_at[n]) {
      rule_need_[r] = node_need_[n];
      for (const Backwards::Edge& edge : back.of_rule[r]) offer_call(edge);
    }
  }
}

uint32_t Machine::NeedOf(StateId state) {
  // Parents come before their frames, so both tables grow in order.
  for (size_t f = frame_need_.size(); f < frames_.size(); ++f) {
    if (f == 0) {
      frame_need_.push_back(0);
      continue;
    }
    const Frame& frame = frames_[f];
    const Automaton::Call& call = automaton_.calls[frame.call];
    const uint64_t rounds = call.min > frame.count + 1 ? uint64_t{call.min} - frame.count - 1 : 0;
    const uint64_t rest = rounds == 0 ? 0 : std::min<uint64_t>(rounds * rule_need_[call.rule], kFar);
    frame_need_.push_back(Add(Add(rest, node_need_[call.to]), frame_need_[frame.parent]));
  }
  for (size_t i = state_need_.size(); i < states_.size(); ++i) {
    const State& s = states_[i];
    uint32_t need = s.accepts ? 0 : kFar;
    for (uint64_t c = s.begin; c < s.begin + s.size && need > 0; ++c) {
      need = std::min(need, Add(node_need_[configs_[c].node], frame_need_[configs_[c].frame]));
    }
    state_need_.push_back(need);
  }
  return state_need_[state];
}

bool Machine::Within(StateId state, uint32_t most_need) {
  if (node_need_.empty()) return true;  // nobody has asked for needs
  const uint32_t need = NeedOf(state);
  seen_need_ = std::max(seen_need_, need);
  if (need <= most_need) return true;
  narrowed_ = true;
  return false;
}

/// At most this after any token that stays inside the repetition which `config` stands in.
uint32_t Machine::NeedInside(const Config& config) {
  NeedOf(kDead);  // brings the frames up to date
  const Automaton::Call& call = automaton_.calls[frames_[config.frame].call];
  const Unit& unit = units_[call.rule];
  uint32_t open = 0;
  for (size_t i = 0; i < unit.number.size(); ++i) {
    if (unit.number[i] >= 0) open = std::max(open, node_need_[unit.first + i]);
  }
  return Add(open, frame_need_[config.frame]);
}

uint32_t Machine::Need(StateId state) {
  const std::lock_guard<std::mutex> lock(mutex_);
  PrepareNeeds();
  return NeedOf(state);
}

uint32_t Machine::NeedStep() {
  const std::lock_guard<std::mutex> lock(mutex_);
  PrepareNeeds();
  constexpr uint32_t kParts = 16, kLeast = 1024;
  return std::max(kLeast, static_cast<uint32_t>(std::min<uint64_t>(uint64_t{kParts} * longest_need_, kFar)));
}

}  // namespace gptoss

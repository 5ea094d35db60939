#include "grammar/machine.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "base/rng.h"

namespace gptoss {
namespace {

// A row for a unit's automaton costs 512 bytes a node; classes of scripts stay under this.
constexpr size_t kMaxUnitNodes = 512;

}  // namespace

Machine::Machine(Automaton automaton, std::shared_ptr<const TokenIndex> tokens, const MachineLimits& limits)
    : automaton_(std::move(automaton)), tokens_(std::move(tokens)), limits_(limits) {
  PrepareNodes();
  PrepareUnits();
  states_.push_back({0, 0, false, false});  // kDead
  frames_.push_back({UINT32_MAX, 0, 0});
  start_ = StateOf(std::array{Config{automaton_.rules[automaton_.root].start, 0}});
}

std::shared_ptr<Machine> Machine::Create(Automaton automaton, std::shared_ptr<const TokenIndex> tokens,
                                         const MachineLimits& limits) {
  return std::shared_ptr<Machine>(new Machine(std::move(automaton), std::move(tokens), limits));
}

void Machine::PrepareNodes() {
  kinds_.resize(automaton_.nodes.size());
  for (size_t n = 0; n < kinds_.size(); ++n) {
    const Automaton::Node& node = automaton_.nodes[n];
    kinds_[n].plain = node.call_begin == node.call_end && !node.accept && node.byte_begin != node.byte_end;
    kinds_[n].disjoint = true;
    for (uint32_t e = node.byte_begin + 1; e < node.byte_end; ++e) {
      kinds_[n].disjoint &= automaton_.bytes[e].lo > automaton_.bytes[e - 1].hi;
    }
  }
}

void Machine::PrepareUnits() {
  units_.resize(automaton_.rules.size());
  std::vector<bool> repeated(automaton_.rules.size(), false);
  for (const Automaton::Call& call : automaton_.calls) {
    if (call.max > 1) repeated[call.rule] = true;
  }
  for (size_t r = 0; r < automaton_.rules.size(); ++r) {
    const Automaton::Rule& rule = automaton_.rules[r];
    if (!rule.unit || !repeated[r] || tokens_ == nullptr) continue;
    std::vector<uint32_t> order = {rule.start};
    std::map<uint32_t, uint16_t> number = {{rule.start, 0}};
    UnitDfa dfa;
    for (size_t i = 0; i < order.size() && order.size() <= kMaxUnitNodes; ++i) {
      dfa.next.emplace_back().fill(UnitDfa::kNone);
      const Automaton::Node& node = automaton_.nodes[order[i]];
      for (uint32_t e = node.byte_begin; e < node.byte_end; ++e) {
        const Automaton::ByteEdge& edge = automaton_.bytes[e];
        uint16_t to = UnitDfa::kDone;
        if (!automaton_.nodes[edge.to].accept) {
          const auto [it, added] = number.try_emplace(edge.to, static_cast<uint16_t>(order.size()));
          if (added) order.push_back(edge.to);
          to = it->second;
        }
        std::fill(dfa.next[i].begin() + edge.lo, dfa.next[i].begin() + edge.hi + 1, to);
      }
    }
    if (order.size() > kMaxUnitNodes) continue;
    Unit& unit = units_[r];
    unit.id = tokens_->UnitId(dfa);
    const auto [low, high] = std::minmax_element(order.begin(), order.end());
    unit.first = *low;
    unit.number.assign(*high - *low + 1, -1);
    for (size_t i = 0; i < order.size(); ++i) unit.number[order[i] - *low] = static_cast<int32_t>(i);
  }
}

void Machine::SmallSet::Clear() {
  items_.clear();
  if (many_) table_ = IdTable();
  many_ = false;
}

bool Machine::SmallSet::Contains(uint64_t item) const {
  if (!many_) return std::find(items_.begin(), items_.end(), item) != items_.end();
  return table_.Find(Mix64(item), [&](uint32_t i) { return items_[i] == item; }) != IdTable::kNone;
}

bool Machine::SmallSet::Add(uint64_t item) {
  constexpr size_t kLinear = 48;
  if (Contains(item)) return false;
  if (!many_ && items_.size() == kLinear) {
    many_ = true;
    for (uint32_t i = 0; i < kLinear; ++i) table_.Add(Mix64(items_[i]), i);
  }
  if (many_) table_.Add(Mix64(item), static_cast<uint32_t>(items_.size()));
  items_.push_back(item);
  return true;
}

uint32_t Machine::InternFrame(const Frame& frame) {
  const uint64_t hash = Mix64((uint64_t{frame.call} << 32 | frame.parent) ^ Mix64(frame.count));
  const uint32_t known = frame_ids_.Find(hash, [&](uint32_t id) { return frames_[id] == frame; });
  if (known != IdTable::kNone) return known;
  if (frames_.size() >= limits_.max_frames) {
    overflow_ = true;
    return 0;
  }
  const auto id = static_cast<uint32_t>(frames_.size());
  frames_.push_back(frame);
  frame_ids_.Add(hash, id);
  return id;
}

/// The state that holds `positions` and what they reach without reading a byte.
Machine::StateId Machine::StateOf(std::span<const Config> positions) {
  if (positions.size() == 1 && kinds_[positions[0].node].plain) return InternState(positions, false);
  bool accepts = false;
  Close(positions, &accepts);
  return InternState(closed_, accepts);
}

/// Leaves the closure in closed_, sorted.
void Machine::Close(std::span<const Config> positions, bool* accepts) {
  visited_.Clear();
  entered_.Clear();  // frames that began here: nothing was read in them yet
  closed_.clear();
  work_.clear();
  const auto push = [&](uint32_t node, uint32_t frame) {
    if (visited_.Add(uint64_t{node} << 32 | frame)) work_.push_back({node, frame});
  };
  for (const Config& c : positions) push(c.node, c.frame);
  while (!work_.empty() && !overflow_) {
    const Config c = work_.back();
    work_.pop_back();
    const Automaton::Node& node = automaton_.nodes[c.node];
    if (node.byte_begin != node.byte_end) closed_.push_back(c);
    if (closed_.size() > limits_.max_set) overflow_ = true;
    for (uint32_t i = node.call_begin; i < node.call_end; ++i) {
      const Automaton::Call& call = automaton_.calls[i];
      if (call.min == 0) push(call.to, c.frame);
      const uint32_t frame = call.tail ? c.frame : InternFrame({i, 0, c.frame});
      if (!call.tail && automaton_.rules[call.rule].nullable) entered_.Add(frame);
      push(automaton_.rules[call.rule].start, frame);
    }
    if (!node.accept) continue;
    if (c.frame == 0) {
      *accepts = true;
      continue;
    }
    const Frame frame = frames_[c.frame];
    const Automaton::Call& call = automaton_.calls[frame.call];
    const uint32_t count = frame.count + 1;
    if (count >= call.min) push(call.to, frame.parent);
    if (count >= call.max) continue;
    // An empty round adds nothing. Such a rule has no least count, so what a later round can do an earlier one can too.
    if (automaton_.rules[call.rule].nullable && entered_.Contains(c.frame)) continue;
    const uint32_t next = call.max == kUnbounded ? std::min(count, call.min) : count;
    const uint32_t again = InternFrame({frame.call, next, frame.parent});
    if (automaton_.rules[call.rule].nullable) entered_.Add(again);
    push(automaton_.rules[call.rule].start, again);
  }
  std::sort(closed_.begin(), closed_.end());
}

Machine::StateId Machine::InternState(std::span<const Config> configs, bool accepts) {
  if (overflow_ || (configs.empty() && !accepts)) return kDead;
  uint64_t hash = accepts ? kGoldenGamma : 0;
  for (const Config& c : configs) hash = Mix64(hash ^ (uint64_t{c.node} << 32 | c.frame));
  const uint32_t known = state_ids_.Find(hash, [&](uint32_t id) {
    const State& s = states_[id];
    return s.accepts == accepts && s.size == configs.size() &&
           std::equal(configs.begin(), configs.end(), configs_.begin() + static_cast<ptrdiff_t>(s.begin));
  });
  if (known != IdTable::kNone) return known;
  if (states_.size() >= limits_.max_states) {
    overflow_ = true;
    return kDead;
  }
  const StateId id = static_cast<StateId>(states_.size());
  const bool has_unit = std::ranges::any_of(configs, [&](const Config& c) { return UnitNode(c) >= 0; });
  states_.push_back({configs_.size(), static_cast<uint32_t>(configs.size()), accepts, has_unit});
  configs_.insert(configs_.end(), configs.begin(), configs.end());
  state_ids_.Add(hash, id);
  return id;
}

const Machine::Row& Machine::RowOf(StateId state) {
  static const Row kDeadRow{};
  if (states_[state].row >= 0) return *rows_[static_cast<size_t>(states_[state].row)];
  if (state == kDead) return kDeadRow;
  auto row = std::make_unique<Row>();
  ComputeRow(state, row.get());
  if (overflow_) return kDeadRow;
  states_[state].row = static_cast<int32_t>(rows_.size());
  rows_.push_back(std::move(row));
  ++counters_.rows;
  return *rows_.back();
}

void Machine::ComputeRow(StateId state, Row* row) {
  const State s = states_[state];
  row->fill(kDead);
  if (s.size != 1 || !kinds_[configs_[s.begin].node].disjoint) return ComputeMixedRow(s, row);
  const Config from = configs_[s.begin];
  const Automaton::Node& node = automaton_.nodes[from.node];
  std::array<std::pair<uint32_t, StateId>, 4> known;  // ranges often lead to the same place
  size_t next = 0;
  known.fill({UINT32_MAX, kDead});
  for (uint32_t e = node.byte_begin; e < node.byte_end; ++e) {
    const Automaton::ByteEdge& edge = automaton_.bytes[e];
    auto it = std::find_if(known.begin(), known.end(), [&](const auto& k) { return k.first == edge.to; });
    if (it == known.end()) {
      it = known.begin() + static_cast<ptrdiff_t>(next++ % known.size());
      *it = {edge.to, StateOf(std::array{Config{edge.to, from.frame}})};
    }
    std::fill(row->begin() + edge.lo, row->begin() + edge.hi + 1, it->second);
  }
}

/// The same for several positions, whose ranges of bytes overlap.
void Machine::ComputeMixedRow(const State& s, Row* row) {
  struct Edge {
    uint8_t lo, hi;
    Config to;
  };
  std::vector<Edge> edges;
  std::array<bool, 257> border{};
  for (uint64_t i = s.begin; i < s.begin + s.size; ++i) {
    const Config c = configs_[i];
    const Automaton::Node& node = automaton_.nodes[c.node];
    for (uint32_t e = node.byte_begin; e < node.byte_end; ++e) {
      const Automaton::ByteEdge& edge = automaton_.bytes[e];
      edges.push_back({edge.lo, edge.hi, {edge.to, c.frame}});
      border[edge.lo] = border[edge.hi + size_t{1}] = true;
    }
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.lo < b.lo; });
  std::vector<std::pair<std::vector<Config>, StateId>> known;  // ranges often lead to the same place
  std::vector<Config> targets;
  for (size_t lo = 0; lo < 256;) {
    size_t hi = lo + 1;
    while (!border[hi] && hi < 256) ++hi;
    targets.clear();
    for (const Edge& e : edges) {
      if (e.lo > lo) break;
      if (e.hi >= lo) targets.push_back(e.to);
    }
    if (!targets.empty()) {
      std::sort(targets.begin(), targets.end());
      auto it = std::find_if(known.begin(), known.end(), [&](const auto& k) { return k.first == targets; });
      if (it == known.end()) it = known.emplace(known.end(), targets, StateOf(targets));
      std::fill(row->begin() + static_cast<ptrdiff_t>(lo), row->begin() + static_cast<ptrdiff_t>(hi), it->second);
    }
    lo = hi;
  }
}

void Machine::TrimRows() {
  if (rows_.size() <= limits_.max_rows) return;
  for (State& s : states_) s.row = -1;
  rows_.clear();
}

Status Machine::Failure() {
  overflow_ = false;
  return ResourceExhausted("the grammar is too ambiguous or its state too large: past " +
                           std::to_string(limits_.max_states) + " states, " + std::to_string(limits_.max_frames) +
                           " calls or " + std::to_string(limits_.max_set) + " ways at once; simplify it");
}

Result<Machine::StateId> Machine::Step(StateId state, std::string_view bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (char b : bytes) {
    TrimRows();
    state = RowOf(state)[static_cast<uint8_t>(b)];
    if (overflow_) return Failure();
    if (state == kDead) break;
  }
  return state;
}

bool Machine::Accepts(StateId state) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return states_[state].accepts;
}

bool Machine::CanContinue(StateId state) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return states_[state].size > 0;
}

Result<std::string> Machine::ForcedBytes(StateId state, size_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string out;
  while (out.size() < limit && !states_[state].accepts) {
    TrimRows();
    const Row& row = RowOf(state);
    if (overflow_) return Failure();
    const auto it = std::find_if(row.begin(), row.end(), [](StateId id) { return id != kDead; });
    if (it == row.end() || std::find_if(it + 1, row.end(), [](StateId id) { return id != kDead; }) != row.end()) break;
    out += static_cast<char>(it - row.begin());
    state = *it;
  }
  return out;
}

Machine::Counters Machine::counters() {
  const std::lock_guard<std::mutex> lock(mutex_);
  counters_.states = states_.size();
  counters_.frames = frames_.size();
  return counters_;
}

Result<bool> Matcher::Accept(TokenId token) {
  const Tokenizer& tokenizer = machine_->tokens().tokenizer();
  const std::string_view bytes = tokenizer.TokenBytes(token);
  if (bytes.empty() || tokenizer.IsSpecial(token)) return false;
  return AcceptBytes(bytes);
}

Result<bool> Matcher::AcceptBytes(std::string_view bytes) {
  GPTOSS_ASSIGN_OR_RETURN(const Machine::StateId next, machine_->Step(states_.back(), bytes));
  if (next == Machine::kDead) return false;
  states_.push_back(next);
  return true;
}

void Matcher::Rollback(size_t n) {
  GPTOSS_CHECK(n <= steps());
  states_.resize(states_.size() - n);
}

Result<std::vector<TokenId>> Matcher::ForcedTokens() const {
  constexpr size_t kMaxForcedBytes = 1024;
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, machine_->ForcedBytes(states_.back(), kMaxForcedBytes));
  std::vector<TokenId> tokens = machine_->tokens().tokenizer().Encode(text);
  GPTOSS_ASSIGN_OR_RETURN(const Machine::StateId end, machine_->Step(states_.back(), text));
  if (!tokens.empty() && machine_->CanContinue(end)) tokens.pop_back();
  return tokens;
}

}  // namespace gptoss

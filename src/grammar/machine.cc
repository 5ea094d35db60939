#include "grammar/machine.h"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "base/rng.h"

namespace gptoss {
namespace {

// More repetitions at once than this are rarer than the tables for them are worth.
constexpr size_t kMaxUnitsAtOnce = 8;
// A row for a unit's automaton costs 512 bytes a node; classes of scripts stay under this.
constexpr size_t kMaxUnitNodes = 512;

void SetBit(std::span<uint64_t> mask, TokenId token) {
  mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
}

}  // namespace

size_t Machine::FrameHash::operator()(const Frame& f) const {
  return Mix64((uint64_t{f.call} << 32 | f.parent) ^ Mix64(f.count));
}

Machine::Machine(Automaton automaton, std::shared_ptr<const TokenIndex> tokens, const MachineLimits& limits)
    : automaton_(std::move(automaton)), tokens_(std::move(tokens)), limits_(limits) {
  PrepareUnits();
  states_.push_back({0, 0, false});  // kDead
  frames_.push_back({UINT32_MAX, 0, 0});
  std::vector<Config> configs;
  bool accepts = false;
  Close({{automaton_.rules[automaton_.root].start, 0}}, &configs, &accepts);
  start_ = InternState(std::move(configs), accepts);
}

std::shared_ptr<Machine> Machine::Create(Automaton automaton, std::shared_ptr<const TokenIndex> tokens,
                                         const MachineLimits& limits) {
  return std::shared_ptr<Machine>(new Machine(std::move(automaton), std::move(tokens), limits));
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
    std::unordered_map<uint32_t, uint16_t> number = {{rule.start, 0}};
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

uint32_t Machine::InternFrame(const Frame& frame) {
  if (frames_.size() >= limits_.max_frames) {
    overflow_ = true;
    return 0;
  }
  const auto [it, added] = frame_ids_.try_emplace(frame, static_cast<uint32_t>(frames_.size()));
  if (added) frames_.push_back(frame);
  return it->second;
}

namespace {

/// Membership for the few items of one closure.
class SmallSet {
 public:
  /// False when it was there.
  bool Add(uint64_t item) {
    if (items_.size() < kLinear) {
      if (std::find(items_.begin(), items_.end(), item) != items_.end()) return false;
      items_.push_back(item);
      return true;
    }
    if (many_.empty()) {
      for (uint64_t i : items_) many_.emplace(i, 0);
    }
    return many_.emplace(item, 0).second;
  }
  bool Contains(uint64_t item) const {
    return many_.empty() ? std::find(items_.begin(), items_.end(), item) != items_.end() : many_.contains(item);
  }

 private:
  static constexpr size_t kLinear = 48;
  std::vector<uint64_t> items_;
  std::unordered_map<uint64_t, uint8_t> many_;
};

}  // namespace

void Machine::Close(std::vector<Config> work, std::vector<Config>* out, bool* accepts) {
  SmallSet visited;
  SmallSet entered;  // frames that began here: nothing was read in them yet
  const auto push = [&](uint32_t node, uint32_t frame) {
    if (visited.Add(uint64_t{node} << 32 | frame)) work.push_back({node, frame});
  };
  std::vector<Config> first = std::move(work);
  work.clear();
  for (const Config& c : first) push(c.node, c.frame);
  while (!work.empty() && !overflow_) {
    const Config c = work.back();
    work.pop_back();
    const Automaton::Node& node = automaton_.nodes[c.node];
    if (node.byte_begin != node.byte_end) out->push_back(c);
    if (out->size() > limits_.max_set) overflow_ = true;
    for (uint32_t i = node.call_begin; i < node.call_end; ++i) {
      const Automaton::Call& call = automaton_.calls[i];
      if (call.min == 0) push(call.to, c.frame);
      const uint32_t frame = call.tail ? c.frame : InternFrame({i, 0, c.frame});
      if (!call.tail && automaton_.rules[call.rule].nullable) entered.Add(frame);
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
    if (automaton_.rules[call.rule].nullable && entered.Contains(c.frame)) continue;
    const uint32_t next = call.max == kUnbounded ? std::min(count, call.min) : count;
    const uint32_t again = InternFrame({frame.call, next, frame.parent});
    if (automaton_.rules[call.rule].nullable) entered.Add(again);
    push(automaton_.rules[call.rule].start, again);
  }
  std::sort(out->begin(), out->end());
}

Machine::StateId Machine::InternState(std::vector<Config> configs, bool accepts) {
  if (overflow_ || (configs.empty() && !accepts)) return kDead;
  uint64_t hash = accepts ? kGoldenGamma : 0;
  for (const Config& c : configs) hash = Mix64(hash ^ (uint64_t{c.node} << 32 | c.frame));
  const auto [begin, end] = state_ids_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const State& s = states_[it->second];
    if (s.accepts == accepts && s.size == configs.size() &&
        std::equal(configs.begin(), configs.end(), configs_.begin() + static_cast<ptrdiff_t>(s.begin))) {
      return it->second;
    }
  }
  if (states_.size() >= limits_.max_states) {
    overflow_ = true;
    return kDead;
  }
  const StateId id = static_cast<StateId>(states_.size());
  states_.push_back({configs_.size(), static_cast<uint32_t>(configs.size()), accepts});
  configs_.insert(configs_.end(), configs.begin(), configs.end());
  state_ids_.emplace(hash, id);
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
  row->fill(kDead);
  const State s = states_[state];
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
      if (it == known.end()) {
        std::vector<Config> configs;
        bool accepts = false;
        Close(targets, &configs, &accepts);
        const StateId id = InternState(std::move(configs), accepts);
        known.emplace_back(targets, id);
        it = std::prev(known.end());
      }
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

template <typename OnNode>
void Machine::WalkTrie(const FlatTrie& trie, StateId state, const OnNode& on_node) {
  std::array<const Row*, FlatTrie::kMaxDepth + 1> rows;
  rows[0] = &RowOf(state);
  StateId last = kDead;  // most steps lead where the one before led
  const Row* last_row = nullptr;
  ++counters_.walks;
  const uint32_t size = static_cast<uint32_t>(trie.nodes.size());
  for (uint32_t i = 0; i < size && !overflow_;) {
    const FlatTrie::Node& node = trie.nodes[i];
    const StateId to = (*rows[node.depth])[node.byte];
    if (to == kDead) {
      i = node.end;
      continue;
    }
    if (node.value_count != 0) on_node(node, to);
    if (++i < node.end) {
      if (to != last) last_row = &RowOf(to);
      last = to;
      rows[node.depth + size_t{1}] = last_row;
    }
    ++counters_.walked_nodes;
  }
}

void Machine::AddWalk(StateId state, std::span<uint64_t> mask, uint32_t most_need) {
  const TokenIndex& index = *tokens_;
  WalkTrie(index.trie(), state, [&](const FlatTrie::Node& node, StateId to) {
    if (!Within(to, most_need)) return;
    for (uint32_t v = node.value_begin; v < node.value_begin + node.value_count; ++v) SetBit(mask, index.token(v));
  });
}

const std::vector<uint64_t>& Machine::CachedWalk(StateId state) {
  if (states_[state].mask < 0) {
    std::vector<uint64_t> mask(tokens_->mask_words(), 0);
    AddWalk(state, mask, kUnbounded);
    if (masks_.size() >= limits_.max_masks) {
      for (StateId owner : mask_owners_) states_[owner].mask = -1;
      masks_.clear();
      mask_owners_.clear();
    }
    states_[state].mask = static_cast<int32_t>(masks_.size());
    masks_.push_back(std::move(mask));
    mask_owners_.push_back(state);
  }
  const size_t at = static_cast<size_t>(states_[state].mask);
  if (!overflow_) return masks_[at];
  // Incomplete: never to be used again.
  static const std::vector<uint64_t> kNone;
  states_[state].mask = -1;
  return kNone;
}

int32_t Machine::UnitNode(const Config& config) const {
  if (config.frame == 0) return -1;
  const Automaton::Call& call = automaton_.calls[frames_[config.frame].call];
  const Unit& unit = units_[call.rule];
  if (unit.id < 0 || config.node < unit.first || config.node - unit.first >= unit.number.size()) return -1;
  return unit.number[config.node - unit.first];
}

bool Machine::AddUnit(const Config& config, std::span<uint64_t> mask, uint32_t most_need) {
  const uint16_t node = static_cast<uint16_t>(UnitNode(config));
  const Frame frame = frames_[config.frame];
  const Automaton::Call& call = automaton_.calls[frame.call];
  const int32_t unit = units_[call.rule].id;
  // What stays inside the repetition leaves at most one unit open, and no more repetitions to do than before.
  if (most_need != kUnbounded && NeedInside(config) > most_need) return false;
  std::vector<Config> configs;
  bool accepts = false;
  Close({{call.to, frame.parent}}, &configs, &accepts);
  const StateId after = InternState(std::move(configs), accepts);
  const Row& row = RowOf(after);
  if (overflow_) return false;
  ByteSet first;
  for (size_t b = 0; b < 256; ++b) first[b] = row[b] != kDead;
  if (first.any()) {
    const UnitTokens::Exits& exits = tokens_->ExitsOf(unit, node, first);
    if (exits.too_many) return false;
    WalkTrie(exits.rest, after, [&](const FlatTrie::Node& n, StateId to) {
      if (!Within(to, most_need)) return;
      for (uint32_t v = n.value_begin; v < n.value_begin + n.value_count; ++v) {
        const UnitTokens::Exit& exit = exits.exits[v];
        const uint64_t count = uint64_t{frame.count} + exit.units;
        if (count >= call.min && count <= call.max) SetBit(mask, exit.token);
      }
    });
  }
  const UnitTokens& inside = tokens_->TokensOf(unit, node);
  const uint64_t room = call.max == kUnbounded ? UINT64_MAX : call.max - frame.count;
  const size_t needs = inside.need_begin.size() - 1;
  if (room >= needs - 1) {
    for (size_t w = 0; w < mask.size(); ++w) mask[w] |= inside.all[w];
    return true;
  }
  const size_t fit = inside.need_begin[room + 1];
  if (fit * 2 < inside.by_need.size()) {
    for (size_t i = 0; i < fit; ++i) SetBit(mask, inside.by_need[i]);
    return true;
  }
  // Most fit: start from all of them; what does not is taken out again unless something else had set it.
  std::vector<uint64_t> wide = inside.all;
  for (size_t i = fit; i < inside.by_need.size(); ++i) {
    const size_t token = static_cast<size_t>(inside.by_need[i]);
    wide[token / 64] &= ~(uint64_t{1} << (token % 64));
  }
  for (size_t w = 0; w < mask.size(); ++w) mask[w] |= wide[w];
  return true;
}

Status Machine::FillMaskWithin(StateId state, std::span<uint64_t> mask, uint32_t most_need, bool* narrowed) {
  GPTOSS_CHECK(tokens_ != nullptr && mask.size() == tokens_->mask_words());
  const std::lock_guard<std::mutex> lock(mutex_);
  TrimRows();
  if (most_need != kUnbounded) PrepareNeeds();
  narrowed_ = false;
  std::fill(mask.begin(), mask.end(), 0);
  const State s = states_[state];
  const std::vector<Config> configs(configs_.begin() + static_cast<ptrdiff_t>(s.begin),
                                    configs_.begin() + static_cast<ptrdiff_t>(s.begin + s.size));
  std::vector<Config> rest;
  size_t units = 0;
  for (const Config& c : configs) units += UnitNode(c) >= 0 ? 1 : 0;
  for (const Config& c : configs) {
    const bool done = units <= kMaxUnitsAtOnce && UnitNode(c) >= 0 && AddUnit(c, mask, most_need);
    if (!done) rest.push_back(c);
  }
  if (!rest.empty() && !overflow_) {
    const StateId walk = InternState(std::move(rest), false);
    if (!overflow_ && most_need != kUnbounded) {
      AddWalk(walk, mask, most_need);
    } else if (!overflow_) {
      const std::vector<uint64_t>& walked = CachedWalk(walk);
      for (size_t w = 0; w < walked.size(); ++w) mask[w] |= walked[w];
    }
  }
  if (narrowed != nullptr) *narrowed = narrowed_;
  if (!overflow_) return {};
  std::fill(mask.begin(), mask.end(), 0);
  return Failure();
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

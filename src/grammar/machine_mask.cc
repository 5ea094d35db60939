// Which tokens may follow: walks over the vocabulary's trie, and the ways around them.
#include <algorithm>
#include <array>
#include <utility>

#include "grammar/machine.h"

namespace gptoss {
namespace {

// More repetitions at once than this are rarer than the tables for them are worth.
constexpr size_t kMaxUnitsAtOnce = 8;
// Fewer tokens than these are walked about as fast as a mask is corrected.
constexpr uint32_t kManyTokens = 4096;
// A character takes at most 6 bytes ("\u001f"), after which two ways to read it are one state.
constexpr int kMaxAlikeDepth = 8;

void AddBits(const std::vector<uint64_t>& from, std::span<uint64_t> mask) {
  for (size_t w = 0; w < mask.size(); ++w) mask[w] |= from[w];
}

}  // namespace

/// Calls on_node(trie node, state after it) for every node below `from` that has values and to which `state` leads.
template <typename OnNode>
void Machine::WalkTrie(const FlatTrie& trie, uint32_t from, StateId state, const OnNode& on_node) {
  struct Level {
    uint32_t next, end;
    const Row* row;
  };
  std::array<Level, FlatTrie::kMaxDepth + 1> levels;
  size_t depth = 0;
  levels[0] = {trie.child_begin(from), trie.child_end(from), &RowOf(state)};
  StateId last = kDead;  // most steps lead where the one before led
  const Row* last_row = nullptr;
  ++counters_.walks;
  while (!overflow_) {
    Level& level = levels[depth];
    while (level.next < level.end && (*level.row)[trie.bytes[level.next]] == kDead) ++level.next;
    if (level.next == level.end) {
      if (depth-- == 0) break;
      continue;
    }
    const uint32_t n = level.next++;
    const StateId to = (*level.row)[trie.bytes[n]];
    const FlatTrie::Node& node = trie.nodes[n];
    ++counters_.walked_nodes;
    if (node.value_begin != node.own_end) on_node(node, to);
    if (node.own_end == node.end) continue;
    if (to != last) last_row = &RowOf(to);
    last = to;
    levels[++depth] = {node.child_begin, trie.child_end(n), last_row};
  }
}

void Machine::AddWalk(StateId state, std::span<uint64_t> mask, uint32_t most_need) {
  WalkTrie(tokens_->trie(), 0, state, [&](const FlatTrie::Node& node, StateId to) {
    if (!Within(to, most_need)) return;
    for (uint32_t v = node.value_begin; v < node.own_end; ++v) SetBit(mask, tokens_->token(v));
  });
}

/// Whether the same texts lead on from both, as far as some steps tell: a true is always right. `known` keeps what was
/// found before.
bool Machine::Alike(StateId a, StateId b, int depth, std::vector<KnownPair>* known) {
  if (a == b) return true;
  if (a == kDead || b == kDead || states_[a].accepts != states_[b].accepts) return false;
  for (const KnownPair& pair : *known) {
    if (pair.a == a && pair.b == b) return pair.alike;
  }
  bool alike = depth < kMaxAlikeDepth;
  const Row& row_a = RowOf(a);
  const Row& row_b = RowOf(b);
  for (size_t byte = 0; byte < row_a.size() && alike; ++byte) {
    if (byte > 0 && row_a[byte] == row_a[byte - 1] && row_b[byte] == row_b[byte - 1]) continue;
    alike = Alike(row_a[byte], row_b[byte], depth + 1, known);
  }
  known->push_back({a, b, alike});
  return alike;
}

/// The state to which most tokens lead with their first byte, if it repeats a unit: its mask is had without a walk, and
/// that of `state` differs from it in few places. A key that must differ from named ones is such a state: after any
/// other first letter it may be anything. kDead: none.
Machine::StateId Machine::BaseOf(StateId state) {
  const FlatTrie& trie = tokens_->trie();
  const Row& row = RowOf(state);
  std::vector<std::pair<StateId, uint32_t>> sums;  // tokens by the state that their first byte leads to
  for (uint32_t n = trie.child_begin(0); n < trie.child_end(0); ++n) {
    const StateId to = row[trie.bytes[n]];
    if (to == kDead) continue;
    if (sums.empty() || sums.back().first != to) {
      const auto known = std::ranges::find(sums, to, &std::pair<StateId, uint32_t>::first);
      if (known == sums.end()) {
        sums.emplace_back(to, 0);
      } else {
        std::swap(*known, sums.back());
      }
    }
    sums.back().second += trie.nodes[n].end - trie.nodes[n].value_begin;
  }
  if (sums.empty()) return kDead;
  const auto [base, tokens] = *std::ranges::max_element(sums, {}, &std::pair<StateId, uint32_t>::second);
  if (tokens < kManyTokens || base == state) return kDead;
  const State s = states_[base];
  const auto begin = configs_.begin() + static_cast<ptrdiff_t>(s.begin);
  if (std::none_of(begin, begin + s.size, [&](const Config& c) { return UnitNode(c) >= 0; })) return kDead;
  const Row& after = RowOf(base);
  uint32_t most = 0;
  for (uint32_t n = trie.child_begin(0); n < trie.child_end(0); ++n) {
    if (after[trie.bytes[n]] != kDead) most += trie.nodes[n].end - trie.nodes[n].value_begin;
  }
  return tokens >= most / 2 ? base : kDead;
}

/// The mask of `state` as that of `base` with corrections where the two lead to different places. `mask` is empty.
void Machine::AddDifference(StateId state, StateId base, std::span<uint64_t> mask) {
  AddMask(base, mask, kUnbounded, /*by_difference=*/false);
  struct Level {
    uint32_t next, end;
    const Row *mine, *theirs;
  };
  const FlatTrie& trie = tokens_->trie();
  std::vector<Level> levels = {{trie.child_begin(0), trie.child_end(0), &RowOf(state), &RowOf(base)}};
  std::vector<KnownPair> known;
  const auto set_own = [&](const FlatTrie::Node& node, StateId to) {
    Within(to, kUnbounded);
    for (uint32_t v = node.value_begin; v < node.own_end; ++v) SetBit(mask, tokens_->token(v));
  };
  while (!levels.empty() && !overflow_) {
    Level& level = levels.back();
    if (level.next == level.end) {
      levels.pop_back();
      continue;
    }
    const uint32_t n = level.next++;
    const StateId mine = (*level.mine)[trie.bytes[n]], theirs = (*level.theirs)[trie.bytes[n]];
    if (Alike(mine, theirs, 0, &known)) continue;
    const FlatTrie::Node& node = trie.nodes[n];
    ++counters_.walked_nodes;
    if (mine == kDead) {
      for (uint32_t v = node.value_begin; v < node.end; ++v) ClearBit(mask, tokens_->token(v));
      continue;
    }
    set_own(node, mine);
    if (node.own_end == node.end) continue;
    if (theirs == kDead) {
      WalkTrie(trie, n, mine, set_own);
    } else {
      levels.push_back({trie.child_begin(n), trie.child_end(n), &RowOf(mine), &RowOf(theirs)});
    }
  }
}

/// The mask of a state by a walk, or by difference where that is allowed; null past a limit.
const Machine::WalkedMask* Machine::CachedWalk(StateId state, bool by_difference) {
  const bool has_needs = !node_need_.empty();
  const int32_t known = states_[state].mask;
  if (known >= 0 && (!has_needs || masks_[static_cast<size_t>(known)].longest != kUnbounded)) {
    return &masks_[static_cast<size_t>(known)];
  }
  WalkedMask made;
  made.bits.assign(tokens_->mask_words(), 0);
  made.owner = state;
  const uint32_t seen_before = std::exchange(seen_need_, 0);
  const StateId base = by_difference ? BaseOf(state) : kDead;
  if (base != kDead) {
    AddDifference(state, base, made.bits);
  } else {
    AddWalk(state, made.bits, kUnbounded);
  }
  if (has_needs) made.longest = std::min(seen_need_, kUnbounded - 1);
  seen_need_ = std::max(seen_need_, seen_before);
  if (overflow_) return nullptr;
  if (states_[state].mask >= 0) return &(masks_[static_cast<size_t>(states_[state].mask)] = std::move(made));
  if (masks_.size() >= limits_.max_masks) {
    for (const WalkedMask& mask : masks_) states_[mask.owner].mask = -1;
    masks_.clear();
  }
  states_[state].mask = static_cast<int32_t>(masks_.size());
  masks_.push_back(std::move(made));
  return &masks_.back();
}

int32_t Machine::UnitNode(const Config& config) const {
  if (config.frame == 0) return -1;
  const Automaton::Call& call = automaton_.calls[frames_[config.frame].call];
  const Unit& unit = units_[call.rule];
  if (unit.id < 0 || config.node < unit.first || config.node - unit.first >= unit.number.size()) return -1;
  return unit.number[config.node - unit.first];
}

/// Tokens that leave the repetition of `frame` and go on from `after`.
void Machine::AddExits(const UnitTokens::Exits& exits, const Frame& frame, StateId after, std::span<uint64_t> mask,
                       uint32_t most_need) {
  const Automaton::Call& call = automaton_.calls[frame.call];
  WalkTrie(exits.rest, 0, after, [&](const FlatTrie::Node& n, StateId to) {
    for (uint32_t v = n.value_begin; v < n.own_end; ++v) {
      const UnitTokens::Exit& exit = exits.exits[v];
      const uint64_t count = uint64_t{frame.count} + exit.units;
      if (count >= call.min && count <= call.max && Within(to, most_need)) SetBit(mask, exit.token);
    }
  });
}

/// Tokens that stay inside a repetition in which there is room for so many more units.
void Machine::AddInside(const UnitTokens& inside, uint64_t room, std::span<uint64_t> mask) {
  const size_t needs = inside.need_begin.size() - 1;
  if (room >= needs - 1) return AddBits(inside.all, mask);
  const size_t fit = inside.need_begin[room + 1];
  if (fit * 2 < inside.by_need.size()) {
    for (size_t i = 0; i < fit; ++i) SetBit(mask, inside.by_need[i]);
    return;
  }
  // Most fit: start from all of them; what does not is taken out again unless something else had set it.
  std::vector<uint64_t> wide = inside.all;
  for (size_t i = fit; i < inside.by_need.size(); ++i) ClearBit(wide, inside.by_need[i]);
  AddBits(wide, mask);
}

/// The tokens of one position inside a repetition of a unit. False, and nothing happens, where a walk has to find them.
bool Machine::AddUnit(const Config& config, std::span<uint64_t> mask, uint32_t most_need) {
  const uint16_t node = static_cast<uint16_t>(UnitNode(config));
  const Frame frame = frames_[config.frame];
  const Automaton::Call& call = automaton_.calls[frame.call];
  const int32_t unit = units_[call.rule].id;
  if (!node_need_.empty()) {
    // What stays inside the repetition leaves at most one unit open, and no more repetitions to do than before.
    const uint32_t need = NeedInside(config);
    if (need > most_need) return false;
    seen_need_ = std::max(seen_need_, need);
  }
  const StateId after = StateOf(std::array{Config{call.to, frame.parent}});
  const Row& row = RowOf(after);
  if (overflow_) return false;
  ByteSet first;
  for (size_t b = 0; b < row.size(); ++b) first[b] = row[b] != kDead;
  if (first.any()) {
    const UnitTokens::Exits& exits = tokens_->ExitsOf(unit, node, first);
    if (exits.too_many) return false;
    AddExits(exits, frame, after, mask, most_need);
  }
  AddInside(tokens_->TokensOf(unit, node), call.max == kUnbounded ? UINT64_MAX : call.max - frame.count, mask);
  return true;
}

void Machine::AddMask(StateId state, std::span<uint64_t> mask, uint32_t most_need, bool by_difference) {
  const State s = states_[state];
  const std::vector<Config> configs(configs_.begin() + static_cast<ptrdiff_t>(s.begin),
                                    configs_.begin() + static_cast<ptrdiff_t>(s.begin + s.size));
  const auto units = std::count_if(configs.begin(), configs.end(), [&](const Config& c) { return UnitNode(c) >= 0; });
  std::vector<Config> rest;
  for (const Config& c : configs) {
    const bool done =
        units <= static_cast<ptrdiff_t>(kMaxUnitsAtOnce) && UnitNode(c) >= 0 && AddUnit(c, mask, most_need);
    if (!done) rest.push_back(c);
  }
  if (rest.empty() || overflow_) return;
  const StateId walk = InternState(rest, false);
  const WalkedMask* walked = overflow_ ? nullptr : CachedWalk(walk, by_difference);
  if (walked == nullptr) return;
  if (most_need != kUnbounded && walked->longest > most_need) return AddWalk(walk, mask, most_need);
  seen_need_ = std::max(seen_need_, walked->longest);
  AddBits(walked->bits, mask);
}

Status Machine::FillMaskWithin(StateId state, std::span<uint64_t> mask, uint32_t most_need, bool* narrowed) {
  GPTOSS_CHECK(tokens_ != nullptr && mask.size() == tokens_->mask_words());
  const std::lock_guard<std::mutex> lock(mutex_);
  TrimRows();
  if (most_need != kUnbounded) PrepareNeeds();
  narrowed_ = false;
  std::fill(mask.begin(), mask.end(), 0);
  AddMask(state, mask, most_need, /*by_difference=*/true);
  if (narrowed != nullptr) *narrowed = narrowed_;
  if (!overflow_) return {};
  std::fill(mask.begin(), mask.end(), 0);
  return Failure();
}

}  // namespace gptoss

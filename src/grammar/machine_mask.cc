// Which tokens may follow: walks over the vocabulary's trie, and the ways around them.
#include <algorithm>
#include <array>
#include <utility>

#include "grammar/machine.h"

namespace gptoss {
namespace {

// More repetitions at once than this are rarer than the tables for them are worth.
constexpr size_t kMaxUnitsAtOnce = 8;
// A character takes at most 6 bytes ("\u001f"), after which two ways to read it are one state.
constexpr int kMaxAlikeDepth = 8;

void AddBits(const std::vector<uint64_t>& from, std::span<uint64_t> mask) {
  for (size_t w = 0; w < mask.size(); ++w) mask[w] |= from[w];
}

}  // namespace

/// Calls on_node(node, its place in the trie, state after it) for every node below `from` to which `state` leads, and
/// goes on below it where that gives true.
template <typename OnNode>
void Machine::WalkTrie(const FlatTrie& trie, TriePlace from, StateId state, const OnNode& on_node) {
  struct Level {
    uint32_t next, end;
    const Row* row;
  };
  std::array<Level, FlatTrie::kMaxDepth + 1> levels;
  size_t depth = 0;
  levels[0] = {trie.child_begin(from.node), trie.child_end(from.node), &RowOf(state)};
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
    if (!on_node(node, TriePlace{n, static_cast<uint8_t>(from.depth + depth + 1)}, to)) continue;
    if (node.own_end == node.end) continue;
    if (to != last) last_row = &RowOf(to);
    last = to;
    levels[++depth] = {node.child_begin, trie.child_end(n), last_row};
  }
}

/// Tokens below a place of the trie to which `state` belongs.
void Machine::AddWalk(StateId state, TriePlace from, std::span<uint64_t> mask, uint32_t most_need) {
  WalkTrie(tokens_->trie(), from, state, [&](const FlatTrie::Node& node, TriePlace place, StateId to) {
    if (node.value_begin != node.own_end && Within(to, most_need)) {
      for (uint32_t v = node.value_begin; v < node.own_end; ++v) SetBit(mask, tokens_->token(v));
    }
    if (node.end - node.own_end < limits_.min_for_table || !states_[to].has_unit) return true;
    std::vector<Config> rest;
    if (!AddUnits(to, place, mask, most_need, &rest)) return true;
    if (!rest.empty() && !overflow_) AddWalk(InternState(rest, false), place, mask, most_need);
    return false;
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
  if (tokens < limits_.min_for_difference || base == state || !states_[base].has_unit) return kDead;
  // Its own first bytes must lead back to it: then it agrees with what `state` leads to.
  const Row& after = RowOf(base);
  uint32_t back = 0, most = 0;
  for (uint32_t n = trie.child_begin(0); n < trie.child_end(0); ++n) {
    const uint32_t below = trie.nodes[n].end - trie.nodes[n].value_begin;
    if (after[trie.bytes[n]] == base) back += below;
    if (after[trie.bytes[n]] != kDead) most += below;
  }
  return tokens >= most / 2 && back >= most / 2 ? base : kDead;
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
    Within(mine, kUnbounded);
    for (uint32_t v = node.value_begin; v < node.own_end; ++v) SetBit(mask, tokens_->token(v));
    if (node.own_end == node.end) continue;
    if (theirs == kDead) {
      AddWalk(mine, {n, static_cast<uint8_t>(levels.size())}, mask, kUnbounded);
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
    AddWalk(state, {}, made.bits, kUnbounded);
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
  WalkTrie(exits.rest, {}, after, [&](const FlatTrie::Node& n, TriePlace, StateId to) {
    for (uint32_t v = n.value_begin; v < n.own_end; ++v) {
      const UnitTokens::Exit& exit = exits.exits[v];
      const uint64_t count = uint64_t{frame.count} + exit.units;
      if (count >= call.min && count <= call.max && Within(to, most_need)) SetBit(mask, exit.token);
    }
    return true;
  });
}

/// Tokens that stay inside a repetition in which there is room for so many more units.
void Machine::AddInside(const UnitTokens& inside, uint64_t room, std::span<uint64_t> mask) {
  const size_t needs = inside.need_begin.size() - 1;
  const size_t fit = room >= needs - 1 ? inside.by_need.size() : inside.need_begin[room + 1];
  if (!inside.all.empty() && fit == inside.by_need.size()) return AddBits(inside.all, mask);
  if (inside.all.empty() || fit * 2 < inside.by_need.size()) {
    for (size_t i = 0; i < fit; ++i) SetBit(mask, inside.by_need[i]);
    return;
  }
  // Most fit: start from all of them; what does not is taken out again unless something else had set it.
  std::vector<uint64_t> wide = inside.all;
  for (size_t i = fit; i < inside.by_need.size(); ++i) ClearBit(wide, inside.by_need[i]);
  AddBits(wide, mask);
}

/// The tokens below a place of one position inside a repetition of a unit. False, and nothing happens, where a walk has
/// to find them.
bool Machine::AddUnit(const Config& config, TriePlace at, std::span<uint64_t> mask, uint32_t most_need) {
  const Frame frame = frames_[config.frame];
  const Automaton::Call& call = automaton_.calls[frame.call];
  const UnitPlace place{units_[call.rule].id, static_cast<uint16_t>(UnitNode(config)), at.depth, at.node};
  if (!node_need_.empty()) {
    // What stays inside the repetition leaves at most one unit open, and no more repetitions to do than before.
    const uint32_t need = NeedInside(config);
    if (need > most_need) return false;
    seen_need_ = std::max(seen_need_, need);
  }
  const UnitTokens* inside = tokens_->TokensOf(place);
  if (inside == nullptr) return false;
  const StateId after = StateOf(std::array{Config{call.to, frame.parent}});
  const Row& row = RowOf(after);
  if (overflow_) return false;
  ByteSet first;
  for (size_t b = 0; b < row.size(); ++b) first[b] = row[b] != kDead;
  if (first.any()) {
    const UnitTokens::Exits* exits = tokens_->ExitsOf(place, first);
    if (exits == nullptr || exits->too_many) return false;
    AddExits(*exits, frame, after, mask, most_need);
  }
  AddInside(*inside, call.max == kUnbounded ? UINT64_MAX : call.max - frame.count, mask);
  return true;
}

/// The tokens below a place of all positions inside repetitions; the others go to `rest`. False, and nothing happens,
/// when there are too many at once.
bool Machine::AddUnits(StateId state, TriePlace at, std::span<uint64_t> mask, uint32_t most_need,
                       std::vector<Config>* rest) {
  const State s = states_[state];
  const std::vector<Config> configs(configs_.begin() + static_cast<ptrdiff_t>(s.begin),
                                    configs_.begin() + static_cast<ptrdiff_t>(s.begin + s.size));
  const auto units = std::ranges::count_if(configs, [&](const Config& c) { return UnitNode(c) >= 0; });
  if (static_cast<size_t>(units) > kMaxUnitsAtOnce) return false;
  for (const Config& c : configs) {
    if (UnitNode(c) < 0 || !AddUnit(c, at, mask, most_need)) rest->push_back(c);
  }
  return true;
}

void Machine::AddMask(StateId state, std::span<uint64_t> mask, uint32_t most_need, bool by_difference) {
  StateId walk = state;
  std::vector<Config> rest;
  if (states_[state].has_unit && AddUnits(state, {}, mask, most_need, &rest)) {
    if (rest.empty() || overflow_) return;
    walk = InternState(rest, false);
  }
  const WalkedMask* walked = overflow_ ? nullptr : CachedWalk(walk, by_difference);
  if (walked == nullptr) return;
  if (most_need != kUnbounded && walked->longest > most_need) return AddWalk(walk, {}, mask, most_need);
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
  if (narrowed != nullptr && narrowed_) {
    // A token left out of one way to read the text may have come in by another.
    std::vector<uint64_t> all(mask.size(), 0);
    AddMask(state, all, kUnbounded, /*by_difference=*/true);
    *narrowed = !std::ranges::equal(all, mask);
  }
  if (!overflow_) return {};
  std::fill(mask.begin(), mask.end(), 0);
  return Failure();
}

}  // namespace gptoss

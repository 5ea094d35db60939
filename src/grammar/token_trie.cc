#include "grammar/token_trie.h"

#include <algorithm>
#include <array>

namespace gptoss {
namespace {

// Tables are kept for good, so their number is bounded: about 1 MB each at most.
constexpr size_t kMaxUnits = 128;
// Past this a table of ways out is larger than the walk that it saves.
constexpr size_t kMaxExits = 100'000;

}  // namespace

FlatTrie FlatTrie::Build(std::span<const std::string_view> sorted) {
  FlatTrie trie;
  std::vector<uint32_t> open;  // nodes on the path of the last string
  std::string_view last;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const std::string_view s = sorted[i];
    const size_t common =
        static_cast<size_t>(std::mismatch(last.begin(), last.end(), s.begin(), s.end()).first - last.begin());
    while (open.size() > common) {
      trie.nodes[open.back()].end = static_cast<uint32_t>(trie.nodes.size());
      open.pop_back();
    }
    for (size_t d = common; d < s.size(); ++d) {
      open.push_back(static_cast<uint32_t>(trie.nodes.size()));
      trie.nodes.push_back({0, 0, 0, static_cast<uint8_t>(s[d]), static_cast<uint8_t>(d)});
    }
    Node& node = trie.nodes[open.back()];
    if (node.value_count == 0) node.value_begin = static_cast<uint32_t>(i);
    if (node.value_count < UINT16_MAX) ++node.value_count;
    last = s;
  }
  for (uint32_t n : open) trie.nodes[n].end = static_cast<uint32_t>(trie.nodes.size());
  return trie;
}

Result<std::shared_ptr<const TokenIndex>> TokenIndex::Create(std::shared_ptr<const Tokenizer> tokenizer) {
  std::shared_ptr<TokenIndex> index(new TokenIndex());
  index->tokenizer_ = std::move(tokenizer);
  const Tokenizer& t = *index->tokenizer_;
  for (TokenId id = 0; id < t.size(); ++id) {
    // A token that is longer than the trie is deep is never allowed; the longest of o200k has 128 bytes.
    const size_t length = t.TokenBytes(id).size();
    if (!t.IsSpecial(id) && length > 0 && length <= FlatTrie::kMaxDepth) index->tokens_.push_back(id);
  }
  if (index->tokens_.empty()) return InvalidArgument("the vocabulary has no ordinary tokens");
  std::sort(index->tokens_.begin(), index->tokens_.end(),
            [&](TokenId a, TokenId b) { return t.TokenBytes(a) < t.TokenBytes(b); });
  index->ordinary_.assign(index->mask_words(), 0);
  for (TokenId id : index->tokens_) {
    index->ordinary_[static_cast<size_t>(id) / 64] |= uint64_t{1} << (static_cast<size_t>(id) % 64);
  }
  std::vector<std::string_view> bytes;
  bytes.reserve(index->tokens_.size());
  for (TokenId id : index->tokens_) bytes.push_back(t.TokenBytes(id));
  index->trie_ = FlatTrie::Build(bytes);
  return std::shared_ptr<const TokenIndex>(std::move(index));
}

int32_t TokenIndex::UnitId(const UnitDfa& unit) const {
  std::string key;
  for (const auto& row : unit.next) {
    for (size_t b = 0; b < 256; ++b) {
      if (b > 0 && row[b] == row[b - 1]) continue;
      key += static_cast<char>(b);
      key += static_cast<char>(row[b] & 0xFF);
      key += static_cast<char>(row[b] >> 8);
    }
    key += "|row";
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = unit_ids_.find(key);
  if (it != unit_ids_.end()) return it->second;
  if (units_.size() >= kMaxUnits) return -1;
  const int32_t id = static_cast<int32_t>(units_.size());
  units_.push_back(std::make_unique<Unit>());
  units_.back()->dfa = unit;
  unit_ids_.emplace(std::move(key), id);
  return id;
}

const UnitTokens& TokenIndex::TokensOf(Unit& unit, uint16_t node) const {
  std::unique_ptr<UnitTokens>& slot = unit.tokens[node];
  if (slot == nullptr) slot = MakeTokens(unit.dfa, node);
  return *slot;
}

const UnitTokens& TokenIndex::TokensOf(int32_t unit, uint16_t node) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return TokensOf(*units_[static_cast<size_t>(unit)], node);
}

const UnitTokens::Exits& TokenIndex::ExitsOf(int32_t unit, uint16_t node, const ByteSet& first) const {
  std::string key;
  for (size_t b = 0; b < 256; ++b) {
    if (first[b]) key += static_cast<char>(b);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  Unit& u = *units_[static_cast<size_t>(unit)];
  std::unique_ptr<UnitTokens::Exits>& slot = u.exits[{node, std::move(key)}];
  if (slot == nullptr) slot = MakeExits(u, node, first);
  return *slot;
}

namespace {

struct UnitState {
  uint16_t node;
  uint16_t units;  // completed
};

/// Walks what a repetition of `dfa` reaches in `trie` from `node`: calls visit(trie node, state after it), and before
/// that at_border(trie node, state before it) where the byte comes between two units.
template <typename AtBorder, typename Visit>
void WalkUnit(const FlatTrie& trie, const UnitDfa& dfa, uint16_t node, const AtBorder& at_border, const Visit& visit) {
  std::array<UnitState, FlatTrie::kMaxDepth + 1> states;
  states[0] = {node, 0};
  const uint32_t size = static_cast<uint32_t>(trie.nodes.size());
  for (uint32_t i = 0; i < size;) {
    const FlatTrie::Node& n = trie.nodes[i];
    const UnitState from = states[n.depth];
    const uint16_t next = dfa.next[from.node][n.byte];
    // At depth 0 nothing was read of the repetition yet: that way out is the caller's to see.
    if (from.node == 0 && n.depth > 0) at_border(i, from, next);
    if (next == UnitDfa::kNone) {
      i = n.end;
      continue;
    }
    const UnitState to =
        next == UnitDfa::kDone ? UnitState{0, static_cast<uint16_t>(from.units + 1)} : UnitState{next, from.units};
    states[n.depth + 1] = to;
    visit(n, to);
    ++i;
  }
}

}  // namespace

std::unique_ptr<UnitTokens> TokenIndex::MakeTokens(const UnitDfa& dfa, uint16_t node) const {
  auto out = std::make_unique<UnitTokens>();
  out->all.assign(mask_words(), 0);
  struct Run {
    uint32_t value_begin;
    uint16_t value_count, need;
  };
  std::vector<Run> runs;
  std::array<uint32_t, FlatTrie::kMaxDepth + 3> count{};
  uint16_t most = 0;
  WalkUnit(
      trie_, dfa, node,
      [&](uint32_t i, UnitState from, uint16_t next) {
        if (next == UnitDfa::kNone) out->leaving.push_back({i, from.units});
      },
      [&](const FlatTrie::Node& n, UnitState to) {
        if (n.value_count == 0) return;
        const uint16_t needed = static_cast<uint16_t>(to.units + (to.node != 0 ? 1 : 0));
        runs.push_back({n.value_begin, n.value_count, needed});
        count[needed + size_t{1}] += n.value_count;
        most = std::max(most, needed);
      });
  for (size_t n = 1; n < count.size(); ++n) count[n] += count[n - 1];
  out->need_begin.assign(count.begin(), count.begin() + most + 2);
  out->by_need.resize(count.back());
  for (const Run& run : runs) {
    for (uint32_t v = run.value_begin; v < run.value_begin + run.value_count; ++v) {
      const TokenId token = tokens_[v];
      out->all[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
      out->by_need[count[run.need]++] = token;
    }
  }
  return out;
}

std::unique_ptr<UnitTokens::Exits> TokenIndex::MakeExits(Unit& unit, uint16_t node, const ByteSet& first) const {
  auto out = std::make_unique<UnitTokens::Exits>();
  struct Record {
    std::string_view rest;
    UnitTokens::Exit exit;
  };
  std::vector<Record> records;
  const auto add = [&](uint32_t i, uint16_t units) {
    const FlatTrie::Node& border = trie_.nodes[i];
    if (!first[border.byte] || out->too_many) return;
    for (uint32_t k = i; k < border.end; ++k) {
      const FlatTrie::Node& below = trie_.nodes[k];
      for (uint32_t v = below.value_begin; v < below.value_begin + below.value_count; ++v) {
        records.push_back({tokenizer_->TokenBytes(tokens_[v]).substr(border.depth), {tokens_[v], units}});
      }
    }
    out->too_many = records.size() > kMaxExits;
  };
  bool inside = false;  // some byte of `first` may begin a unit too
  for (size_t b = 0; b < 256; ++b) inside |= first[b] && unit.dfa.next[0][b] != UnitDfa::kNone;
  if (!inside) {
    for (const UnitTokens::Leaving& leaving : TokensOf(unit, node).leaving) add(leaving.trie_node, leaving.units);
  } else {
    WalkUnit(
        trie_, unit.dfa, node, [&](uint32_t i, UnitState from, uint16_t) { add(i, from.units); },
        [](const FlatTrie::Node&, UnitState) {});
  }
  if (out->too_many) return out;
  std::stable_sort(records.begin(), records.end(), [](const Record& a, const Record& b) { return a.rest < b.rest; });
  std::vector<std::string_view> rests;
  rests.reserve(records.size());
  out->exits.reserve(records.size());
  size_t run = 0;
  for (const Record& r : records) {
    // A trie node counts at most 65535 values; more equal ends than that cannot be told, and a plain walk is right too.
    run = !rests.empty() && r.rest == rests.back() ? run + 1 : 0;
    out->too_many |= run >= UINT16_MAX;
    rests.push_back(r.rest);
    out->exits.push_back(r.exit);
  }
  if (!out->too_many) out->rest = FlatTrie::Build(rests);
  return out;
}

}  // namespace gptoss

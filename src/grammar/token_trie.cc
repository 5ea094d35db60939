#include "grammar/token_trie.h"

#include <algorithm>
#include <array>

namespace gptoss {
namespace {

// Tables are kept for good, so they are bounded. One of a wide class takes about 1 MB.
constexpr size_t kMaxUnits = 4096;
constexpr size_t kMaxTableBytes = 256u << 20;
// Past this a table of ways out is larger than the walk that it saves.
constexpr size_t kMaxExits = 100'000;

}  // namespace

FlatTrie FlatTrie::Build(std::span<const std::string_view> sorted) {
  const auto count = static_cast<uint32_t>(sorted.size());
  FlatTrie trie;
  trie.nodes.push_back({0, 0, 0, count});
  trie.bytes.push_back(0);
  size_t depth = 0, level_end = 1;
  for (size_t i = 0; i < trie.nodes.size(); ++i) {
    if (i == level_end) {
      ++depth;
      level_end = trie.nodes.size();
    }
    Node& node = trie.nodes[i];
    const uint32_t end = node.end;
    uint32_t v = node.value_begin;
    while (v < end && sorted[v].size() == depth) ++v;
    node.own_end = v;
    node.child_begin = static_cast<uint32_t>(trie.nodes.size());
    while (v < end) {
      const uint32_t first = v;
      const char byte = sorted[v][depth];
      while (v < end && sorted[v][depth] == byte) ++v;
      trie.nodes.push_back({0, first, first, v});
      trie.bytes.push_back(static_cast<uint8_t>(byte));
    }
  }
  trie.nodes.push_back({static_cast<uint32_t>(trie.nodes.size()), count, count, count});
  return trie;
}

void TokenIndex::SortTokens() {
  // The first bytes as a number decide nearly every comparison.
  struct Key {
    uint64_t head;
    std::string_view bytes;
    TokenId id;
  };
  std::vector<Key> keys;
  for (TokenId id = 0; id < tokenizer_->size(); ++id) {
    const std::string_view bytes = tokenizer_->TokenBytes(id);
    // A token that is longer than the trie is deep is never allowed; the longest of o200k has 128 bytes.
    if (tokenizer_->IsSpecial(id) || bytes.empty() || bytes.size() > FlatTrie::kMaxDepth) continue;
    uint64_t head = 0;
    for (size_t i = 0; i < sizeof head; ++i) head = head << 8 | (i < bytes.size() ? static_cast<uint8_t>(bytes[i]) : 0);
    keys.push_back({head, bytes, id});
  }
  std::sort(keys.begin(), keys.end(),
            [](const Key& a, const Key& b) { return a.head != b.head ? a.head < b.head : a.bytes < b.bytes; });
  std::vector<std::string_view> bytes;
  tokens_.reserve(keys.size());
  bytes.reserve(keys.size());
  for (const Key& key : keys) {
    tokens_.push_back(key.id);
    bytes.push_back(key.bytes);
  }
  trie_ = FlatTrie::Build(bytes);
}

Result<std::shared_ptr<const TokenIndex>> TokenIndex::Create(std::shared_ptr<const Tokenizer> tokenizer) {
  std::shared_ptr<TokenIndex> index(new TokenIndex());
  index->tokenizer_ = std::move(tokenizer);
  index->SortTokens();
  if (index->tokens_.empty()) return InvalidArgument("the vocabulary has no ordinary tokens");
  index->ordinary_.assign(index->mask_words(), 0);
  for (const TokenId id : index->tokens_) SetBit(index->ordinary_, id);
  std::shared_ptr<const TokenIndex> out = std::move(index);
  PrepareCommonTables(out);
  return out;
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
  units_.push_back(std::make_unique<const UnitDfa>(unit));
  unit_ids_.emplace(std::move(key), id);
  return id;
}

const UnitTokens* TokenIndex::TokensOf(const UnitPlace& place) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return LockedTokensOf(place);
}

const UnitTokens* TokenIndex::LockedTokensOf(const UnitPlace& place) const {
  const auto known = unit_tokens_.find(place);
  if (known != unit_tokens_.end()) return known->second.get();
  if (table_bytes_ > kMaxTableBytes) return nullptr;
  auto made = MakeTokens(place);
  constexpr size_t kOverhead = 256;
  table_bytes_ += kOverhead + made->by_need.size() * sizeof(TokenId) + made->all.size() * sizeof(uint64_t) +
                  made->leaving.size() * sizeof(UnitTokens::Leaving);
  return unit_tokens_.emplace(place, std::move(made)).first->second.get();
}

const UnitTokens::Exits* TokenIndex::ExitsOf(const UnitPlace& place, const ByteSet& first) const {
  FirstBytes bits{};
  for (size_t b = 0; b < 256; ++b) bits[b / 64] |= uint64_t{first[b]} << (b % 64);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto known = unit_exits_.find({place, bits});
  if (known != unit_exits_.end()) return known->second.get();
  if (table_bytes_ > kMaxTableBytes) return nullptr;
  auto made = MakeExits(place, first);
  table_bytes_ += made->rest.nodes.size() * sizeof(FlatTrie::Node) + made->exits.size() * sizeof(UnitTokens::Exit);
  return unit_exits_.emplace(std::pair(place, bits), std::move(made)).first->second.get();
}

namespace {

struct UnitState {
  uint16_t node;
  uint16_t units;  // completed
};

/// Walks what a repetition of `dfa` reaches below a place: calls visit(trie node, state after it), and before that
/// at_border({trie node, units, depth}, unit's next node) where the byte comes between two units.
template <typename AtBorder, typename Visit>
void WalkUnit(const FlatTrie& trie, const UnitDfa& dfa, const UnitPlace& place, const AtBorder& at_border,
              const Visit& visit) {
  struct Open {
    uint32_t trie_node;
    UnitState state;
    uint8_t depth;
  };
  std::vector<Open> open = {{place.trie_node, {place.node, 0}, place.depth}};
  for (size_t i = 0; i < open.size(); ++i) {
    const auto [parent, from, depth] = open[i];
    const std::array<uint16_t, 256>& row = dfa.next[from.node];
    // At first nothing was read of the repetition: that way out is the caller's to see.
    const bool border = from.node == 0 && i > 0;
    for (uint32_t n = trie.child_begin(parent), end = trie.child_end(parent); n < end; ++n) {
      const uint16_t next = row[trie.bytes[n]];
      if (border) at_border(UnitTokens::Leaving{n, from.units, depth}, next);
      if (next == UnitDfa::kNone) continue;
      const UnitState to =
          next == UnitDfa::kDone ? UnitState{0, static_cast<uint16_t>(from.units + 1)} : UnitState{next, from.units};
      visit(trie.nodes[n], to);
      if (trie.child_begin(n) < trie.child_end(n)) open.push_back({n, to, static_cast<uint8_t>(depth + 1)});
    }
  }
}

}  // namespace

std::unique_ptr<UnitTokens> TokenIndex::MakeTokens(const UnitPlace& place) const {
  auto out = std::make_unique<UnitTokens>();
  struct Run {
    uint32_t begin, end;  // values
    uint16_t need;
  };
  std::vector<Run> runs;
  std::array<uint32_t, FlatTrie::kMaxDepth + 3> count{};
  uint16_t most = 0;
  WalkUnit(
      trie_, *units_[static_cast<size_t>(place.unit)], place,
      [&](const UnitTokens::Leaving& leaving, uint16_t next) {
        if (next == UnitDfa::kNone) out->leaving.push_back(leaving);
      },
      [&](const FlatTrie::Node& n, UnitState to) {
        if (n.value_begin == n.own_end) return;
        const uint16_t needed = static_cast<uint16_t>(to.units + (to.node != 0 ? 1 : 0));
        runs.push_back({n.value_begin, n.own_end, needed});
        count[needed + size_t{1}] += n.own_end - n.value_begin;
        most = std::max(most, needed);
      });
  for (size_t n = 1; n < count.size(); ++n) count[n] += count[n - 1];
  out->need_begin.assign(count.begin(), count.begin() + most + 2);
  out->by_need.resize(count.back());
  for (const Run& run : runs) {
    for (uint32_t v = run.begin; v < run.end; ++v) out->by_need[count[run.need]++] = tokens_[v];
  }
  if (out->by_need.size() < mask_words()) return out;
  out->all.assign(mask_words(), 0);
  for (const TokenId token : out->by_need) SetBit(out->all, token);
  return out;
}

std::unique_ptr<UnitTokens::Exits> TokenIndex::MakeExits(const UnitPlace& place, const ByteSet& first) const {
  const UnitDfa& dfa = *units_[static_cast<size_t>(place.unit)];
  auto out = std::make_unique<UnitTokens::Exits>();
  struct Record {
    std::string_view rest;
    UnitTokens::Exit exit;
  };
  std::vector<Record> records;
  const auto add = [&](const UnitTokens::Leaving& leaving) {
    if (!first[trie_.bytes[leaving.trie_node]] || out->too_many) return;
    const FlatTrie::Node& border = trie_.nodes[leaving.trie_node];
    for (uint32_t v = border.value_begin; v < border.end; ++v) {
      records.push_back({tokenizer_->TokenBytes(tokens_[v]).substr(leaving.depth), {tokens_[v], leaving.units}});
    }
    out->too_many = records.size() > kMaxExits;
  };
  bool inside = false;  // some byte of `first` may begin a unit too
  for (size_t b = 0; b < 256; ++b) inside |= first[b] && dfa.next[0][b] != UnitDfa::kNone;
  const UnitTokens* tokens = inside ? nullptr : LockedTokensOf(place);
  if (tokens != nullptr) {
    for (const UnitTokens::Leaving& leaving : tokens->leaving) add(leaving);
  } else {
    WalkUnit(
        trie_, dfa, place, [&](const UnitTokens::Leaving& leaving, uint16_t) { add(leaving); },
        [](const FlatTrie::Node&, UnitState) {});
  }
  if (out->too_many) return out;
  std::stable_sort(records.begin(), records.end(), [](const Record& a, const Record& b) { return a.rest < b.rest; });
  std::vector<std::string_view> rests;
  rests.reserve(records.size());
  out->exits.reserve(records.size());
  for (const Record& r : records) {
    rests.push_back(r.rest);
    out->exits.push_back(r.exit);
  }
  out->rest = FlatTrie::Build(rests);
  return out;
}

}  // namespace gptoss

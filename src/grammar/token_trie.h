// A trie over byte strings, and the one over a vocabulary's tokens with tables that all grammars share.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

namespace gptoss {

/// Breadth first: the children of a node are neighbours, in order of their bytes, so that those that do not fit are
/// passed over without touching what is below them. Values are indices into what the trie was built from; those of a
/// node and of all below it are a range, its own first. Node 0 is the root, the empty string.
struct FlatTrie {
  static constexpr size_t kMaxDepth = 255;
  struct Node {
    uint32_t child_begin;  // the children end where the next node's begin
    uint32_t value_begin, own_end, end;
  };
  std::vector<Node> nodes;     // and one more, whose child_begin ends the last node's children
  std::vector<uint8_t> bytes;  // by node: the byte that leads to it

  uint32_t child_begin(uint32_t node) const { return nodes[node].child_begin; }
  uint32_t child_end(uint32_t node) const { return nodes[node + 1].child_begin; }

  /// From sorted strings of 1 to kMaxDepth bytes; value i belongs to string i.
  static FlatTrie Build(std::span<const std::string_view> sorted);
};

using ByteSet = std::bitset<256>;

// Sets of tokens as bits.
inline void SetBit(std::span<uint64_t> mask, TokenId token) {
  mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
}
inline void ClearBit(std::span<uint64_t> mask, TokenId token) {
  mask[static_cast<size_t>(token) / 64] &= ~(uint64_t{1} << (static_cast<size_t>(token) % 64));
}

/// A deterministic automaton of a unit (see Automaton::Rule::unit), numbered canonically: node 0 is the start.
struct UnitDfa {
  static constexpr uint16_t kNone = 0xFFFF;
  static constexpr uint16_t kDone = 0xFFFE;
  std::vector<std::array<uint16_t, 256>> next;
};

/// Where tokens meet an endless repetition of a unit: they stand at a node of the trie, so many bytes deep, when the
/// repetition is at a node of the unit.
struct UnitPlace {
  int32_t unit = 0;
  uint16_t node = 0;
  uint8_t depth = 0;
  uint32_t trie_node = 0;
  auto operator<=>(const UnitPlace&) const = default;
};

/// What the tokens below a place do inside the repetition. Independent of the grammar.
struct UnitTokens {
  /// Tokens that stay inside to their end, sorted by how many units they begin or end (the open one counts).
  std::vector<TokenId> by_need;
  std::vector<uint32_t> need_begin;  // index into by_need of the first token that needs n; one past the last need too
  std::vector<uint64_t> all;         // the same tokens as bits, where they are many; else empty
  /// Places of the trie that leave between two units, over a byte that no unit begins with.
  struct Leaving {
    uint32_t trie_node;
    uint16_t units;  // before it
    uint8_t depth;   // bytes before it
  };
  std::vector<Leaving> leaving;

  /// Ways to leave: the repetition ends after `units` units inside the token, at a byte of the set asked for.
  struct Exit {
    TokenId token;
    uint16_t units;
  };
  struct Exits {
    FlatTrie rest;            // what follows the repetition
    std::vector<Exit> exits;  // values of `rest`
    bool too_many = false;    // not collected: a plain walk is as good
  };
};

/// The ordinary tokens of one vocabulary, and tables that all grammars over it share. Thread-safe.
class TokenIndex {
 public:
  static Result<std::shared_ptr<const TokenIndex>> Create(std::shared_ptr<const Tokenizer> tokenizer);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const FlatTrie& trie() const { return trie_; }
  TokenId token(uint32_t value) const { return tokens_[value]; }
  /// All of them as bits.
  const std::vector<uint64_t>& ordinary() const { return ordinary_; }
  /// Words of a bit set over the vocabulary.
  size_t mask_words() const { return (static_cast<size_t>(tokenizer_->size()) + 63) / 64; }

  /// A number for the unit, the same for equal ones; -1 when too many different ones were asked for.
  int32_t UnitId(const UnitDfa& unit) const;
  /// Both are made on first use and live as long as the index. Null when there are too many of them by now.
  const UnitTokens* TokensOf(const UnitPlace& place) const;
  const UnitTokens::Exits* ExitsOf(const UnitPlace& place, const ByteSet& first) const;

 private:
  using FirstBytes = std::array<uint64_t, 4>;
  TokenIndex() = default;
  void SortTokens();
  /// Makes tables that nearly every grammar needs.
  static void PrepareCommonTables(const std::shared_ptr<const TokenIndex>& tokens);
  const UnitTokens* LockedTokensOf(const UnitPlace& place) const;
  std::unique_ptr<UnitTokens> MakeTokens(const UnitPlace& place) const;
  std::unique_ptr<UnitTokens::Exits> MakeExits(const UnitPlace& place, const ByteSet& first) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<TokenId> tokens_;  // sorted by bytes
  FlatTrie trie_;
  std::vector<uint64_t> ordinary_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, int32_t> unit_ids_;
  mutable std::vector<std::unique_ptr<const UnitDfa>> units_;
  mutable std::map<UnitPlace, std::unique_ptr<UnitTokens>> unit_tokens_;
  mutable std::map<std::pair<UnitPlace, FirstBytes>, std::unique_ptr<UnitTokens::Exits>> unit_exits_;
  mutable size_t table_bytes_ = 0;
};

}  // namespace gptoss

// A trie over byte strings, flat and in depth-first order, and the one over a vocabulary's tokens.
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

/// Depth-first; a node's subtree is [index, end). Values are ranges of indices into what it was built from.
struct FlatTrie {
  static constexpr size_t kMaxDepth = 255;
  struct Node {
    uint32_t end;
    uint32_t value_begin;
    uint16_t value_count;
    uint8_t byte;
    uint8_t depth;  // of the root's children: 0
  };
  std::vector<Node> nodes;

  /// From sorted strings of 1 to kMaxDepth bytes; value i belongs to string i. At most 65535 equal strings.
  static FlatTrie Build(std::span<const std::string_view> sorted);
};

using ByteSet = std::bitset<256>;

/// A deterministic automaton of a unit (see Automaton::Rule::unit), numbered canonically: node 0 is the start.
struct UnitDfa {
  static constexpr uint16_t kNone = 0xFFFF;
  static constexpr uint16_t kDone = 0xFFFE;
  std::vector<std::array<uint16_t, 256>> next;
};

/// What every token does inside an endless repetition of a unit, begun at one node of it. Independent of the grammar.
struct UnitTokens {
  /// Tokens that stay inside to their end, sorted by how many units they begin or end (the open one counts).
  std::vector<TokenId> by_need;
  std::vector<uint32_t> need_begin;  // index into by_need of the first token that needs n; one past the last need too
  std::vector<uint64_t> all;         // the same tokens as bits
  /// Places of the trie that leave between two units, over a byte that no unit begins with; and the units before.
  struct Leaving {
    uint32_t trie_node;
    uint16_t units;
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
  /// Calls visit(token) for every ordinary token that `text` begins with.
  template <typename Visit>
  void ForEachPrefix(std::string_view text, const Visit& visit) const {
    uint32_t i = 0, end = static_cast<uint32_t>(trie_.nodes.size());
    for (char c : text) {
      while (i < end && trie_.nodes[i].byte != static_cast<uint8_t>(c)) i = trie_.nodes[i].end;
      if (i >= end) return;
      const FlatTrie::Node& node = trie_.nodes[i];
      for (uint32_t v = node.value_begin; v < node.value_begin + node.value_count; ++v) visit(tokens_[v]);
      end = node.end;
      ++i;
    }
  }
  /// Words of a bit set over the vocabulary.
  size_t mask_words() const { return (static_cast<size_t>(tokenizer_->size()) + 63) / 64; }

  /// A number for the unit, the same for equal ones; -1 when too many different ones were asked for.
  int32_t UnitId(const UnitDfa& unit) const;
  /// Both are made on first use and live as long as the index.
  const UnitTokens& TokensOf(int32_t unit, uint16_t node) const;
  const UnitTokens::Exits& ExitsOf(int32_t unit, uint16_t node, const ByteSet& first) const;

 private:
  struct Unit {
    UnitDfa dfa;
    std::map<uint16_t, std::unique_ptr<UnitTokens>> tokens;
    std::map<std::pair<uint16_t, std::string>, std::unique_ptr<UnitTokens::Exits>> exits;
  };
  TokenIndex() = default;
  const UnitTokens& TokensOf(Unit& unit, uint16_t node) const;
  std::unique_ptr<UnitTokens> MakeTokens(const UnitDfa& dfa, uint16_t node) const;
  std::unique_ptr<UnitTokens::Exits> MakeExits(Unit& unit, uint16_t node, const ByteSet& first) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<TokenId> tokens_;  // sorted by bytes
  FlatTrie trie_;
  std::vector<uint64_t> ordinary_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, int32_t> unit_ids_;
  mutable std::vector<std::unique_ptr<Unit>> units_;
};

}  // namespace gptoss

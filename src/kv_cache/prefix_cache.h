// Remembers the cache blocks of earlier prompts and outputs, so that a prompt that begins as one of them did need not
// be computed from its start. Bookkeeping only: ids of blocks, no memory, no model.
//
// Full layers keep every position: their blocks form a tree by the tokens that they hold (compared as such, hashes only
// find them), after RadixAttention (Zheng et al. 2023). Sliding layers keep a window: where a sequence can go on is
// therefore a checkpoint, which holds the window's blocks before one position. Only checkpoints are looked for and
// thrown away, the least recently used first; a block of the tree lives as long as there is a checkpoint at or
// below it. A position within a block is as good as any: the block is shared, and whoever goes on writes into a copy.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv_cache/block_pool.h"

namespace gptoss {

struct PrefixCacheLimits {
  int block_size = 32;
  int window = 128;            // of the sliding layers: a token sees window - 1 positions before its own
  int max_full_blocks = 0;     // held by the cache, whoever else holds them
  int max_sliding_blocks = 0;  // likewise
};

class PrefixCache {
 public:
  /// What a sequence needs in order to go on after `length` tokens. Entries of block tables: those of the full layers
  /// from 0, those of the sliding layers from first_sliding, both up to the block of position length - 1.
  struct State {
    int length = 0;
    std::vector<int32_t> full, sliding;
    int first_sliding = 0;
  };

  /// The pools must outlive the cache.
  PrefixCache(BlockPool* full, BlockPool* sliding, const PrefixCacheLimits& limits);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// The longest checkpoint of at most `limit` tokens with which `tokens` begin; it counts as used. The caller becomes
  /// a holder of the blocks (BlockTable::Share) before it calls anything else here.
  std::optional<State> Find(std::span<const int32_t> tokens, int limit);
  /// The full blocks that hold the first of `tokens`, as far as they are in the tree: after so many whole blocks a
  /// later prompt like this one will branch off again.
  std::vector<int32_t> CommonBlocks(std::span<const int32_t> tokens) const;

  /// The limits allow a checkpoint after `length` tokens.
  bool Fits(int length) const;
  /// Keeps a checkpoint after all of `tokens`. The tables are the sequence's: they must cover all positions (full), and
  /// the last window - 1 (sliding). Throws others away if need be. False when it exceeds the limits alone, or when it
  /// was there already (it counts as used then).
  bool Insert(std::span<const int32_t> tokens, std::span<const int32_t> full_table,
              std::span<const int32_t> sliding_table);
  /// Throws the least recently used checkpoint away. False when there is none.
  bool EvictOne();

  int checkpoints() const { return static_cast<int>(checkpoints_.size()); }
  int full_blocks() const { return static_cast<int>(full_.holds.size()); }
  int sliding_blocks() const { return static_cast<int>(sliding_.holds.size()); }
  /// Full blocks that nobody else holds: they become free when checkpoints are thrown away.
  int idle_full_blocks() const;

 private:
  /// The blocks of one group that the cache holds, with how many times it does.
  struct Blocks {
    BlockPool& pool;
    std::unordered_map<int32_t, int> holds;
    void Hold(int32_t block);
    void Drop(int32_t block);
  };
  struct Node;
  struct Checkpoint {
    Node* node;                 // the last whole block
    std::vector<int32_t> tail;  // tokens after it, fewer than a block
    int32_t tail_block = -1;    // that holds them, in the full layers
    std::vector<int32_t> sliding;
    int first_sliding;
  };
  using Checkpoints = std::list<Checkpoint>;  // the most recently used first

  Node* FindChild(const Node& node, std::span<const int32_t> tokens) const;
  Node* AddChild(Node* node, std::span<const int32_t> tokens, int32_t block);
  /// Removes `node` and those above it that neither a checkpoint nor a child needs.
  void Prune(Node* node);
  /// The checkpoint at `node` after exactly `tail`; end() when there is none.
  Checkpoints::iterator FindAt(const Node& node, std::span<const int32_t> tail);
  void Remove(Checkpoints::iterator checkpoint);
  int FirstSliding(int length) const;

  Blocks full_, sliding_;
  const PrefixCacheLimits limits_;
  std::unique_ptr<Node> root_;
  Checkpoints checkpoints_;
};

}  // namespace gptoss

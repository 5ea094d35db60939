#include "kv_cache/prefix_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/rng.h"

namespace gptoss {
namespace {

uint64_t HashTokens(std::span<const int32_t> tokens) {
  uint64_t hash = tokens.size();
  for (const int32_t token : tokens) hash = Mix64((hash ^ static_cast<uint32_t>(token)) + kGoldenGamma);
  return hash;
}

}  // namespace

struct PrefixCache::Node {
  Node* parent = nullptr;
  int depth = 0;  // blocks up to and with this one; 0: the root, which has none
  std::vector<int32_t> tokens;
  int32_t block = -1;
  std::unordered_multimap<uint64_t, std::unique_ptr<Node>> children;
  std::vector<Checkpoints::iterator> checkpoints;
};

void PrefixCache::Blocks::Hold(int32_t block) {
  pool.Share(block);
  ++holds[block];
}

void PrefixCache::Blocks::Drop(int32_t block) {
  pool.Free(block);
  const auto held = holds.find(block);
  if (--held->second == 0) holds.erase(held);
}

PrefixCache::PrefixCache(BlockPool* full, BlockPool* sliding, const PrefixCacheLimits& limits)
    : full_{*full, {}}, sliding_{*sliding, {}}, limits_(limits), root_(std::make_unique<Node>()) {}

PrefixCache::~PrefixCache() {
  while (EvictOne()) {
  }
}

int PrefixCache::FirstSliding(int length) const {
  return std::max(0, length - limits_.window + 1) / limits_.block_size;
}

PrefixCache::Node* PrefixCache::FindChild(const Node& node, std::span<const int32_t> tokens) const {
  const auto [begin, end] = node.children.equal_range(HashTokens(tokens));
  const auto found =
      std::find_if(begin, end, [&](const auto& child) { return std::ranges::equal(child.second->tokens, tokens); });
  return found == end ? nullptr : found->second.get();
}

PrefixCache::Node* PrefixCache::AddChild(Node* node, std::span<const int32_t> tokens, int32_t block) {
  auto child = std::make_unique<Node>();
  child->parent = node;
  child->depth = node->depth + 1;
  child->tokens.assign(tokens.begin(), tokens.end());
  child->block = block;
  full_.Hold(block);
  return node->children.emplace(HashTokens(tokens), std::move(child))->second.get();
}

void PrefixCache::Prune(Node* node) {
  while (node->parent != nullptr && node->children.empty() && node->checkpoints.empty()) {
    Node* const parent = node->parent;
    full_.Drop(node->block);
    const auto [begin, end] = parent->children.equal_range(HashTokens(node->tokens));
    parent->children.erase(std::find_if(begin, end, [&](const auto& child) { return child.second.get() == node; }));
    node = parent;
  }
}

PrefixCache::Checkpoints::iterator PrefixCache::FindAt(const Node& node, std::span<const int32_t> tail) {
  for (const Checkpoints::iterator& checkpoint : node.checkpoints) {
    if (std::ranges::equal(checkpoint->tail, tail)) return checkpoint;
  }
  return checkpoints_.end();
}

std::optional<PrefixCache::State> PrefixCache::Find(std::span<const int32_t> tokens, int limit) {
  tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(std::max(0, limit))));
  const auto size = static_cast<size_t>(limits_.block_size);
  Checkpoints::iterator best = checkpoints_.end();
  for (Node* node = root_.get(); node != nullptr;) {
    const auto rest = tokens.subspan(static_cast<size_t>(node->depth) * size);
    size_t longest = 0;
    for (const Checkpoints::iterator& checkpoint : node->checkpoints) {
      const std::vector<int32_t>& tail = checkpoint->tail;
      if (tail.size() < longest || tail.size() > rest.size()) continue;
      if (!std::equal(tail.begin(), tail.end(), rest.begin())) continue;
      best = checkpoint;
      longest = tail.size();
    }
    node = rest.size() < size ? nullptr : FindChild(*node, rest.first(size));
  }
  if (best == checkpoints_.end()) return std::nullopt;
  checkpoints_.splice(checkpoints_.begin(), checkpoints_, best);
  State state{.length = best->node->depth * limits_.block_size + static_cast<int>(best->tail.size()),
              .full = std::vector<int32_t>(static_cast<size_t>(best->node->depth)),
              .sliding = best->sliding,
              .first_sliding = best->first_sliding};
  for (const Node* node = best->node; node->parent != nullptr; node = node->parent) {
    state.full[static_cast<size_t>(node->depth) - 1] = node->block;
  }
  if (best->tail_block >= 0) state.full.push_back(best->tail_block);
  return state;
}

std::vector<int32_t> PrefixCache::CommonBlocks(std::span<const int32_t> tokens) const {
  const auto size = static_cast<size_t>(limits_.block_size);
  std::vector<int32_t> blocks;
  for (const Node* node = root_.get(); tokens.size() >= size; tokens = tokens.subspan(size)) {
    node = FindChild(*node, tokens.first(size));
    if (node == nullptr) break;
    blocks.push_back(node->block);
  }
  return blocks;
}

bool PrefixCache::Fits(int length) const {
  const int entries = (length + limits_.block_size - 1) / limits_.block_size;
  return entries <= limits_.max_full_blocks && entries - FirstSliding(length) <= limits_.max_sliding_blocks;
}

bool PrefixCache::Insert(std::span<const int32_t> tokens, std::span<const int32_t> full_table,
                         std::span<const int32_t> sliding_table) {
  if (tokens.empty()) return false;
  const auto size = static_cast<size_t>(limits_.block_size);
  const size_t whole = tokens.size() / size, entries = (tokens.size() + size - 1) / size;
  const int first_sliding = FirstSliding(static_cast<int>(tokens.size()));
  GPTOSS_CHECK(full_table.size() >= entries && sliding_table.size() >= entries);
  if (!Fits(static_cast<int>(tokens.size()))) return false;
  const auto tail = tokens.subspan(whole * size);
  Node* node = root_.get();
  for (size_t i = 0; i < whole; ++i) {
    const auto block_tokens = tokens.subspan(i * size, size);
    Node* const child = FindChild(*node, block_tokens);
    node = child != nullptr ? child : AddChild(node, block_tokens, full_table[i]);
  }
  if (const auto there = FindAt(*node, tail); there != checkpoints_.end()) {
    checkpoints_.splice(checkpoints_.begin(), checkpoints_, there);
    return false;
  }
  Checkpoint checkpoint{
      .node = node, .tail = {tail.begin(), tail.end()}, .sliding = {}, .first_sliding = first_sliding};
  if (!tail.empty()) {
    checkpoint.tail_block = full_table[whole];
    full_.Hold(checkpoint.tail_block);
  }
  for (size_t i = static_cast<size_t>(first_sliding); i < entries; ++i) {
    GPTOSS_CHECK(sliding_table[i] != BlockTable::kReleased);
    sliding_.Hold(sliding_table[i]);
    checkpoint.sliding.push_back(sliding_table[i]);
  }
  checkpoints_.push_front(std::move(checkpoint));
  node->checkpoints.push_back(checkpoints_.begin());
  while (full_blocks() > limits_.max_full_blocks || sliding_blocks() > limits_.max_sliding_blocks) EvictOne();
  return true;
}

bool PrefixCache::EvictOne() {
  if (checkpoints_.empty()) return false;
  Remove(std::prev(checkpoints_.end()));
  return true;
}

void PrefixCache::Remove(Checkpoints::iterator checkpoint) {
  Node* const node = checkpoint->node;
  if (checkpoint->tail_block >= 0) full_.Drop(checkpoint->tail_block);
  for (const int32_t block : checkpoint->sliding) sliding_.Drop(block);
  std::erase(node->checkpoints, checkpoint);
  checkpoints_.erase(checkpoint);
  Prune(node);
}

int PrefixCache::idle_full_blocks() const {
  return static_cast<int>(std::ranges::count_if(
      full_.holds, [&](const auto& hold) { return full_.pool.holders(hold.first) == hold.second; }));
}

}  // namespace gptoss

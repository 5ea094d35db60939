#include "tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <limits>
#include <queue>

namespace gptoss {
namespace {

constexpr TokenId kNoRank = std::numeric_limits<TokenId>::max();

/// Up to this many bytes a plain scan for the lowest rank is faster than a heap.
constexpr size_t kScanBytes = 64;

struct PairRanks {
  const TokenMap& map;
  std::string_view piece;
  TokenId excluded;

  /// Rank of piece[begin, end), or kNoRank.
  TokenId Of(size_t begin, size_t end) const {
    const TokenId id =
        end - begin == 2 ? map.FindPair(Byte(begin), Byte(begin + 1)) : map.Find(piece.substr(begin, end - begin));
    return id < 0 || id == excluded ? kNoRank : id;
  }
  TokenId TokenOf(size_t begin, size_t end) const {
    return end - begin == 1 ? map.FindByte(Byte(begin)) : map.Find(piece.substr(begin, end - begin));
  }
  uint8_t Byte(size_t i) const { return static_cast<uint8_t>(piece[i]); }
};

/// Parts as starts in an array that shrinks by one with each merge.
void MergeByScan(const PairRanks& ranks, std::vector<TokenId>* ids) {
  struct Part {
    size_t begin;
    TokenId rank;  // of this part joined with the next
  };
  std::array<Part, kScanBytes + 1> parts;
  const size_t n = ranks.piece.size();
  for (size_t i = 0; i < n; ++i) parts[i] = {i, i + 1 < n ? ranks.Of(i, i + 2) : kNoRank};
  parts[n] = {n, kNoRank};
  size_t count = n;  // parts[count] is the end
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (parts[i].rank < parts[best].rank) best = i;
    }
    if (parts[best].rank == kNoRank) break;
    std::copy(parts.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              parts.begin() + static_cast<std::ptrdiff_t>(count) + 1,
              parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    parts[best].rank = best + 1 < count ? ranks.Of(parts[best].begin, parts[best + 2].begin) : kNoRank;
    if (best > 0) parts[best - 1].rank = ranks.Of(parts[best - 1].begin, parts[best + 1].begin);
  }
  for (size_t i = 0; i < count; ++i) ids->push_back(ranks.TokenOf(parts[i].begin, parts[i + 1].begin));
}

/// Parts as a linked list over byte positions, with a heap of candidate pairs. A pair that changed since it was queued
/// has another rank, because ids and bytes are one to one, and is skipped.
void MergeByHeap(const PairRanks& ranks, std::vector<TokenId>* ids) {
  const size_t n = ranks.piece.size();
  struct Part {
    size_t next, previous;
    TokenId rank;
  };
  std::vector<Part> parts(n + 1);
  // Rank above, position below: the smallest key is the lowest rank and of equals the leftmost.
  constexpr int kPositionBits = 43;
  static_assert(Vocabulary::kMaxTokens <= 1 << (63 - kPositionBits));
  std::vector<uint64_t> keys;
  keys.reserve(n);
  const auto key = [](TokenId rank, size_t pos) { return static_cast<uint64_t>(rank) << kPositionBits | pos; };
  for (size_t i = 0; i <= n; ++i) {
    parts[i] = {i + 1, i - 1, i + 1 < n ? ranks.Of(i, i + 2) : kNoRank};
    if (parts[i].rank != kNoRank) keys.push_back(key(parts[i].rank, i));
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue(std::greater<>(), std::move(keys));
  const auto update = [&](size_t pos) {
    const size_t next = parts[pos].next;
    parts[pos].rank = next < n ? ranks.Of(pos, parts[next].next) : kNoRank;
    if (parts[pos].rank != kNoRank) queue.push(key(parts[pos].rank, pos));
  };
  while (!queue.empty()) {
    const uint64_t top = queue.top();
    queue.pop();
    const size_t pos = top & ((uint64_t{1} << kPositionBits) - 1);
    if (parts[pos].rank != static_cast<TokenId>(top >> kPositionBits)) continue;
    const size_t gone = parts[pos].next;
    parts[gone].rank = kNoRank;
    parts[pos].next = parts[gone].next;
    parts[parts[gone].next].previous = pos;
    update(pos);
    if (pos > 0) update(parts[pos].previous);
  }
  for (size_t i = 0; i < n; i = parts[i].next) ids->push_back(ranks.TokenOf(i, parts[i].next));
}

}  // namespace

void MergePiece(const TokenMap& map, std::string_view piece, TokenId excluded, std::vector<TokenId>* ids) {
  const PairRanks ranks{map, piece, excluded};
  if (piece.size() <= kScanBytes) {
    MergeByScan(ranks, ids);
  } else {
    MergeByHeap(ranks, ids);
  }
}

void EncodePiece(const TokenMap& map, std::string_view piece, std::vector<TokenId>* ids) {
  const TokenId whole = map.Find(piece);
  if (whole >= 0) {
    ids->push_back(whole);
  } else {
    MergePiece(map, piece, -1, ids);
  }
}

}  // namespace gptoss

#include "tokenizer/token_map.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/rng.h"

namespace gptoss {
namespace {

uint64_t Load(const char* bytes, size_t count) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, count);
  return word;
}

/// Only has to spread the vocabulary: one step for every 8 bytes, so that a usual piece costs one or two.
uint64_t Hash(std::string_view bytes) {
  const char* p = bytes.data();
  size_t left = bytes.size();
  uint64_t h = left * kGoldenGamma;
  for (; left > 8; left -= 8, p += 8) {
    h = (h ^ Load(p, 8)) * 0xBF58476D1CE4E5B9;
    h ^= h >> 32;
  }
  return Mix64(h ^ Load(p, left));
}

}  // namespace

Status TokenMap::Build(const Vocabulary& vocabulary) {
  vocabulary_ = &vocabulary;
  slots_.assign(std::bit_ceil(2 * vocabulary.ordinary_count() + 2), Slot{0, -1});
  one_byte_.fill(-1);
  two_bytes_.assign(65536, -1);
  const size_t mask = slots_.size() - 1;
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.KindOf(id) != Vocabulary::Kind::kOrdinary) continue;
    const std::string_view bytes = vocabulary.Token(id);
    const uint64_t hash = Hash(bytes);
    const uint32_t tag = static_cast<uint32_t>(hash >> 32);
    size_t i = hash & mask;
    for (; slots_[i].id >= 0; i = (i + 1) & mask) {
      if (slots_[i].tag == tag && vocabulary.Token(slots_[i].id) == bytes) {
        return CorruptData("token ids " + std::to_string(slots_[i].id) + " and " + std::to_string(id) +
                           " stand for the same bytes");
      }
    }
    slots_[i] = {tag, id};
    longest_ = std::max(longest_, bytes.size());
    if (bytes.size() == 1) one_byte_[static_cast<uint8_t>(bytes[0])] = id;
    if (bytes.size() == 2)
      two_bytes_[static_cast<size_t>(static_cast<uint8_t>(bytes[0])) << 8 | static_cast<uint8_t>(bytes[1])] = id;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (one_byte_[byte] < 0) {
      return CorruptData("no token stands for the single byte " + std::to_string(byte) +
                         "; a byte-level vocabulary needs all 256");
    }
  }
  return {};
}

TokenId TokenMap::Find(std::string_view bytes) const {
  if (bytes.size() > longest_) return -1;
  const size_t mask = slots_.size() - 1;
  const uint64_t hash = Hash(bytes);
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  for (size_t i = hash & mask; slots_[i].id >= 0; i = (i + 1) & mask) {
    if (slots_[i].tag == tag && vocabulary_->Token(slots_[i].id) == bytes) return slots_[i].id;
  }
  return -1;
}

}  // namespace gptoss

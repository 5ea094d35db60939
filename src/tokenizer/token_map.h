// From the bytes of an ordinary token to its id: an open-addressed table over the vocabulary's own bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/vocabulary.h"

namespace gptoss {

class TokenMap {
 public:
  /// `vocabulary` must outlive the map and not change. On failure: kCorruptData when two ids hold the same bytes or one
  /// of the 256 single bytes is no token.
  Status Build(const Vocabulary& vocabulary);

  /// Id of the ordinary token with these bytes (not empty), or -1.
  TokenId Find(std::string_view bytes) const;
  /// The same for one byte and for two; the second may be -1.
  TokenId FindByte(uint8_t byte) const { return one_byte_[byte]; }
  TokenId FindPair(uint8_t first, uint8_t second) const { return two_bytes_[static_cast<size_t>(first) << 8 | second]; }

 private:
  struct Slot {
    uint32_t tag;
    TokenId id;  // -1: empty
  };

  const Vocabulary* vocabulary_ = nullptr;
  std::vector<Slot> slots_;  // a power of two, at most half full
  std::array<TokenId, 256> one_byte_{};
  std::vector<TokenId> two_bytes_;
  size_t longest_ = 0;
};

}  // namespace gptoss

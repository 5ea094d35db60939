// Byte-pair merging of one piece by ranks: always the pair of neighbours whose joined bytes have the lowest id, the
// leftmost of equals first, until no two neighbours join to a token.
#pragma once

#include <string_view>
#include <vector>

#include "tokenizer/token_map.h"

namespace gptoss {

/// Appends the tokens of `piece` (not empty): one when the piece is itself a token, otherwise what merging leaves.
/// Time O(n log n) in the bytes of the piece.
void EncodePiece(const TokenMap& map, std::string_view piece, std::vector<TokenId>* ids);

/// Merges without looking the whole piece up first and without joining to token `excluded`; -1 excludes none.
void MergePiece(const TokenMap& map, std::string_view piece, TokenId excluded, std::vector<TokenId>* ids);

}  // namespace gptoss

// Cuts text into the pieces that are encoded on their own: the split pattern of o200k_base, matched by hand.
#pragma once

#include <cstddef>
#include <string_view>

namespace gptoss {

/// Bytes of the piece at the start of `text` (not empty); at least 1. The pattern (github.com/openai/tiktoken,
/// tiktoken_ext/openai_public.py) always matches, so pieces follow each other without gaps.
size_t NextPiece(std::string_view text);

}  // namespace gptoss

// The vocabulary in the arrays that a GGUF file holds (`tokenizer.ggml.tokens`, `.token_type`, `.merges`).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/vocabulary.h"

namespace gptoss {

// Token types as in llama.cpp's llama_token_type.
inline constexpr int32_t kGgufTokenNormal = 1;
inline constexpr int32_t kGgufTokenControl = 3;
inline constexpr int32_t kGgufTokenUserDefined = 4;
inline constexpr int32_t kGgufTokenUnused = 5;

struct GgufVocabulary {
  std::vector<std::string> tokens;  // ordinary ones in GPT-2's byte alphabet, special ones as spelled
  std::vector<int32_t> types;
  std::vector<std::string> merges;  // "left right" in GPT-2's alphabet, lowest rank first
};

/// `vocab_size` entries: tokens from that id on are left out, and ids without a token become `[PADn]` of type unused,
/// as llama.cpp names them. A merge is the last step of encoding a token's own bytes by ids; a token that merging never
/// arrives at (it occurs as a whole piece only) has none. `vocabulary` is one that Tokenizer::FromVocabulary accepts.
GgufVocabulary ExportForGguf(const Vocabulary& vocabulary, int vocab_size);

}  // namespace gptoss

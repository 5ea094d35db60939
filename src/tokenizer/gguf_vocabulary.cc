#include "tokenizer/gguf_vocabulary.h"

#include <algorithm>

#include "tokenizer/bpe.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/token_map.h"

namespace gptoss {
namespace {

std::string InAlphabet(std::string_view bytes) {
  std::string text;
  BytesToAlphabet(bytes, &text);
  return text;
}

}  // namespace

Result<Vocabulary> Vocabulary::FromGgufTokens(std::span<const std::string> tokens, std::span<const int32_t> types) {
  if (tokens.size() > static_cast<size_t>(kMaxTokens)) {
    return CorruptData("tokenizer.ggml.tokens has " + std::to_string(tokens.size()) + " entries; the limit is " +
                       std::to_string(kMaxTokens));
  }
  if (types.size() != tokens.size()) {
    return CorruptData("tokenizer.ggml.token_type has " + std::to_string(types.size()) +
                       " entries and tokenizer.ggml.tokens has " + std::to_string(tokens.size()));
  }
  Vocabulary vocabulary;
  vocabulary.Reserve(tokens.size(), tokens.size() * 8);
  std::string bytes;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] == kGgufTokenUnused) continue;
    const TokenId id = static_cast<TokenId>(i);
    Status status;
    if (types[i] == kGgufTokenNormal) {
      bytes.clear();
      if (!BytesFromAlphabet(tokens[i], &bytes)) {
        return CorruptData("tokenizer.ggml.tokens[" + std::to_string(i) + "] is not in GPT-2's byte alphabet");
      }
      status = vocabulary.Add(id, bytes, Kind::kOrdinary);
    } else if (types[i] > kGgufTokenNormal && types[i] <= kGgufTokenUserDefined) {
      status = vocabulary.Add(id, tokens[i], Kind::kSpecial);
    } else {
      return CorruptData("tokenizer.ggml.token_type[" + std::to_string(i) + "] is " + std::to_string(types[i]) +
                         "; only 1 to 5 are supported");
    }
    if (!status.ok()) return status.WithContext("tokenizer.ggml.tokens");
  }
  vocabulary.CompleteHarmonySpecials();
  return vocabulary;
}

GgufVocabulary ExportForGguf(const Vocabulary& vocabulary, int vocab_size) {
  TokenMap map;
  GPTOSS_CHECK(map.Build(vocabulary).ok());
  GgufVocabulary out;
  out.tokens.reserve(static_cast<size_t>(std::max(vocab_size, 0)));
  std::vector<TokenId> parts;
  for (TokenId id = 0; id < vocab_size; ++id) {
    const std::string_view bytes = vocabulary.Token(id);
    switch (vocabulary.KindOf(id)) {
      case Vocabulary::Kind::kNone:
        out.tokens.push_back("[PAD" + std::to_string(id) + "]");
        out.types.push_back(kGgufTokenUnused);
        break;
      case Vocabulary::Kind::kSpecial:
        out.tokens.emplace_back(bytes);
        out.types.push_back(kGgufTokenControl);
        break;
      case Vocabulary::Kind::kOrdinary:
        out.tokens.push_back(InAlphabet(bytes));
        out.types.push_back(kGgufTokenNormal);
        parts.clear();
        MergePiece(map, bytes, id, &parts);
        if (parts.size() == 2) {
          out.merges.push_back(InAlphabet(vocabulary.Token(parts[0])) + " " + InAlphabet(vocabulary.Token(parts[1])));
        }
        break;
    }
  }
  return out;
}

}  // namespace gptoss

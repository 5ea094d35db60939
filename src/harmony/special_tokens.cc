#include "harmony/special_tokens.h"

#include <array>
#include <string>

namespace gptoss {
namespace {

constexpr std::array<std::string_view, kFormatTokenCount> kSpellings = {
    "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>", "<|endoftext|>"};

}  // namespace

std::string_view Spelling(FormatToken token) { return kSpellings[static_cast<size_t>(token)]; }

Result<FormatTokenIds> FormatTokenIds::Of(const Tokenizer& tokenizer) {
  std::array<TokenId, kFormatTokenCount> ids;
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = tokenizer.SpecialId(kSpellings[i]);
    if (ids[i] < 0 && i != static_cast<size_t>(FormatToken::kEndOfText)) {
      return Unsupported("the tokenizer has no special token " + std::string(kSpellings[i]) +
                         "; harmony needs the vocabulary o200k_harmony");
    }
  }
  FormatTokenIds out;
  out.start = ids[0];
  out.end = ids[1];
  out.message = ids[2];
  out.channel = ids[3];
  out.constrain = ids[4];
  out.return_ = ids[5];
  out.call = ids[6];
  out.end_of_text = ids[7];
  return out;
}

TokenId FormatTokenIds::IdOf(FormatToken token) const {
  switch (token) {
    case FormatToken::kStart:
      return start;
    case FormatToken::kEnd:
      return end;
    case FormatToken::kMessage:
      return message;
    case FormatToken::kChannel:
      return channel;
    case FormatToken::kConstrain:
      return constrain;
    case FormatToken::kReturn:
      return return_;
    case FormatToken::kCall:
      return call;
    case FormatToken::kEndOfText:
      return end_of_text;
  }
  return -1;
}

}  // namespace gptoss

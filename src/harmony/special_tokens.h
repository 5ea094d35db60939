// The markers of the harmony format. Their ids in o200k_harmony are those of openai/harmony, docs/format.md; a
// tokenizer with another vocabulary may place them elsewhere, so every user of the format asks the tokenizer.
#pragma once

#include <string_view>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

namespace gptoss {

enum class FormatToken : uint8_t { kStart, kEnd, kMessage, kChannel, kConstrain, kReturn, kCall, kEndOfText };
inline constexpr int kFormatTokenCount = 8;

/// "<|start|>" and so on.
std::string_view Spelling(FormatToken token);

/// The ids of the markers in one vocabulary.
struct FormatTokenIds {
  TokenId start = 200006;
  TokenId end = 200007;
  TokenId message = 200008;
  TokenId channel = 200005;
  TokenId constrain = 200003;
  TokenId return_ = 200002;      // the assistant has answered: sampling stops
  TokenId call = 200012;         // the assistant calls a tool: sampling stops
  TokenId end_of_text = 199999;  // no marker of the format, but sampling must stop there too; -1 when absent

  /// On failure: kUnsupported naming the first marker that the vocabulary lacks (<|endoftext|> may be absent).
  static Result<FormatTokenIds> Of(const Tokenizer& tokenizer);

  TokenId IdOf(FormatToken token) const;
  /// Sampling of an assistant's turn ends here.
  bool IsStop(TokenId id) const { return id == return_ || id == call || (id == end_of_text && id >= 0); }
};

}  // namespace gptoss

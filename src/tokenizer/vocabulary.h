// The tokens of a byte-level BPE vocabulary by id, and the files that they come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace gptoss {

using TokenId = int32_t;

/// Ordinary tokens as bytes and special tokens as spellings, one blob for all. An ordinary token's id is also its rank
/// in merging: lower merges first. Ids without a token may lie between others.
struct Vocabulary {
 public:
  enum class Kind : uint8_t { kNone, kOrdinary, kSpecial };
  struct Alias {
    TokenId id;
    std::string spelling;
  };

  static constexpr TokenId kMaxTokens = 1 << 20;
  static constexpr size_t kMaxTokenBytes = 65535;
  static constexpr size_t kMaxFileBytes = size_t{256} << 20;

  /// A `tokenizer.json` (Hugging Face) or a `.tiktoken` file, told apart by content.
  /// On failure: kNotFound or kIo, or an error of the two functions below, with the path in front.
  static Result<Vocabulary> FromFile(const std::string& path);

  /// `text` is a whole tokenizer.json. Needs model.type "BPE", no normalizer, and the split pattern of o200k; merges
  /// are not read, since ids are ranks. Reserved special tokens that the file leaves out are added when it is
  /// o200k_harmony. On failure: kCorruptData or kUnsupported, naming the field or the token.
  static Result<Vocabulary> FromTokenizerJson(std::string text);

  /// Lines of a base64 token and its rank, ranks from 0 without gaps. The special tokens are those of o200k_harmony.
  /// On failure: kCorruptData naming the line.
  static Result<Vocabulary> FromTiktoken(std::string_view text);

  /// The arrays `tokenizer.ggml.tokens` (in GPT-2's byte alphabet) and `tokenizer.ggml.token_type` of a GGUF file;
  /// types: 1 ordinary, 2 to 4 special (spelled as they are), 5 unused. On failure: kCorruptData naming the index.
  static Result<Vocabulary> FromGgufTokens(std::span<const std::string> tokens, std::span<const int32_t> types);

  /// o200k_harmony as built into this binary. On failure: kCorruptData (the executable is damaged).
  static Result<Vocabulary> Embedded();

  /// Puts a token at `id`. On failure: kCorruptData when the id is taken or out of range, or the token is empty or
  /// longer than kMaxTokenBytes.
  Status Add(TokenId id, std::string_view bytes, Kind kind);
  /// A second spelling under which a special token is found; decoding gives the first.
  void AddAlias(TokenId id, std::string_view spelling) { aliases_.push_back({id, std::string(spelling)}); }
  /// Makes the ordinary token at `id` special when its bytes are `spelling`; false otherwise.
  bool MakeSpecial(TokenId id, std::string_view spelling);
  /// When the ordinary tokens are ids 0 to 199997 and no special token contradicts: fills in the special tokens of
  /// o200k_harmony that are missing (199998 to 201088), and lets those with other names be found by the official one.
  void CompleteHarmonySpecials();
  void Reserve(size_t tokens, size_t bytes);

  /// One more than the highest id.
  TokenId size() const { return static_cast<TokenId>(entries_.size()); }
  Kind KindOf(TokenId id) const { return Contains(id) ? entries_[static_cast<size_t>(id)].kind : Kind::kNone; }
  /// Bytes or spelling; empty for an id without a token. Valid as long as nothing is added.
  std::string_view Token(TokenId id) const {
    if (!Contains(id)) return {};
    const Entry& e = entries_[static_cast<size_t>(id)];
    return {bytes_.data() + e.offset, e.length};
  }
  size_t ordinary_count() const { return ordinary_count_; }
  std::span<const Alias> aliases() const { return aliases_; }

 private:
  struct Entry {
    uint32_t offset = 0;
    uint16_t length = 0;
    Kind kind = Kind::kNone;
  };
  bool Contains(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < entries_.size(); }

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<Alias> aliases_;
  size_t ordinary_count_ = 0;
};

/// Number of ordinary tokens of o200k, and the first and last special id of o200k_harmony.
inline constexpr TokenId kO200kOrdinaryTokens = 199998;
inline constexpr TokenId kHarmonyLastSpecial = 201088;

/// The official spelling of a special token of o200k_harmony, kO200kOrdinaryTokens <= id <= kHarmonyLastSpecial.
/// Source: github.com/openai/harmony, src/tiktoken_ext/public_encodings.rs.
std::string HarmonySpecialSpelling(TokenId id);

}  // namespace gptoss

// The o200k_harmony tokenizer: byte-level BPE over 199,998 ordinary tokens, plus special tokens that only the
// renderer may emit. Source of the format: github.com/openai/tiktoken and openai/harmony.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace gptoss {

using TokenId = int32_t;

struct Vocabulary;  // tokenizer/vocabulary.h

/// Immutable once made; every method may be called from several threads at once.
class Tokenizer {
 public:
  /// The vocabulary that is built into the binary. The first call unpacks it; later calls share it.
  static Result<std::shared_ptr<const Tokenizer>> Embedded();
  /// A `tokenizer.json` (Hugging Face) or a `.tiktoken` file, told apart by content.
  /// On failure: one error that names the file and the entry at fault.
  static Result<std::shared_ptr<const Tokenizer>> FromFile(const std::string& path);
  /// From tokens given by id, as a GGUF holds them (already turned back into bytes).
  static Result<std::shared_ptr<const Tokenizer>> FromVocabulary(Vocabulary vocabulary);

  ~Tokenizer();

  /// Appends the ids of `text` taken as ordinary text: what spells a special token is not one. Bytes that are not
  /// UTF-8 are encoded too, each invalid byte as a piece of its own class, so that decoding gives the bytes back.
  void Encode(std::string_view text, std::vector<TokenId>* ids) const;
  std::vector<TokenId> Encode(std::string_view text) const;

  /// Like Encode, but text that spells a special token becomes that token. For trusted text only.
  void EncodeWithSpecial(std::string_view text, std::vector<TokenId>* ids) const;

  /// The bytes of the tokens, one after the other; a special token gives its spelling, an unknown id nothing.
  std::string Decode(std::span<const TokenId> ids) const;

  /// Bytes of one token: empty for an id that is not in the vocabulary.
  std::string_view TokenBytes(TokenId id) const;
  bool IsSpecial(TokenId id) const;
  /// Id of the special token spelled `text`, or -1.
  TokenId SpecialId(std::string_view text) const;
  /// One more than the highest id.
  TokenId size() const;
  const Vocabulary& vocabulary() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Turns a stream of tokens into text without ever giving out half a character.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// Adds one token; returns the text that became certain (maybe empty). Bytes that can no longer become valid UTF-8
  /// come out as U+FFFD.
  std::string Add(TokenId id);
  /// Ends the stream: what is held back comes out as U+FFFD.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // at most 3 bytes
};

}  // namespace gptoss

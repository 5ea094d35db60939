#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <bitset>
#include <unordered_map>

#include "base/utf8.h"
#include "tokenizer/bpe.h"
#include "tokenizer/split.h"
#include "tokenizer/token_map.h"
#include "tokenizer/vocabulary.h"

namespace gptoss {
namespace {

struct SpecialHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};

/// Spellings of special tokens, and what finds them in a text.
struct SpecialTokens {
  std::unordered_map<std::string, TokenId, SpecialHash, std::equal_to<>> ids;
  std::bitset<256> first_bytes;
  std::vector<size_t> lengths;  // those that occur, longest first

  Status Build(const Vocabulary& vocabulary) {
    for (TokenId id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.KindOf(id) != Vocabulary::Kind::kSpecial) continue;
      const auto [it, is_new] = ids.emplace(vocabulary.Token(id), id);
      if (!is_new) {
        return CorruptData("special tokens " + std::to_string(it->second) + " and " + std::to_string(id) +
                           " have the same spelling");
      }
    }
    for (const Vocabulary::Alias& alias : vocabulary.aliases()) ids.emplace(alias.spelling, alias.id);
    for (const auto& [spelling, id] : ids) {
      first_bytes.set(static_cast<uint8_t>(spelling[0]));
      lengths.push_back(spelling.size());
    }
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
    return {};
  }

  /// The longest special token at `pos`: its id and length, or -1.
  std::pair<TokenId, size_t> At(std::string_view text, size_t pos) const {
    if (!first_bytes[static_cast<uint8_t>(text[pos])]) return {-1, 0};
    for (const size_t length : lengths) {
      if (length > text.size() - pos) continue;
      const auto it = ids.find(text.substr(pos, length));
      if (it != ids.end()) return {it->second, length};
    }
    return {-1, 0};
  }
};

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(Vocabulary v) : vocabulary(std::move(v)) {}

  const Vocabulary vocabulary;
  TokenMap map;
  SpecialTokens specials;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::Embedded() {
  static const Result<std::shared_ptr<const Tokenizer>> kTokenizer = []() -> Result<std::shared_ptr<const Tokenizer>> {
    GPTOSS_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Embedded());
    return FromVocabulary(std::move(vocabulary));
  }();
  return kTokenizer;
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::FromFile(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::FromFile(path));
  Result<std::shared_ptr<const Tokenizer>> tokenizer = FromVocabulary(std::move(vocabulary));
  if (!tokenizer.ok()) return tokenizer.status().WithContext(path);
  return tokenizer;
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::FromVocabulary(Vocabulary vocabulary) {
  auto impl = std::make_unique<Impl>(std::move(vocabulary));
  GPTOSS_RETURN_IF_ERROR(impl->map.Build(impl->vocabulary));
  GPTOSS_RETURN_IF_ERROR(impl->specials.Build(impl->vocabulary));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

void Tokenizer::Encode(std::string_view text, std::vector<TokenId>* ids) const {
  while (!text.empty()) {
    const size_t length = NextPiece(text);
    EncodePiece(impl_->map, text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text) const {
  std::vector<TokenId> ids;
  Encode(text, &ids);
  return ids;
}

void Tokenizer::EncodeWithSpecial(std::string_view text, std::vector<TokenId>* ids) const {
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const auto [id, length] = impl_->specials.At(text, pos);
    if (id < 0) {
      ++pos;
      continue;
    }
    Encode(text.substr(begin, pos - begin), ids);
    ids->push_back(id);
    begin = pos += length;
  }
  Encode(text.substr(begin), ids);
}

std::string Tokenizer::Decode(std::span<const TokenId> ids) const {
  size_t bytes = 0;
  for (const TokenId id : ids) bytes += TokenBytes(id).size();
  std::string text;
  text.reserve(bytes);
  for (const TokenId id : ids) text.append(TokenBytes(id));
  return text;
}

std::string_view Tokenizer::TokenBytes(TokenId id) const { return impl_->vocabulary.Token(id); }

bool Tokenizer::IsSpecial(TokenId id) const { return impl_->vocabulary.KindOf(id) == Vocabulary::Kind::kSpecial; }

TokenId Tokenizer::SpecialId(std::string_view text) const {
  const auto it = impl_->specials.ids.find(text);
  return it == impl_->specials.ids.end() ? -1 : it->second;
}

TokenId Tokenizer::size() const { return impl_->vocabulary.size(); }

const Vocabulary& Tokenizer::vocabulary() const { return impl_->vocabulary; }

std::string IncrementalDecoder::Add(TokenId id) {
  pending_.append(tokenizer_->TokenBytes(id));
  const size_t whole = CompleteUtf8Prefix(pending_);
  std::string text = ReplaceInvalidUtf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string IncrementalDecoder::Finish() {
  std::string text = ReplaceInvalidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace gptoss

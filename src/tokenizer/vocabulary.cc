#include "tokenizer/vocabulary.h"

#include "base/mmap_file.h"

namespace gptoss {
namespace {

std::string IdName(TokenId id) { return "token id " + std::to_string(id); }

}  // namespace

Status Vocabulary::Add(TokenId id, std::string_view bytes, Kind kind) {
  if (id < 0 || id >= kMaxTokens) {
    return CorruptData(IdName(id) + " is outside of 0 to " + std::to_string(kMaxTokens - 1));
  }
  if (bytes.empty()) return CorruptData(IdName(id) + " is an empty token");
  if (bytes.size() > kMaxTokenBytes) {
    return CorruptData(IdName(id) + " is " + std::to_string(bytes.size()) + " bytes long; the limit is " +
                       std::to_string(kMaxTokenBytes));
  }
  if (bytes_.size() + bytes.size() > kMaxFileBytes) return CorruptData("the tokens are too long in all");
  const size_t i = static_cast<size_t>(id);
  if (i >= entries_.size()) entries_.resize(i + 1);
  if (entries_[i].kind != Kind::kNone) return CorruptData(IdName(id) + " is given twice");
  entries_[i] = {static_cast<uint32_t>(bytes_.size()), static_cast<uint16_t>(bytes.size()), kind};
  bytes_.append(bytes);
  if (kind == Kind::kOrdinary) ++ordinary_count_;
  return {};
}

bool Vocabulary::MakeSpecial(TokenId id, std::string_view spelling) {
  if (KindOf(id) != Kind::kOrdinary || Token(id) != spelling) return false;
  entries_[static_cast<size_t>(id)].kind = Kind::kSpecial;
  --ordinary_count_;
  return true;
}

void Vocabulary::Reserve(size_t tokens, size_t bytes) {
  entries_.reserve(tokens);
  bytes_.reserve(bytes);
}

void Vocabulary::CompleteHarmonySpecials() {
  constexpr TokenId kStart = 200006;
  if (ordinary_count_ != static_cast<size_t>(kO200kOrdinaryTokens)) return;
  for (TokenId id = 0; id < kO200kOrdinaryTokens; ++id) {
    if (KindOf(id) != Kind::kOrdinary) return;
  }
  if (KindOf(kStart) != Kind::kNone && Token(kStart) != HarmonySpecialSpelling(kStart)) return;
  for (TokenId id = kO200kOrdinaryTokens; id <= kHarmonyLastSpecial; ++id) {
    const std::string official = HarmonySpecialSpelling(id);
    if (KindOf(id) == Kind::kNone) {
      GPTOSS_CHECK(Add(id, official, Kind::kSpecial).ok());
    } else if (Token(id) != official) {
      AddAlias(id, official);
    }
  }
  constexpr TokenId kEndOfPrompt = 200018;  // o200k_base's name, which o200k_harmony inherits beside its own
  constexpr std::string_view kEndOfPromptName = "<|endofprompt|>";
  if (Token(kEndOfPrompt) != kEndOfPromptName) AddAlias(kEndOfPrompt, kEndOfPromptName);
}

std::string HarmonySpecialSpelling(TokenId id) {
  switch (id) {
    case 199998:
      return "<|startoftext|>";
    case 199999:
      return "<|endoftext|>";
    case 200002:
      return "<|return|>";
    case 200003:
      return "<|constrain|>";
    case 200005:
      return "<|channel|>";
    case 200006:
      return "<|start|>";
    case 200007:
      return "<|end|>";
    case 200008:
      return "<|message|>";
    case 200012:
      return "<|call|>";
    default:
      return "<|reserved_" + std::to_string(id) + "|>";
  }
}

Result<Vocabulary> Vocabulary::FromFile(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(std::string text, ReadTextFile(path, kMaxFileBytes));
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return CorruptData(path + ": the file is empty");
  Result<Vocabulary> vocabulary = text[first] == '{' ? FromTokenizerJson(std::move(text)) : FromTiktoken(text);
  if (!vocabulary.ok()) return vocabulary.status().WithContext(path);
  return vocabulary;
}

}  // namespace gptoss

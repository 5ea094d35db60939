#include <array>
#include <charconv>

#include "tokenizer/vocabulary.h"

namespace gptoss {
namespace {

constexpr std::array<int8_t, 256> MakeBase64Values() {
  std::array<int8_t, 256> values{};
  for (auto& v : values) v = -1;
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kDigits.size(); ++i) values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  return values;
}
constexpr std::array<int8_t, 256> kBase64 = MakeBase64Values();

/// Strict RFC 4648: padded, no other characters, no bits left over.
bool DecodeBase64(std::string_view text, std::string* bytes) {
  bytes->clear();
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  for (size_t i = 0; i < text.size(); i += 4) {
    const size_t digits = i + 4 == text.size() ? 4 - padding : 4;
    uint32_t bits = 0;
    for (size_t j = 0; j < 4; ++j) {
      const int8_t value = j < digits ? kBase64[static_cast<uint8_t>(text[i + j])] : int8_t{0};
      if (value < 0) return false;
      bits = bits << 6 | static_cast<uint32_t>(value);
    }
    for (size_t j = 0; j + 1 < digits; ++j) bytes->push_back(static_cast<char>(bits >> (16 - 8 * j) & 0xFF));
    if (digits < 4 && (bits & (digits == 3 ? 0xFFu : 0xFFFFu)) != 0) return false;
  }
  return true;
}

Status ParseLine(std::string_view line, std::string* scratch, Vocabulary* vocabulary) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return CorruptData("needs a base64 token, one space and a rank");
  if (!DecodeBase64(line.substr(0, space), scratch)) return CorruptData("the token is not valid base64");
  const std::string_view rank_text = line.substr(space + 1);
  TokenId rank = -1;
  const auto [end, error] = std::from_chars(rank_text.data(), rank_text.data() + rank_text.size(), rank);
  if (error != std::errc() || end != rank_text.data() + rank_text.size() || rank < 0) {
    return CorruptData("the rank is not a number from 0 to " + std::to_string(Vocabulary::kMaxTokens - 1));
  }
  return vocabulary->Add(rank, *scratch, Vocabulary::Kind::kOrdinary);
}

}  // namespace

Result<Vocabulary> Vocabulary::FromTiktoken(std::string_view text) {
  Vocabulary vocabulary;
  vocabulary.Reserve(kHarmonyLastSpecial + 1, text.size() * 3 / 4);
  std::string scratch;
  for (size_t line_number = 1; !text.empty(); ++line_number) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const Status status = ParseLine(line, &scratch, &vocabulary);
    if (!status.ok()) return status.WithContext("line " + std::to_string(line_number));
  }
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.KindOf(id) == Kind::kNone) {
      return CorruptData("no line has rank " + std::to_string(id) + "; the file is incomplete");
    }
  }
  vocabulary.CompleteHarmonySpecials();
  return vocabulary;
}

}  // namespace gptoss

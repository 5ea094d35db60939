// Unpacks data/o200k_harmony.vocab.zst, which scripts/make_vocabulary.py made and documents.
#include <zstd.h>

#include <cstring>
#include <memory>

#include "base/embed_file.h"
#include "base/rng.h"
#include "tokenizer/vocabulary.h"

GPTOSS_EMBED_FILE(gptoss_embedded_vocabulary, GPTOSS_VOCABULARY_FILE)

namespace gptoss {
namespace {

constexpr std::string_view kMagic = "GPTOSSV1";
constexpr size_t kHeaderBytes = 24;
constexpr size_t kMaxUnpackedBytes = 16u << 20;

template <typename T>
T ReadLittleEndian(std::string_view bytes, size_t offset) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<uint8_t>(bytes[offset + i])) << (8 * i);
  return value;
}

Status Damaged(std::string_view what) {
  return CorruptData("the vocabulary inside this executable is damaged (" + std::string(what) +
                     "): install or build it again, or name a file with --tokenizer");
}

Result<std::string> Unpack(std::string_view packed) {
  const unsigned long long size = ZSTD_getFrameContentSize(packed.data(), packed.size());
  if (size < kHeaderBytes || size > kMaxUnpackedBytes) return Damaged("size");
  std::string bytes(static_cast<size_t>(size), '\0');
  const size_t got = ZSTD_decompress(bytes.data(), bytes.size(), packed.data(), packed.size());
  if (ZSTD_isError(got) || got != bytes.size()) return Damaged("compression");
  return bytes;
}

}  // namespace

Result<Vocabulary> Vocabulary::Embedded() {
  GPTOSS_ASSIGN_OR_RETURN(const std::string bytes, Unpack(gptoss_embedded_vocabulary()));
  const std::string_view view = bytes;
  const size_t count = ReadLittleEndian<uint32_t>(view, 8);
  const size_t token_bytes = ReadLittleEndian<uint32_t>(view, 12);
  const std::string_view body = view.substr(kHeaderBytes);
  if (!view.starts_with(kMagic) || count + token_bytes != body.size()) return Damaged("header");
  if (Fnv1a64(body) != ReadLittleEndian<uint64_t>(view, 16)) return Damaged("checksum");

  Vocabulary vocabulary;
  vocabulary.Reserve(kHarmonyLastSpecial + 1, token_bytes + (64u << 10));
  size_t offset = count;
  for (size_t i = 0; i < count; ++i) {
    const size_t length = static_cast<uint8_t>(body[i]);
    if (offset + length > body.size()) return Damaged("lengths");
    GPTOSS_RETURN_IF_ERROR(vocabulary.Add(static_cast<TokenId>(i), body.substr(offset, length), Kind::kOrdinary));
    offset += length;
  }
  vocabulary.CompleteHarmonySpecials();
  return vocabulary;
}

}  // namespace gptoss

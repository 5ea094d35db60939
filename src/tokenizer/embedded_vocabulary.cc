// Unpacks data/o200k_harmony.vocab.zst, which scripts/make_vocabulary.py made and documents.
#include <zstd.h>

#include <cstring>
#include <memory>

#include "base/rng.h"
#include "tokenizer/vocabulary.h"

// The one way to put a file into an object that g++ and clang share on every ELF target, without a tool of our own.
asm(".pushsection .rodata\n"
    ".balign 16\n"
    ".global gptoss_embedded_vocabulary_begin\n"
    ".hidden gptoss_embedded_vocabulary_begin\n"
    "gptoss_embedded_vocabulary_begin:\n"
    ".incbin \"" GPTOSS_VOCABULARY_FILE
    "\"\n"
    ".global gptoss_embedded_vocabulary_end\n"
    ".hidden gptoss_embedded_vocabulary_end\n"
    "gptoss_embedded_vocabulary_end:\n"
    ".popsection\n");

extern "C" {
extern const char gptoss_embedded_vocabulary_begin[];
extern const char gptoss_embedded_vocabulary_end[];
}

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
  const auto packed_size = gptoss_embedded_vocabulary_end - gptoss_embedded_vocabulary_begin;
  GPTOSS_ASSIGN_OR_RETURN(const std::string bytes,
                          Unpack({gptoss_embedded_vocabulary_begin, static_cast<size_t>(packed_size)}));
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

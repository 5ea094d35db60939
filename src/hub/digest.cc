#include "hub/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "base/mmap_file.h"

namespace gptoss::hub {
namespace {

constexpr size_t kReadBytes = 1u << 20;

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

std::string Hex(const unsigned char* bytes, size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    out += kDigits[bytes[i] >> 4];
    out += kDigits[bytes[i] & 15];
  }
  return out;
}

}  // namespace

std::string Digest::ToString() const {
  if (kind == DigestKind::kNone) return "";
  return (kind == DigestKind::kSha256 ? "sha256:" : "git-sha1:") + hex;
}

Result<Digest> Digest::FromString(std::string_view text) {
  if (text.empty()) return Digest{};
  if (text.starts_with("sha256:")) return MakeDigest(DigestKind::kSha256, text.substr(7));
  if (text.starts_with("git-sha1:")) return MakeDigest(DigestKind::kGitBlob, text.substr(9));
  return CorruptData("a checksum has an unknown form");
}

Result<Digest> MakeDigest(DigestKind kind, std::string_view hex) {
  const size_t expected = kind == DigestKind::kSha256 ? 64 : 40;
  Digest digest{kind, std::string(hex)};
  for (char& c : digest.hex) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
    const bool is_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (!is_hex) return CorruptData("a checksum holds characters that are not hexadecimal digits");
  }
  if (kind == DigestKind::kNone || digest.hex.size() != expected) {
    return CorruptData("a checksum has " + std::to_string(hex.size()) + " digits, " + std::to_string(expected) +
                       " were expected");
  }
  return digest;
}

Result<Digest> DigestFile(const std::string& path, DigestKind kind, const std::atomic<bool>* cancel) {
  GPTOSS_CHECK(kind != DigestKind::kNone);
  GPTOSS_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  const EVP_MD* algorithm = kind == DigestKind::kSha256 ? EVP_sha256() : EVP_sha1();
  if (context == nullptr || EVP_DigestInit_ex(context.get(), algorithm, nullptr) != 1) {
    return Unsupported("the cryptography library of this system does not offer SHA-256 and SHA-1");
  }
  bool ok = true;
  if (kind == DigestKind::kGitBlob) {
    const std::string header = "blob " + std::to_string(file.size());
    ok = EVP_DigestUpdate(context.get(), header.c_str(), header.size() + 1) == 1;  // with its terminating zero
  }
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(file.size(), kReadBytes)));
  for (uint64_t offset = 0; ok && offset < file.size();) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) return Cancelled("stopped");
    const size_t count = static_cast<size_t>(std::min<uint64_t>(kReadBytes, file.size() - offset));
    GPTOSS_RETURN_IF_ERROR(file.ReadAt(offset, std::span(buffer).first(count)));
    ok = EVP_DigestUpdate(context.get(), buffer.data(), count) == 1;
    offset += count;
  }
  unsigned char value[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  ok = ok && EVP_DigestFinal_ex(context.get(), value, &length) == 1;
  if (!ok) return Unsupported("the cryptography library failed while hashing " + path);
  return Digest{kind, Hex(value, length)};
}

}  // namespace gptoss::hub

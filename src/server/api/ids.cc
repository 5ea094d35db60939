#include "server/api/ids.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "base/check.h"

namespace gptoss::server {
namespace {

constexpr size_t kNonceBytes = 12, kTagBytes = 16;
constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

using Bytes = std::vector<uint8_t>;
using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

void FillRandom(std::span<uint8_t> out) {
  GPTOSS_CHECK(RAND_bytes(out.data(), static_cast<int>(out.size())) == 1);  // fails only without any entropy source
}

std::string Encode(const Bytes& bytes) {
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const uint8_t byte : bytes) {
    bits = (bits << 8) | byte;
    for (count += 8; count >= 6; count -= 6) out += kAlphabet[(bits >> (count - 6)) & 63];
  }
  if (count > 0) out += kAlphabet[(bits << (6 - count)) & 63];
  return out;
}

std::optional<Bytes> Decode(std::string_view text) {
  Bytes out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const auto* end = kAlphabet + 64;
    const auto* at = std::find(kAlphabet, end, c);
    if (at == end) return std::nullopt;
    bits = (bits << 6) | static_cast<uint32_t>(at - kAlphabet);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<uint8_t>(bits >> count));
    }
  }
  return out;
}

}  // namespace

std::string NewId(std::string_view prefix) {
  std::array<uint8_t, 24> random;
  FillRandom(random);
  std::string id(prefix);
  for (const uint8_t byte : random) {
    id += "0123456789abcdef"[byte >> 4];
    id += "0123456789abcdef"[byte & 15];
  }
  return id;
}

uint64_t NewSeed() {
  std::array<uint8_t, 8> random;
  FillRandom(random);
  uint64_t seed = 0;
  for (const uint8_t byte : random) seed = (seed << 8) | byte;
  return seed;
}

SealKey NewSealKey() {
  SealKey key;
  FillRandom(key);
  return key;
}

std::string Seal(const SealKey& key, std::string_view text) {
  Bytes out(kNonceBytes + text.size() + kTagBytes);
  FillRandom(std::span(out).first(kNonceBytes));
  const Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  int length = 0;
  const bool done =
      EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(), out.data()) == 1 &&
      EVP_EncryptUpdate(context.get(), out.data() + kNonceBytes, &length, reinterpret_cast<const uint8_t*>(text.data()),
                        static_cast<int>(text.size())) == 1 &&
      EVP_EncryptFinal_ex(context.get(), out.data() + kNonceBytes + length, &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, out.data() + kNonceBytes + text.size()) == 1;
  GPTOSS_CHECK(done);
  return Encode(out);
}

std::optional<std::string> Unseal(const SealKey& key, std::string_view sealed) {
  auto bytes = Decode(sealed);
  if (!bytes || bytes->size() < kNonceBytes + kTagBytes) return std::nullopt;
  const size_t size = bytes->size() - kNonceBytes - kTagBytes;
  std::string text(size, '\0');
  const Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  int length = 0;
  uint8_t none = 0;
  const bool done =
      EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(), bytes->data()) == 1 &&
      EVP_DecryptUpdate(context.get(), size == 0 ? &none : reinterpret_cast<uint8_t*>(text.data()), &length,
                        bytes->data() + kNonceBytes, static_cast<int>(size)) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, bytes->data() + kNonceBytes + size) == 1 &&
      EVP_DecryptFinal_ex(context.get(), &none, &length) == 1;
  if (!done) return std::nullopt;
  return text;
}

}  // namespace gptoss::server

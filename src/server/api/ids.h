// Ids that nobody can guess, and text that only this server can read.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gptoss::server {

/// `prefix` and 48 hexadecimal digits of the operating system's randomness: "resp_…", "call_…".
std::string NewId(std::string_view prefix);

/// For the sampling of requests that name no seed.
uint64_t NewSeed();

using SealKey = std::array<uint8_t, 32>;
SealKey NewSealKey();

/// Encrypts and authenticates (AES-256-GCM): base64url of nonce, cipher text and tag. Used for what clients carry for
/// the server, such as reasoning.encrypted_content.
std::string Seal(const SealKey& key, std::string_view text);
/// Nothing when `sealed` was not made with `key` or was changed.
std::optional<std::string> Unseal(const SealKey& key, std::string_view sealed);

}  // namespace gptoss::server

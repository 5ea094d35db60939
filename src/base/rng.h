// Counter-based randomness: a number depends only on (seed, stream, counter), never on what was drawn before.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptoss {

inline constexpr uint64_t kGoldenGamma = 0x9E3779B97F4A7C15;

/// SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
constexpr uint64_t Mix64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

/// 64-bit FNV-1a of the bytes of `s`.
constexpr uint64_t Fnv1a64(std::string_view s) {
  uint64_t h = 0xCBF29CE484222325;
  for (char c : s) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  return h;
}

/// A named stream of 64-bit words with random access: word i of stream `name` under `seed`.
class RandomStream {
 public:
  constexpr RandomStream(uint64_t seed, std::string_view name) : base_(Mix64((seed ^ Fnv1a64(name)) + kGoldenGamma)) {}
  constexpr RandomStream(uint64_t seed, uint64_t stream) : base_(Mix64((seed ^ Mix64(stream)) + kGoldenGamma)) {}

  constexpr uint64_t Word(uint64_t i) const { return Mix64(base_ + (i + 1) * kGoldenGamma); }
  /// Uniform in [0, 1) with 53 random bits.
  constexpr double Uniform(uint64_t i) const { return static_cast<double>(Word(i) >> 11) * 0x1.0p-53; }

 private:
  uint64_t base_;
};

}  // namespace gptoss

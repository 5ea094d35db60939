#include "checkpoint/xxh64.h"

#include <array>
#include <bit>
#include <cstring>

namespace gptoss {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                   kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;

template <typename T>
T LoadLittleEndian(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  if constexpr (std::endian::native == std::endian::big) {
    T swapped = 0;
    for (size_t i = 0; i < sizeof(T); ++i) swapped |= ((value >> (8 * i)) & 0xFF) << (8 * (sizeof(T) - 1 - i));
    value = swapped;
  }
  return value;
}

uint64_t Round(uint64_t lane, uint64_t word) { return std::rotl(lane + word * kPrime2, 31) * kPrime1; }

uint64_t MergeLane(uint64_t hash, uint64_t lane) { return (hash ^ Round(0, lane)) * kPrime1 + kPrime4; }

}  // namespace

uint64_t Xxh64(std::span<const std::byte> bytes) {
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  uint64_t hash = kPrime5;
  if (left >= 32) {
    std::array<uint64_t, 4> lanes = {kPrime1 + kPrime2, kPrime2, 0, uint64_t{0} - kPrime1};
    for (; left >= 32; left -= 32, p += 32) {
      for (size_t i = 0; i < 4; ++i) lanes[i] = Round(lanes[i], LoadLittleEndian<uint64_t>(p + 8 * i));
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (const uint64_t lane : lanes) hash = MergeLane(hash, lane);
  }
  hash += bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    hash = std::rotl(hash ^ Round(0, LoadLittleEndian<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  }
  for (; left >= 4; left -= 4, p += 4) {
    hash = std::rotl(hash ^ (LoadLittleEndian<uint32_t>(p) * kPrime1), 23) * kPrime2 + kPrime3;
  }
  for (; left > 0; --left, ++p) hash = std::rotl(hash ^ (std::to_integer<uint64_t>(*p) * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace gptoss

// Finds the numbers of things that are kept elsewhere by the things' hashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gptoss {

/// Open addressing, at most half full; nothing is ever taken out.
class IdTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  IdTable() : slots_(64) {}

  /// The number added with this hash for which equal(number) holds, or kNone.
  template <typename Equal>
  uint32_t Find(uint64_t hash, const Equal& equal) const {
    const uint32_t tag = Tag(hash);
    for (size_t i = tag & Mask(); slots_[i].id != kNone; i = (i + 1) & Mask()) {
      if (slots_[i].tag == tag && equal(slots_[i].id)) return slots_[i].id;
    }
    return kNone;
  }

  void Add(uint64_t hash, uint32_t id) {
    if (++count_ * 2 > slots_.size()) {
      std::vector<Slot> old(slots_.size() * 2);
      old.swap(slots_);
      for (const Slot& slot : old) {
        if (slot.id != kNone) Place(slot);
      }
    }
    Place({Tag(hash), id});
  }

 private:
  struct Slot {
    uint32_t tag = 0;
    uint32_t id = kNone;
  };
  static uint32_t Tag(uint64_t hash) { return static_cast<uint32_t>(hash ^ hash >> 32); }
  size_t Mask() const { return slots_.size() - 1; }
  void Place(const Slot& slot) {
    size_t i = slot.tag & Mask();
    while (slots_[i].id != kNone) i = (i + 1) & Mask();
    slots_[i] = slot;
  }

  std::vector<Slot> slots_;  // a power of two
  size_t count_ = 0;
};

}  // namespace gptoss

#include "backends/cpu/amx/amx_support.h"

#include "backends/cpu/dots/dot_support.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace gptoss::cpu {
namespace {

#if defined(__x86_64__) && defined(__linux__)

// Linux, arch/x86/include/uapi/asm/prctl.h; the number of the feature is its bit in XCR0.
constexpr long kRequestPermission = 0x1023;
constexpr long kTileData = 18;

/// XCR0, the register states that the operating system saves. Only where CPUID reports OSXSAVE.
uint64_t SavedStates() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

const char* Probe() {
  uint32_t a, b, c, d;
  constexpr uint32_t kOsXsave = 1u << 27, kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr uint64_t kTileStates = 3u << 17;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0) return "the processor has no AMX";
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) {
    return "the processor has no AMX with BF16";
  }
  if (const char* why = WhyNoAvx512Vnni()) return why;  // for products of few rows
  if ((SavedStates() & kTileStates) != kTileStates) return "the operating system does not save AMX tiles";
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return "Linux refuses this process AMX tiles";
  return nullptr;
}

#else

const char* Probe() { return "AMX exists on x86-64 only"; }

#endif

}  // namespace

const char* WhyNoAmx() {
  static const char* const reason = Probe();
  return reason;
}

}  // namespace gptoss::cpu

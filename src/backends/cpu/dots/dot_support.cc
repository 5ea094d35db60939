#include "backends/cpu/dots/dot_support.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <cstdint>

namespace gptoss::cpu {
namespace {

#if defined(__x86_64__)

struct Leaf7 {
  uint32_t c = 0;           // ECX of subleaf 0
  uint32_t extended_a = 0;  // EAX of subleaf 1
};

Leaf7 ReadLeaf7() {
  Leaf7 leaf;
  uint32_t a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return leaf;
  leaf.c = c;
  const uint32_t subleaves = a;
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) leaf.extended_a = a;
  return leaf;
}

#endif

}  // namespace

const char* WhyNoAvxVnni() {
#if defined(__x86_64__)
  if ((ReadLeaf7().extended_a & 1u << 4) != 0) return nullptr;
#endif
  return "the processor has no AVX-VNNI";
}

const char* WhyNoAvx512Vnni() {
#if defined(__x86_64__)
  if ((ReadLeaf7().c & 1u << 11) != 0) return nullptr;
#endif
  return "the processor has no AVX-512 VNNI";
}

const char* WhyNoAvx512Bf16() {
  if (const char* why = WhyNoAvx512Vnni()) return why;
#if defined(__x86_64__)
  if ((ReadLeaf7().extended_a & 1u << 5) != 0) return nullptr;
#endif
  return "the processor has no AVX-512 BF16";
}

const char* WhyNoZen4() {
  if (const char* why = WhyNoAvx512Bf16()) return why;
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  if (__get_cpuid(0, &a, &b, &c, &d) != 0 && b == signature_AMD_ebx && c == signature_AMD_ecx &&
      d == signature_AMD_edx) {
    return nullptr;
  }
#endif
  return "the processor is not one of AMD's";
}

const char* WhyNoDotProduct() {
#if defined(__aarch64__) && defined(__APPLE__)
  return nullptr;  // in every processor that macOS runs on
#elif defined(__aarch64__) && defined(__linux__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) return nullptr;
#endif
  return "the processor has no dot products";
}

}  // namespace gptoss::cpu

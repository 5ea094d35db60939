// Which Highway targets this build has kernels for. Include before any Highway header.
//
// SSSE3 machines without SSE4 take the portable kernels; SVE and RVV need loops without fixed-size arrays of vectors,
// which the tile kernels use; AArch64 is served by NEON.
#pragma once

#define GPTOSS_CPU_UNUSED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE_256 | HWY_SVE2 | HWY_SVE2_128 | HWY_RVV)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GPTOSS_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GPTOSS_SANITIZED
#endif
#endif
#if defined(GPTOSS_SANITIZED)
// The sources are the same for every target: two of them show what the sanitizers can find.
#define HWY_DISABLED_TARGETS (GPTOSS_CPU_UNUSED_TARGETS | HWY_SSE4 | HWY_AVX3)
#else
#define HWY_DISABLED_TARGETS GPTOSS_CPU_UNUSED_TARGETS
#endif

// With run-time dispatch Highway compiles NEON for the optional cryptography extension, which machines such as the
// Raspberry Pi 4 lack and no kernel here uses. NEON itself is in every AArch64 machine: static dispatch serves them
// all.
#if defined(__aarch64__)
#define TOOLCHAIN_MISS_SYS_AUXV_H
#endif

#include "hwy/detect_targets.h"

/// Targets whose vectors are single values or emulated: they have the float kernels only.
#define GPTOSS_CPU_EMULATED_TARGETS (HWY_SCALAR | HWY_EMU128)

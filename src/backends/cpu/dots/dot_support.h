// Whether this machine has the instructions that sum products of bytes or of BF16.
#pragma once

namespace gptoss::cpu {

// Null when it has them, else the reason in a few words. Their registers are those of the target that they extend:
// what Highway finds out about AVX2 and AVX-512 holds for them, too.

const char* WhyNoAvxVnni();
const char* WhyNoAvx512Vnni();
const char* WhyNoAvx512Bf16();  // which asks for AVX-512 VNNI too
const char* WhyNoDotProduct();  // AArch64

/// Null on AMD's processors with both extensions of AVX-512, Zen 4 and later: they add 16-bit integers on four pipes
/// and multiply them on two.
const char* WhyNoZen4();

}  // namespace gptoss::cpu

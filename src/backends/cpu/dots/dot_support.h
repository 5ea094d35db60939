// Whether this machine has the instructions that sum four products of bytes.
#pragma once

namespace gptoss::cpu {

// Null when it has them, else the reason in a few words. Their registers are those of the target that they extend:
// what Highway finds out about AVX2 and AVX-512 holds for them, too.

const char* WhyNoAvxVnni();
const char* WhyNoAvx512Vnni();
const char* WhyNoDotProduct();  // AArch64

}  // namespace gptoss::cpu

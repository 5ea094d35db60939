// Whether this process can use AMX tiles with BF16 products.
#pragma once

namespace gptoss::cpu {

/// Null when it can, else the reason in a few words. Tile registers are 8 KB a thread that Linux saves only for
/// processes that asked for it: the first call asks (arch_prctl, ARCH_REQ_XCOMP_PERM), for all threads of the process.
const char* WhyNoAmx();

}  // namespace gptoss::cpu

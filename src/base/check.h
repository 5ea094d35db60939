// GPTOSS_CHECK stops the process when an invariant of our own code is broken. Never for input of any kind.
#pragma once

namespace gptoss {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}

#define GPTOSS_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::gptoss::CheckFailed(#condition, __FILE__, __LINE__))

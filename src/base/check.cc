#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace gptoss {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "gptoss: internal invariant broken: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace gptoss

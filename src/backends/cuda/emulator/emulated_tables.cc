// CUDA's tables for the tests of ops, with kernels that run in the emulator.
#include "backends/cuda/cuda_ops.h"
#include "backends/test_util.h"

namespace gptoss::testing_util {

std::vector<TableParam> AllTables() { return {{"cuda", Precision::kFast}, {"cuda", Precision::kExact}}; }

std::string WhyNotHere() { return ""; }

const Ops& TableOf(const TableParam& param) {
  return param.precision == Precision::kExact ? cuda::ExactOps() : cuda::FastOps();
}

}  // namespace gptoss::testing_util

// The CPU's tables for the tests of ops.
#include "backends/test_util.h"

namespace gptoss::testing_util {

/// Every target that this machine can run, in both precisions. Not the fast table of AMX, whose results depend on the
/// number of rows: amx_test.cc has its tests.
std::vector<TableParam> AllTables() {
  std::vector<TableParam> tables;
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) continue;
    if (target.name != "amx") tables.push_back({target.name, Precision::kFast});
    tables.push_back({target.name, Precision::kExact});
  }
  return tables;
}

std::string WhyNotHere() { return ""; }

const Ops& TableOf(const TableParam& param) { return **CpuOps(param.target, param.precision); }

}  // namespace gptoss::testing_util

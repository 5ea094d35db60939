// The CPU's tables for the tests of ops.
#include <algorithm>

#include "backends/test_util.h"

namespace gptoss::testing_util {

/// Every target that this machine can run, in both precisions. Not the fast table of AMX, whose results depend on the
/// number of rows: amx_test.cc has its tests. Targets may share a table.
std::vector<TableParam> AllTables() {
  std::vector<TableParam> tables;
  std::vector<const Ops*> seen;
  const auto add = [&](const CpuTarget& target, Precision precision) {
    const Ops* ops = *CpuOps(target.name, precision);
    if (std::find(seen.begin(), seen.end(), ops) != seen.end()) return;
    seen.push_back(ops);
    tables.push_back({target.name, precision});
  };
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) continue;
    if (target.name != "amx") add(target, Precision::kFast);
    add(target, Precision::kExact);
  }
  return tables;
}

std::string WhyNotHere() { return ""; }

const Ops& TableOf(const TableParam& param) { return **CpuOps(param.target, param.precision); }

}  // namespace gptoss::testing_util

// What the backend tests share: every available op table, random operands, and the one derivation of tolerances.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/q8.h"

namespace gptoss::testing_util {

struct TableParam {
  std::string target;
  Precision precision;
};

/// The tables that this test program is about: cpu_tables.cc, or those of another backend.
std::vector<TableParam> AllTables();
/// Empty, or why this machine cannot run them: then the tests are skipped with that line.
std::string WhyNotHere();
const Ops& TableOf(const TableParam& param);

inline std::string TableName(const testing::TestParamInfo<TableParam>& info) {
  return info.param.target + (info.param.precision == Precision::kExact ? "_exact" : "_fast");
}

/// A pool and scratch memory.
class OpsRunner {
 protected:
  std::vector<float> Linear(const Ops& table, const std::vector<float>& x, int64_t n, const WeightMatrix& w,
                            const float* bias) {
    std::vector<float> y(n * w.rows, -1.0f);
    table.linear(context_, {x.data(), n, w, bias, false, y.data()});
    return y;
  }
  ThreadPool pool_{2};
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
};

/// With the table under test.
class BackendTest : public testing::TestWithParam<TableParam>, protected OpsRunner {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNotHere(); !why.empty()) GTEST_SKIP() << why;
  }
  const Ops& ops() const { return TableOf(GetParam()); }
  bool fast() const { return GetParam().precision == Precision::kFast; }
};

/// Values in (-1, 1) with a few that are much larger, as activations have.
inline std::vector<float> RandomFloats(size_t count, uint64_t seed, float outlier = 20.0f) {
  const RandomStream random(seed, "backend-test");
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(random.Uniform(i) * 2.0 - 1.0) * (random.Word(i) % 97 == 0 ? outlier : 1.0f);
  }
  return values;
}

/// A matrix that owns its bytes.
struct OwnedMatrix {
  std::vector<uint8_t> data, scales;
  WeightMatrix view;
};

/// Random weights of `matrices` experts, stored in `dtype`.
inline OwnedMatrix RandomMatrix(DType dtype, int64_t matrices, int64_t rows, int64_t cols, uint64_t seed) {
  const size_t count = static_cast<size_t>(matrices * rows * cols);
  const std::vector<float> values = RandomFloats(count, seed, 4.0f);
  OwnedMatrix m;
  m.data.resize(RowBytes(dtype, count));
  m.scales.resize(RowScaleBytes(dtype, count));
  switch (dtype) {
    case DType::kF32:
      std::memcpy(m.data.data(), values.data(), m.data.size());
      break;
    case DType::kF16:
    case DType::kBF16: {
      auto* out = reinterpret_cast<uint16_t*>(m.data.data());
      std::transform(values.begin(), values.end(), out, dtype == DType::kF16 ? F32ToF16 : F32ToBf16);
      break;
    }
    case DType::kQ8_0:
      EncodeQ8(values, {reinterpret_cast<int8_t*>(m.data.data()), count},
               {reinterpret_cast<uint16_t*>(m.scales.data()), count / kBlockSize});
      break;
    default:
      EncodeMxfp4(values, m.data, m.scales);
  }
  m.view = {.dtype = dtype,
            .rows = rows,
            .cols = cols,
            .data = reinterpret_cast<const std::byte*>(m.data.data()),
            .scales = m.scales.empty() ? nullptr : reinterpret_cast<const std::byte*>(m.scales.data())};
  return m;
}

/// All values of the matrix, by the reference.
inline std::vector<float> Decoded(const WeightMatrix& w, int64_t matrices) {
  std::vector<int32_t> rows(matrices * w.rows);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  std::vector<float> values(rows.size() * w.cols);
  ThreadPool pool(1);
  ScratchArena scratch;
  ExecContext context{pool, scratch};
  ReferenceOps().embed_lookup(context, {w, rows, values.data()});
  return values;
}

/// How far a sum of `n` products w[i] x[i] may lie from another float sum of the same products.
///
/// Each of the two sums errs by at most n roundings of partial sums that are at most sum |w x|: n * 2^-24 * sum |w x|
/// each, whatever the order. `rounded_activations` adds half a step of the 16-bit activations: a block's largest
/// magnitude / 32639 / 2 for every weight (and the scales' own roundings, covered by the two extra terms of n).
inline float DotTolerance(const float* w, const float* x, int64_t n, bool rounded_activations) {
  float magnitude = 0.0f, rounding = 0.0f;
  for (int64_t block = 0; block < n; block += kBlockSize) {
    float largest = 0.0f, weights = 0.0f;
    for (int64_t i = block; i < std::min<int64_t>(block + kBlockSize, n); ++i) {
      magnitude += std::abs(w[i] * x[i]);
      weights += std::abs(w[i]);
      largest = std::max(largest, std::abs(x[i]));
    }
    rounding += weights * largest / 32639.0f / 2.0f;
  }
  return 2.0f * static_cast<float>(n + 2) * 0x1.0p-24f * magnitude + (rounded_activations ? rounding : 0.0f);
}

/// Weights for which the fast tables round activations.
inline bool RoundsActivations(DType dtype) { return dtype == DType::kMxfp4 || dtype == DType::kQ8_0; }

/// Routing with its own memory.
struct OwnedRouting {
  std::vector<int32_t> expert, offsets, token, row;
  std::vector<float> weight;
  Routing view;

  OwnedRouting(int64_t n, int experts, int k)
      : expert(n * k), offsets(experts + 1), token(n * k), row(n * k), weight(n * k), view{n,      experts, k,
                                                                                           expert, weight,  offsets,
                                                                                           token,  row} {}
  OwnedRouting(const OwnedRouting&) = delete;
};

}  // namespace gptoss::testing_util

// The forward pass that serves, as the training tests compare with it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/model_runner.h"

namespace gptoss {

/// |want - got| / |want|, 1 when the sizes differ.
inline double Relative(const std::vector<float>& want, const std::vector<float>& got) {
  if (got.size() != want.size()) return 1.0;
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(error / norm);
}

/// Logits of the whole sequence.
inline std::vector<float> ServedLogits(const GptOss& model, ThreadPool& pool, const std::vector<int32_t>& tokens) {
  RunnerOptions options;
  options.max_context = 256;
  options.kv_dtype = DType::kF32;
  auto runner = ModelRunner::Create(model, pool, options);
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  if (!runner.ok()) return {};
  auto sequence = (*runner)->NewSequence();
  sequence->Append(tokens);
  std::vector<float> logits;
  const Status status = (*runner)->Compute(*sequence, 0, [&](int, LogitRow& logit_row) {
    const std::span<float> row = *logit_row.OnHost();
    logits.insert(logits.end(), row.begin(), row.end());
    return Status();
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return logits;
}

}  // namespace gptoss

// Random models and adapters of which every part matters, for the tests of adapters.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "model/adapter.h"
#include "model/weights.h"
#include "training/export.h"

namespace gptoss {

inline AdapterOptions Options(std::vector<std::string> targets, int rank = 3) {
  auto options = CheckAdapter({.rank = rank, .alpha = 2.0 * rank, .targets = std::move(targets)});
  EXPECT_TRUE(options.ok()) << options.status().message();
  return *options;
}

/// A model whose every part matters: weights large enough that experts, attention and clamps all take part.
inline std::vector<float> LivelyParameters(const FlatLayout& layout, uint64_t seed) {
  std::vector<float> values(layout.size());
  for (const FlatTensor& tensor : layout.tensors()) {
    const RandomStream random(seed, tensor.spec.name);
    const bool norm = tensor.spec.name.ends_with("norm");
    for (size_t i = 0; i < tensor.count; ++i) {
      values[tensor.offset + i] = static_cast<float>((norm ? 1.0 : 0.0) + 0.6 * (random.Uniform(i) - 0.5));
    }
  }
  return values;
}

/// Both matrices of each pair different from zero, so that all gradients are.
inline std::vector<float> LivelyAdapter(const AdapterLayout& layout, uint64_t seed) {
  const RandomStream random(seed, "adapter");
  std::vector<float> values(layout.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(0.4 * (random.Uniform(i) - 0.5));
  return values;
}

/// Frozen weights as a loaded model holds them.
struct Base {
  std::shared_ptr<const Checkpoint> checkpoint;
  ModelWeights weights;
};

inline Base LoadBase(const FlatLayout& layout, const std::vector<float>& values, const std::string& path,
                     ThreadPool& pool) {
  WriteOptions write;
  write.allow_lossy = true;
  const Status written = WriteHf(*MakeFlatCheckpoint(layout, values, "base"), path, write);
  EXPECT_TRUE(written.ok()) << written.message();
  auto checkpoint = OpenCheckpoint(path);
  EXPECT_TRUE(checkpoint.ok());
  Base base{*std::move(checkpoint), {}};
  auto weights = LoadWeights(base.checkpoint, DensePrecision::kAsStored, pool);
  EXPECT_TRUE(weights.ok());
  base.weights = *std::move(weights);
  return base;
}

}  // namespace gptoss

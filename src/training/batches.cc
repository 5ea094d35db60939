#include "training/batches.h"

#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace gptoss {

TrainingBatch PackExamples(const std::vector<const Example*>& examples) {
  TrainingBatch batch;
  for (const Example* example : examples) {
    const int first = static_cast<int>(batch.rows()), count = static_cast<int>(example->tokens.size());
    batch.sequences.push_back({first, count, 0});
    batch.tokens.insert(batch.tokens.end(), example->tokens.begin(), example->tokens.end());
    for (int i = 0; i < count; ++i) {
      batch.positions.push_back(i);
      const auto next = static_cast<size_t>(i) + 1;
      if (next == example->tokens.size() || example->weights[next] == 0.0f) continue;
      batch.target_rows.push_back(first + i);
      batch.targets.push_back(example->tokens[next]);
      batch.weights.push_back(example->weights[next]);
    }
  }
  return batch;
}

BatchStream::BatchStream(const Dataset& dataset, int batch_tokens, uint64_t seed)
    : dataset_(dataset), batch_tokens_(batch_tokens), seed_(seed) {
  GPTOSS_CHECK(!dataset.examples.empty());
  Shuffle();
}

/// Fisher and Yates, with the words of a stream named after the epoch.
void BatchStream::Shuffle() {
  const RandomStream random(seed_, "epoch " + std::to_string(position_.epoch));
  order_.resize(dataset_.examples.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  for (size_t i = order_.size() - 1; i > 0; --i) {
    std::swap(order_[i], order_[static_cast<size_t>(random.Uniform(i) * static_cast<double>(i + 1))]);
  }
}

TrainingBatch BatchStream::Next() {
  std::vector<const Example*> chosen;
  size_t tokens = 0;
  const auto count = static_cast<int64_t>(order_.size());
  for (; position_.index < count; ++position_.index) {
    const Example& example = dataset_.examples[order_[static_cast<size_t>(position_.index)]];
    tokens += example.tokens.size();
    if (!chosen.empty() && tokens > static_cast<size_t>(batch_tokens_)) break;
    chosen.push_back(&example);
  }
  if (position_.index == count) {
    position_ = {position_.epoch + 1, 0};
    Shuffle();
  }
  return PackExamples(chosen);
}

Status BatchStream::Seek(const DataPosition& position) {
  if (position.epoch < 0 || position.index < 0 || position.index >= static_cast<int64_t>(order_.size())) {
    return InvalidArgument("position " + std::to_string(position.index) + " of epoch " +
                           std::to_string(position.epoch) + " is outside data of " + std::to_string(order_.size()) +
                           " conversations");
  }
  position_ = position;
  Shuffle();
  return Status();
}

}  // namespace gptoss

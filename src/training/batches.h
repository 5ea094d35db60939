// Which conversations a pass trains on: the order of an epoch depends only on the seed and the epoch's number, so a
// position in the data is two numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "model/gpt_oss_backward.h"
#include "training/dataset.h"

namespace gptoss {

struct DataPosition {
  int64_t epoch = 0;
  int64_t index = 0;  // of the next conversation in the epoch's order
  bool operator==(const DataPosition&) const = default;
};

/// One batch of these whole conversations, each from position 0. The first token of each has nothing before it, so it
/// is no target.
TrainingBatch PackExamples(const std::vector<const Example*>& examples);

class BatchStream {
 public:
  /// `dataset` must not be empty and must outlive the stream.
  BatchStream(const Dataset& dataset, int batch_tokens, uint64_t seed);

  /// The next conversations, as many as fit into batch_tokens together, at least one. A batch ends with its epoch.
  TrainingBatch Next();

  const DataPosition& position() const { return position_; }
  /// On failure: kInvalidArgument when the data has no such position.
  Status Seek(const DataPosition& position);

 private:
  void Shuffle();

  const Dataset& dataset_;
  int batch_tokens_;
  uint64_t seed_;
  DataPosition position_;
  std::vector<size_t> order_;  // of position_.epoch
};

}  // namespace gptoss

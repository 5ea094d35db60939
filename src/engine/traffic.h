// How many bytes and operations a forward pass must move and do: the yardsticks that speeds are quoted against.
#pragma once

#include <cstdint>

#include "model/weights.h"

namespace gptoss {

struct Traffic {
  double weight_bytes = 0;  // weights that the step must read, each once
  double kv_bytes = 0;      // keys and values that it must read
  double flop = 0;          // multiplications and additions
  double bytes() const { return weight_bytes + kv_bytes; }
};

/// One decode step of `batch` sequences, each at `context` positions. With several sequences the number of distinct
/// experts is its expectation under uniform routing: E (1 - (1 - k/E)^batch).
Traffic DecodeTraffic(const ModelWeights& weights, int batch, int context, DType kv_dtype);

/// Operations of a prefill of `tokens` from an empty cache, with logits of the last position only.
double PrefillFlop(const ModelConfig& config, int tokens);

}  // namespace gptoss

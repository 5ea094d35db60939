#include "model_card.h"

#include <string>

namespace gptoss::cli {

server::ModelCard ModelCardOf(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  server::ModelCard card;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const uint64_t cols = tensor.spec.cols();
    card.parameters += tensor.spec.rows() * cols;
    card.bytes += tensor.spec.rows() * (RowBytes(tensor.dtype, cols) + RowScaleBytes(tensor.dtype, cols));
  }
  card.layers = config.num_layers;
  card.experts = config.num_experts;
  card.active_experts = config.experts_per_token;
  card.hidden = config.hidden_size;
  card.heads = config.num_heads;
  card.kv_heads = config.num_kv_heads;
  card.context = config.max_context;
  card.vocabulary = config.vocab_size;
  card.format = CheckpointFormatName(checkpoint.format());
  card.quantization = "MXFP4";  // of the experts, in every form of these models
  return card;
}

}  // namespace gptoss::cli

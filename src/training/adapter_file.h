// Adapters on disk: a directory with adapter_config.json (rank, alpha, targets, the model's shape) and
// adapter_model.safetensors, float, with the names that Hugging Face's PEFT gives to adapters of this architecture:
//   base_model.model.model.layers.N.self_attn.{q,k,v,o}_proj.lora_{A,B}.weight
//   base_model.model.model.layers.N.mlp.router.lora_{A,B}.weight
//   base_model.model.model.layers.N.mlp.experts.{gate_up,down}_proj.lora_{A,B}.weight
//   base_model.model.lm_head.lora_{A,B}.weight
// A is [rank, inputs], B [outputs, rank]; those of experts have the expert as first axis, and gate and up rows
// interleaved as everywhere here (this part is our own: PEFT has no form for experts that are one tensor).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/adapter.h"
#include "training/export.h"

namespace gptoss {

struct Adapter {
  AdapterLayout layout;
  std::vector<float> values;  // [layout.size()]
};

/// Makes the directory `path`, which must not exist. On failure: kInvalidArgument, kIo, kResourceExhausted.
Status SaveAdapter(const AdapterLayout& layout, std::span<const float> values, const std::string& path);

/// On failure: kNotFound, kIo or kCorruptData naming file and tensor; kInvalidArgument when the adapter is of a model
/// of another shape than `config`.
Result<Adapter> LoadAdapter(const std::string& path, const ModelConfig& config);

/// The checkpoint with the adapter added to its weights, computed as they are read: adapted matrices are float, experts
/// among them what `experts` says (training/export.h). `base` must be what the adapter was trained on.
std::unique_ptr<Checkpoint> MergeAdapter(std::shared_ptr<const Checkpoint> base, Adapter adapter,
                                         ExpertForm experts = ExpertForm::kMxfp4);

}  // namespace gptoss

// Trained weights as a checkpoint, so that the writers of checkpoint/ can put them into any public form, and what
// rounding to that form costs.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/flat_parameters.h"

namespace gptoss {

enum class ExpertForm : uint8_t { kMxfp4, kBf16 };

/// Experts in MXFP4, encoded as they are read, or in float, to be written as BF16 (WriteOptions::bf16_experts); all
/// else in float. `values` [layout.size()], all finite, must outlive the checkpoint. Writing it needs allow_lossy
/// unless the form holds float.
std::unique_ptr<Checkpoint> MakeFlatCheckpoint(const FlatLayout& layout, std::span<const float> values,
                                               std::string description, ExpertForm experts = ExpertForm::kMxfp4);

/// Of one kind of tensor: sqrt(sum of squared errors / sum of squared values), and the largest error.
struct RoundingError {
  double relative_rms = 0;
  double largest = 0;
};

/// Copies `values` to `rounded`, experts as nearest MXFP4. On failure: kInvalidArgument naming an expert tensor with a
/// value that is not finite.
Status RoundExperts(const FlatLayout& layout, std::span<const float> values, std::span<float> rounded);

struct Rounding {
  std::vector<float> values;  // [layout.size()] as the exported checkpoint holds them
  RoundingError experts;      // by their form
  RoundingError others;       // by BF16
};

/// What the Hugging Face and "original" forms keep of the weights: experts in their form, all else in BF16. On failure:
/// kInvalidArgument naming a tensor with a value that is not finite.
Result<Rounding> RoundAsExported(const FlatLayout& layout, std::span<const float> values,
                                 ExpertForm experts = ExpertForm::kMxfp4);

}  // namespace gptoss

#include "training/export.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"

namespace gptoss {
namespace {

class FlatCheckpoint final : public Checkpoint {
 public:
  FlatCheckpoint(const FlatLayout& layout, std::span<const float> values, std::string description, ExpertForm experts)
      : values_(values), description_(std::move(description)) {
    config_ = layout.config();
    for (const FlatTensor& tensor : layout.tensors()) {
      const bool encoded = tensor.spec.is_expert_weight && experts == ExpertForm::kMxfp4;
      tensors_.push_back({tensor.spec, encoded ? DType::kMxfp4 : DType::kF32});
      offsets_.push_back(tensor.offset);
    }
  }

  /// As generated weights, these belong to no file.
  CheckpointFormat format() const override { return CheckpointFormat::kSynthetic; }
  Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                  std::span<std::byte> scales) const override {
    GPTOSS_ASSIGN_OR_RETURN(const size_t index, CheckRead(tensor, first, count, data, scales));
    const uint64_t cols = tensors_[index].spec.cols();
    const std::span<const float> from = values_.subspan(offsets_[index] + first * cols, count * cols);
    if (tensors_[index].dtype == DType::kF32) {
      std::memcpy(data.data(), from.data(), data.size());
      return Status();
    }
    std::vector<uint8_t> codes(from.size() / 2), exponents(from.size() / kBlockSize);
    EncodeMxfp4(from, codes, exponents);
    if (!data.empty()) std::memcpy(data.data(), codes.data(), data.size());
    if (!scales.empty()) std::memcpy(scales.data(), exponents.data(), scales.size());
    return Status();
  }
  std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor&) const override { return std::nullopt; }
  std::string Describe() const override { return description_; }

 private:
  std::span<const float> values_;
  std::vector<size_t> offsets_;  // parallel to tensors_
  std::string description_;
};

/// Sums over tensors of one kind.
struct ErrorSums {
  double errors = 0, values = 0, largest = 0;

  void Add(std::span<const float> exact, std::span<const float> rounded) {
    for (size_t i = 0; i < exact.size(); ++i) {
      const double value = static_cast<double>(exact[i]), error = value - static_cast<double>(rounded[i]);
      errors += error * error;
      values += value * value;
      largest = std::max(largest, std::abs(error));
    }
  }
  RoundingError Result() const { return {values > 0 ? std::sqrt(errors / values) : 0.0, largest}; }
};

Status CheckFinite(const FlatTensor& tensor, std::span<const float> values) {
  if (std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) return Status();
  return InvalidArgument("tensor \"" + tensor.spec.name + "\" has values that are not finite; they cannot be rounded");
}

void RoundToMxfp4(std::span<const float> from, std::span<float> to) {
  std::vector<uint8_t> codes(from.size() / 2), scales(from.size() / kBlockSize);
  EncodeMxfp4(from, codes, scales);
  DecodeMxfp4(codes, scales, to);
}

}  // namespace

Status RoundExperts(const FlatLayout& layout, std::span<const float> values, std::span<float> rounded) {
  std::copy(values.begin(), values.end(), rounded.begin());
  for (const FlatTensor& tensor : layout.tensors()) {
    if (!tensor.spec.is_expert_weight) continue;
    const std::span<const float> from = values.subspan(tensor.offset, tensor.count);
    GPTOSS_RETURN_IF_ERROR(CheckFinite(tensor, from));
    RoundToMxfp4(from, rounded.subspan(tensor.offset, tensor.count));
  }
  return Status();
}

std::unique_ptr<Checkpoint> MakeFlatCheckpoint(const FlatLayout& layout, std::span<const float> values,
                                               std::string description, ExpertForm experts) {
  return std::make_unique<FlatCheckpoint>(layout, values, std::move(description), experts);
}

Result<Rounding> RoundAsExported(const FlatLayout& layout, std::span<const float> values, ExpertForm experts) {
  Rounding rounding;
  rounding.values.resize(values.size());
  ErrorSums of_experts, of_others;
  for (const FlatTensor& tensor : layout.tensors()) {
    const std::span<const float> from = values.subspan(tensor.offset, tensor.count);
    const std::span<float> to = std::span(rounding.values).subspan(tensor.offset, tensor.count);
    GPTOSS_RETURN_IF_ERROR(CheckFinite(tensor, from));
    if (tensor.spec.is_expert_weight && experts == ExpertForm::kMxfp4) {
      RoundToMxfp4(from, to);
    } else {
      std::transform(from.begin(), from.end(), to.begin(), [](float v) { return Bf16ToF32(F32ToBf16(v)); });
    }
    (tensor.spec.is_expert_weight ? of_experts : of_others).Add(from, to);
  }
  rounding.experts = of_experts.Result();
  rounding.others = of_others.Result();
  return rounding;
}

}  // namespace gptoss

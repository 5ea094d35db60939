// Random weights of realistic scales. Every value is a function of (seed, canonical tensor name, element index): rows
// can be read in any order, by any number of threads, and no math library takes part, so that all machines agree.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/row_convert.h"
#include "tensor/float_convert.h"

namespace gptoss {
namespace {

/// Normally distributed BF16 values, one of 4096 for 12 random bits: a lookup is several times as fast as any formula,
/// and 8 KB stay in the first-level cache.
using ValueTable = std::array<uint16_t, 4096>;
using QuantileTable = std::array<double, 4096>;

/// The middles of 4096 equal shares of the standard normal distribution. Its quantile x(p) obeys dx/dp = y, dy/dp = x
/// y^2 with y = 1 / density, which is integrated from the median outwards (RK4), so that only + and * are needed.
QuantileTable NormalQuantiles() {
  constexpr int kHalf = 2048, kSteps = 16;  // RK4 steps a share
  constexpr double h = 1.0 / (4096 * kSteps);
  QuantileTable table{};
  double x = 0.0, y = 2.5066282746310002;  // sqrt(2 pi)
  for (int i = 0; i < kHalf; ++i) {
    for (int step = 0; step < kSteps; ++step) {
      if (step == kSteps / 2) {
        table[static_cast<size_t>(kHalf + i)] = x;
        table[static_cast<size_t>(kHalf - 1 - i)] = -x;
        if (i + 1 == kHalf) break;  // the last share ends at infinity
      }
      const double x1 = y, y1 = x * y * y;
      const double xa = x + h / 2 * x1, ya = y + h / 2 * y1;
      const double x2 = ya, y2 = xa * ya * ya;
      const double xb = x + h / 2 * x2, yb = y + h / 2 * y2;
      const double x3 = yb, y3 = xb * yb * yb;
      const double xc = x + h * x3, yc = y + h * y3;
      const double x4 = yc, y4 = xc * yc * yc;
      x += h / 6 * (x1 + 2 * x2 + 2 * x3 + x4);
      y += h / 6 * (y1 + 2 * y2 + 2 * y3 + y4);
    }
  }
  return table;
}

struct Moments {
  double mean = 0.0;
  double deviation = 1.0;
  auto operator<=>(const Moments&) const = default;
};

/// Chosen so that activations stay of order one at any width and depth: weights fall with the square root of their
/// inputs; query, key and router logits spread by about one or two, output logits by about three.
Moments MomentsOf(std::string_view name, const ModelConfig& c) {
  const auto by_inputs = [](double gain, int inputs) { return Moments{0.0, gain / std::sqrt(inputs)}; };
  if (name == "embedding") return {0.0, 1.0};
  if (name == "unembedding") return by_inputs(3.0, c.hidden_size);
  if (name.ends_with("norm")) return {1.0, 0.1};
  if (name.ends_with("sinks")) return {1.0, 1.0};
  if (name.ends_with("out.weight")) return by_inputs(1.4, c.q_size());
  if (name.ends_with("out.bias") || name.ends_with("down.bias")) return {0.0, 0.05};
  if (name.ends_with("router.weight")) return by_inputs(2.0, c.hidden_size);
  if (name.ends_with("router.bias")) return {0.0, 0.3};
  if (name.ends_with(".bias")) return {0.0, 0.2};
  return by_inputs(1.1, c.hidden_size);  // q, k and v
}

/// The E8M0 exponent with which uniformly random codes give weights of about `gain` / sqrt(inputs).
int BaseScale(double gain, int inputs) {
  // 2.93 is the root mean square of the 16 codes' values, 0.775 that of the scale offsets below.
  double target = gain / (2.93 * 0.775 * std::sqrt(inputs));
  int exponent = 0;
  for (; target < 0.7071; target *= 2.0) --exponent;
  return 127 + exponent;
}

class SyntheticCheckpoint final : public Checkpoint {
 public:
  explicit SyntheticCheckpoint(const SynthOptions& options);

  CheckpointFormat format() const override { return CheckpointFormat::kSynthetic; }
  Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                  std::span<std::byte> scales) const override;
  std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor&) const override { return std::nullopt; }
  std::string Describe() const override { return description_; }

 private:
  struct Source {
    RandomStream values;
    RandomStream scales;
    const ValueTable* table = nullptr;  // null for MXFP4
    int base_scale = 0;
  };

  void FillBf16(const Source& source, uint64_t first_element, std::span<std::byte> out) const;
  void FillCodes(const Source& source, uint64_t first_byte, std::span<std::byte> out) const;
  void FillScales(const Source& source, uint64_t first_scale, std::span<std::byte> out) const;

  std::string description_;
  std::vector<Source> sources_;           // parallel to tensors_
  std::map<Moments, ValueTable> tables_;  // stable addresses
};

SyntheticCheckpoint::SyntheticCheckpoint(const SynthOptions& options)
    : description_("synthetic " + options.shape_name + ", seed " + std::to_string(options.seed)) {
  config_ = options.config;
  const QuantileTable quantiles = NormalQuantiles();
  for (TensorSpec& spec : CanonicalTensors(config_)) {
    Source source{RandomStream(options.seed, spec.name), RandomStream(options.seed, spec.name + ".scales")};
    DType dtype = DType::kBF16;
    if (spec.is_expert_weight) {
      dtype = DType::kMxfp4;
      source.base_scale = spec.name.ends_with("gate_up.weight") ? BaseScale(2.0, config_.hidden_size)
                                                                : BaseScale(0.3, config_.intermediate_size);
    } else {
      const Moments moments = MomentsOf(spec.name, config_);
      const auto [at, inserted] = tables_.try_emplace(moments);
      if (inserted) {
        for (size_t i = 0; i < quantiles.size(); ++i) {
          at->second[i] = F32ToBf16(static_cast<float>(moments.mean + moments.deviation * quantiles[i]));
        }
      }
      source.table = &at->second;
      if (IsDenseMatrix(spec)) dtype = options.dense;
    }
    sources_.push_back(source);
    tensors_.push_back({std::move(spec), dtype});
  }
}

/// Four values for each random word. `first_element` is a multiple of 4: rows are, and vectors have one row.
void SyntheticCheckpoint::FillBf16(const Source& source, uint64_t first_element, std::span<std::byte> out) const {
  const ValueTable& table = *source.table;
  const uint64_t count = out.size() / 2, first_word = first_element / 4;
  for (uint64_t i = 0; i < count; i += 4) {
    const uint64_t word = source.values.Word(first_word + i / 4);
    const uint16_t values[4] = {table[word & 0xFFF], table[word >> 16 & 0xFFF], table[word >> 32 & 0xFFF],
                                table[word >> 48 & 0xFFF]};
    std::memcpy(out.data() + 2 * i, values, 2 * std::min<uint64_t>(4, count - i));
  }
}

/// Rows of codes are whole words: a block of 32 values is two of them.
void SyntheticCheckpoint::FillCodes(const Source& source, uint64_t first_byte, std::span<std::byte> out) const {
  for (uint64_t i = 0; i < out.size(); i += 8) {
    const uint64_t word = source.values.Word((first_byte + i) / 8);
    std::memcpy(out.data() + i, &word, 8);
  }
}

void SyntheticCheckpoint::FillScales(const Source& source, uint64_t first_scale, std::span<std::byte> out) const {
  static constexpr std::array<uint8_t, 8> kBelowBase = {0, 0, 0, 0, 1, 1, 1, 2};
  uint64_t word = 0;
  for (uint64_t i = 0; i < out.size(); ++i) {
    const uint64_t at = first_scale + i;
    if (i == 0 || at % 8 == 0) word = source.scales.Word(at / 8);
    const uint64_t below = kBelowBase[word >> (8 * (at % 8)) & 7];
    out[i] = static_cast<std::byte>(static_cast<uint64_t>(source.base_scale) - below);
  }
}

Status SyntheticCheckpoint::ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count,
                                     std::span<std::byte> data, std::span<std::byte> scales) const {
  GPTOSS_ASSIGN_OR_RETURN(const size_t index, CheckRead(tensor, first, count, data, scales));
  const StoredTensor& own = tensors_[index];
  const Source& source = sources_[index];
  const uint64_t cols = own.spec.cols();
  if (own.dtype == DType::kMxfp4) {
    FillCodes(source, first * cols / 2, data);
    FillScales(source, first * cols / kBlockSize, scales);
    return Status();
  }
  if (own.dtype == DType::kBF16) {
    FillBf16(source, first * cols, data);
    return Status();
  }
  // Any other type is made from the BF16 values, exactly as a writer would convert them.
  std::vector<std::byte> bf16(cols * 2);
  RowConverter convert(DType::kBF16, own.dtype, cols, /*allow_lossy=*/true);
  for (uint64_t r = 0; r < count; ++r) {
    FillBf16(source, (first + r) * cols, bf16);
    const auto part = [&](std::span<std::byte> whole, uint64_t row_bytes) {
      return whole.empty() ? whole : whole.subspan(r * row_bytes, row_bytes);
    };
    GPTOSS_RETURN_IF_ERROR(
        convert.Row(bf16, {}, part(data, RowBytes(own.dtype, cols)), part(scales, RowScaleBytes(own.dtype, cols))));
  }
  return Status();
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> MakeSyntheticCheckpoint(const SynthOptions& options) {
  GPTOSS_RETURN_IF_ERROR(ValidateConfig(options.config));
  if (options.dense == DType::kMxfp4 || options.dense == DType::kU8) {
    return Unsupported("dense matrices can be BF16, F16, F32 or Q8_0, not " + std::string(DTypeName(options.dense)));
  }
  return std::unique_ptr<Checkpoint>(std::make_unique<SyntheticCheckpoint>(options));
}

}  // namespace gptoss

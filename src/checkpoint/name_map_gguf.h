// Names of tensors and metadata in GGUF files of architecture `gpt-oss`, as llama.cpp writes and reads them.
// Source: LLM_ARCH_OPENAI_MOE in llama-arch.cpp, and the conversion script, of github.com/ggml-org/llama.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "checkpoint/gguf.h"
#include "checkpoint/model_config.h"

namespace gptoss {

inline constexpr char kGgufArchitecture[] = "gpt-oss";

/// Where one canonical tensor lies. gate_up is two tensors there: `name` holds the gate's rows (or bias elements),
/// `up_name` those of up; canonically they alternate.
struct GgufLayoutTensor {
  std::string name;
  std::string up_name;          // empty for all others
  std::vector<uint64_t> shape;  // of `name`, and of `up_name`
};

/// One element for each of CanonicalTensors(config), in that order.
std::vector<GgufLayoutTensor> GgufLayout(const ModelConfig& config);

/// The configuration that the metadata and the embedding's shape state.
/// On failure: kUnsupported for another architecture, kCorruptData naming the key.
Result<ModelConfig> ParseGgufConfig(const GgufHeader& header);

}  // namespace gptoss

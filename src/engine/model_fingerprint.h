// A number that tells models apart, for what is stored of them.
#pragma once

#include <cstdint>

#include "model/gpt_oss.h"

namespace gptoss {

/// Of the shapes, the element types, the kernels, the type of the cache, samples of every weight matrix, and all of the
/// adapters. Equal for the same model file on the same machine; different for models that were trained apart, however
/// little.
uint64_t ModelFingerprint(const GptOss& model, DType kv_dtype);

}  // namespace gptoss

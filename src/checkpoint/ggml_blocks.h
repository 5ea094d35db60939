// The block formats as GGUF files hold them, and their canonical counterparts (tensor/mxfp4.h, tensor/q8.h).
//   Q8_0: 34 bytes a block: a binary16 scale, then 32 int8.
//   MXFP4: 17 bytes a block: an E8M0 scale, then 16 bytes whose low nibbles are values 0..15, high nibbles 16..31.
// Source: the block structures of ggml-common.h and the type table of gguf.md in github.com/ggml-org/ggml.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace gptoss {

/// The element type of a GGUF type id, or nullopt for types that gpt-oss files read here do not have.
std::optional<DType> DTypeOfGgml(uint32_t type_id);
uint32_t GgmlTypeOf(DType dtype);
/// "Q4_K (12)", for messages.
std::string GgmlTypeText(uint32_t type_id);

/// Bytes of a row of `cols` values in the file. For the block formats cols must be a multiple of 32.
uint64_t GgmlRowBytes(DType dtype, uint64_t cols);

/// Blocks of a file to canonical data and scales; either may be empty to skip it. Plain types are copied.
void UnpackGgml(DType dtype, std::span<const std::byte> blocks, std::span<std::byte> data, std::span<std::byte> scales);
/// The inverse. `scales` is empty for plain types.
void PackGgml(DType dtype, std::span<const std::byte> data, std::span<const std::byte> scales,
              std::span<std::byte> blocks);

}  // namespace gptoss

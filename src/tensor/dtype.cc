#include "tensor/dtype.h"

namespace gptoss {

std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kU8:
      return "U8";
    case DType::kMxfp4:
      return "MXFP4";
    case DType::kQ8_0:
      return "Q8_0";
  }
  return "?";
}

}  // namespace gptoss

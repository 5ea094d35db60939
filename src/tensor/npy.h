// NumPy's .npy files, format version 1.0, C order, little endian: float32 out; float32, float64, int32 and uint8 in.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace gptoss {

struct NpyArray {
  std::string dtype;  // "<f4", "<f8", "<i4" or "|u1"
  std::vector<uint64_t> shape;
  std::vector<uint8_t> bytes;

  template <typename T>
  std::span<const T> As() const {
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
};

/// On failure: kNotFound, kIo, or kCorruptData naming the file.
Result<NpyArray> ReadNpy(const std::string& path);

/// Writes a float32 array [rows, cols] row by row, so that logits of long sequences need no second copy.
class NpyWriter {
 public:
  /// Creates `path` with the header for [rows, cols]. On failure: kIo naming the path.
  static Result<NpyWriter> Create(const std::string& path, uint64_t rows, uint64_t cols);
  Status Append(std::span<const float> values);
  /// Flushes and closes. On failure: kIo; kInvalidArgument when fewer or more values came than announced.
  Status Finish();

 private:
  struct Closer {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Closer> file_;
  uint64_t remaining_ = 0;
};

}  // namespace gptoss

// Helpers of this folder's tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace gptoss {

inline const std::string kMicro = GPTOSS_TEST_DATA "/golden/micro/checkpoint/";

/// A directory of its own for one test, removed afterwards.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gptoss_ckpt_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data()) == nullptr ? "." : pattern;
  }
  TempDir(const TempDir&) = delete;
  ~TempDir() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(out.good()) << path;
}

inline std::unique_ptr<Checkpoint> MustOpen(const std::string& path) {
  Result<std::unique_ptr<Checkpoint>> checkpoint = OpenCheckpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

/// Codes or values, then scales, of rows [first, first + count).
inline std::vector<std::byte> RowBytesOf(const Checkpoint& checkpoint, const StoredTensor& tensor, uint64_t first,
                                         uint64_t count) {
  const uint64_t cols = tensor.spec.cols();
  std::vector<std::byte> data(count * RowBytes(tensor.dtype, cols)), scales(count * RowScaleBytes(tensor.dtype, cols));
  const Status status = checkpoint.ReadRows(tensor, first, count, data, scales);
  EXPECT_TRUE(status.ok()) << status.message();
  data.insert(data.end(), scales.begin(), scales.end());
  return data;
}

inline std::vector<std::byte> AllBytes(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  return RowBytesOf(checkpoint, tensor, 0, tensor.spec.rows());
}

/// Same configuration, tensors, types and bytes.
inline void ExpectSameContents(const Checkpoint& a, const Checkpoint& b) {
  EXPECT_EQ(a.config(), b.config());
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const StoredTensor &x = a.tensors()[i], &y = b.tensors()[i];
    ASSERT_EQ(x.spec.name, y.spec.name);
    ASSERT_EQ(x.spec.shape, y.spec.shape);
    ASSERT_EQ(x.dtype, y.dtype) << x.spec.name;
    EXPECT_EQ(AllBytes(a, x), AllBytes(b, y)) << x.spec.name;
  }
}

inline SynthOptions MicroOptions() {
  SynthOptions options;
  options.config = *NamedConfig("micro");
  options.seed = 7;
  return options;
}

inline std::unique_ptr<Checkpoint> Synthetic(const SynthOptions& options) {
  Result<std::unique_ptr<Checkpoint>> checkpoint = MakeSyntheticCheckpoint(options);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

}  // namespace gptoss

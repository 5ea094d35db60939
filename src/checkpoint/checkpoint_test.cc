#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "base/mmap_file.h"
#include "checkpoint/name_map.h"
#include "json/json.h"

namespace gptoss {
namespace {

const std::string kMicro = GPTOSS_TEST_DATA "/golden/micro/checkpoint/";

std::unique_ptr<Checkpoint> MustOpen(const std::string& path) {
  Result<std::unique_ptr<Checkpoint>> checkpoint = OpenCheckpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

/// Codes or values, then scales, of the whole tensor.
std::vector<std::byte> AllBytes(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  const uint64_t rows = tensor.spec.rows(), cols = tensor.spec.cols();
  std::vector<std::byte> data(rows * RowBytes(tensor.dtype, cols)), scales(rows * RowScaleBytes(tensor.dtype, cols));
  const Status status = checkpoint.ReadRows(tensor, 0, rows, data, scales);
  EXPECT_TRUE(status.ok()) << status.message();
  data.insert(data.end(), scales.begin(), scales.end());
  return data;
}

TEST(TensorSpec, CountsAreThoseOfThePublishedFiles) {
  const Result<ModelConfig> config = NamedConfig("20b");
  ASSERT_TRUE(config.ok());
  size_t hf = 0, original = 0;
  for (const LayoutTensor& t : HfLayout(*config)) hf += t.scales_name.empty() ? 1 : 2;
  std::set<std::string> names;
  for (const LayoutTensor& t : OriginalLayout(*config)) {
    names.insert(t.name);
    if (!t.scales_name.empty()) names.insert(t.scales_name);
  }
  original = names.size();
  EXPECT_EQ(hf, 459u);
  EXPECT_EQ(original, 363u);
}

TEST(Checkpoint, BothGoldenLayoutsHoldTheSameBytes) {
  const auto hf = MustOpen(kMicro + "hf"), original = MustOpen(kMicro + "original");
  ASSERT_TRUE(hf && original);
  EXPECT_EQ(hf->format(), CheckpointFormat::kHf);
  EXPECT_EQ(original->format(), CheckpointFormat::kOriginal);
  EXPECT_EQ(hf->config(), original->config());
  EXPECT_EQ(hf->TotalBytes(), 2516352u);  // "total_size" of the index
  ASSERT_EQ(hf->tensors().size(), original->tensors().size());
  for (size_t i = 0; i < hf->tensors().size(); ++i) {
    const StoredTensor &a = hf->tensors()[i], &b = original->tensors()[i];
    ASSERT_EQ(a.spec.name, b.spec.name);
    ASSERT_EQ(a.dtype, b.dtype);
    EXPECT_EQ(AllBytes(*hf, a), AllBytes(*original, b)) << a.spec.name;
  }
}

}  // namespace
}  // namespace gptoss

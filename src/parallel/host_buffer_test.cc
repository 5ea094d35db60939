#include "parallel/host_buffer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace gptoss {
namespace {

size_t ResidentPages(const HostBuffer& buffer) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident((buffer.size() + page - 1) / page);
  EXPECT_EQ(mincore(const_cast<std::byte*>(buffer.data()), buffer.size(), resident.data()), 0);
  size_t pages = 0;
  for (unsigned char r : resident) pages += r & 1;
  return pages;
}

TEST(HostBuffer, IsZeroFilledAndCommittedLazily) {
  Result<HostBuffer> buffer = HostBuffer::Allocate(size_t{1} << 34);
  ASSERT_TRUE(buffer.ok()) << buffer.status().message();
  ASSERT_EQ(buffer->size(), size_t{1} << 34);
  EXPECT_EQ(ResidentPages(*buffer), 0u);
  buffer->data()[(size_t{1} << 33) + 5] = std::byte{1};
  EXPECT_EQ(buffer->data()[(size_t{1} << 33) + 6], std::byte{0});
  EXPECT_LE(ResidentPages(*buffer), 1024u);  // at most one or two huge pages
}

TEST(HostBuffer, CommitMakesEveryPageResidentAndKeepsContents) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  Result<HostBuffer> buffer = HostBuffer::Allocate(100 * page + 1);
  ASSERT_TRUE(buffer.ok());
  buffer->data()[50 * page] = std::byte{7};
  ASSERT_TRUE(buffer->Commit().ok());
  EXPECT_EQ(ResidentPages(*buffer), 101u);
  EXPECT_EQ(buffer->data()[50 * page], std::byte{7});
  EXPECT_EQ(buffer->data()[99 * page], std::byte{0});
  EXPECT_TRUE(HostBuffer().Commit().ok());
}

TEST(HostBuffer, ReleaseGivesPagesBackAndKeepsPartialOnes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  Result<HostBuffer> buffer = HostBuffer::Allocate(8 * page);
  ASSERT_TRUE(buffer.ok());
  for (size_t i = 0; i < buffer->size(); ++i) buffer->data()[i] = std::byte{7};
  buffer->Release(page / 2, 3 * page);  // whole pages inside: 1 and 2
  EXPECT_EQ(buffer->data()[page - 1], std::byte{7});
  EXPECT_EQ(buffer->data()[page], std::byte{0});
  EXPECT_EQ(buffer->data()[3 * page - 1], std::byte{0});
  EXPECT_EQ(buffer->data()[3 * page], std::byte{7});
}

TEST(HostBuffer, MovesAndFailsWithAMessage) {
  EXPECT_EQ((*HostBuffer::Allocate(0)).data(), nullptr);
  Result<HostBuffer> a = HostBuffer::Allocate(100);
  ASSERT_TRUE(a.ok());
  std::byte* data = a->data();
  HostBuffer b = *std::move(a);
  EXPECT_EQ(b.data(), data);
  b = HostBuffer();
  EXPECT_EQ(b.size(), 0u);
  const Result<HostBuffer> huge = HostBuffer::Allocate(std::numeric_limits<size_t>::max() / 2);
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(huge.status().message().find("bytes"), std::string::npos);
}

}  // namespace
}  // namespace gptoss

#include "engine/prefix_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/mmap_file.h"
#include "base/rng.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<int32_t>;

constexpr int kBlock = 4, kWindow = 10;
constexpr size_t kFullBytes = 96, kSlidingBytes = 64;

/// What a block of a sequence would hold: bytes that depend on all tokens up to its last.
std::string BlockContents(const Tokens& tokens, KvGroup group, int entry) {
  uint64_t hash = static_cast<uint64_t>(group);
  const size_t end = std::min(tokens.size(), static_cast<size_t>(entry + 1) * kBlock);
  for (size_t i = 0; i < end; ++i) hash = Mix64(hash * 31 + static_cast<uint64_t>(tokens[i]) + 1);
  std::string bytes;
  for (size_t i = 0; i < (group == KvGroup::kFull ? kFullBytes : kSlidingBytes); ++i) {
    bytes += static_cast<char>(Mix64(hash + i));
  }
  return bytes;
}

Tokens Counting(int n, int from = 0) {
  Tokens tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(from + i);
  return tokens;
}

class PrefixStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "prefix_store_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    store_.reset();
    fs::remove_all(folder_);
  }
  void Open(uint64_t max_bytes = 1 << 20, uint64_t model = 7) {
    store_.reset();
    auto store = PrefixStore::Open({.directory = folder_,
                                    .model = model,
                                    .max_bytes = max_bytes,
                                    .block_size = kBlock,
                                    .window = kWindow,
                                    .full_block_bytes = kFullBytes,
                                    .sliding_block_bytes = kSlidingBytes});
    ASSERT_TRUE(store.ok()) << store.status().message();
    store_ = *std::move(store);
  }
  void Save(const Tokens& tokens) {
    store_->Save(tokens, [&](KvGroup group, int entry, std::span<std::byte> bytes) {
      const std::string contents = BlockContents(tokens, group, entry);
      ASSERT_EQ(bytes.size(), contents.size());
      std::memcpy(bytes.data(), contents.data(), contents.size());
    });
    store_->Flush();
  }
  /// The state after `tokens` can be read, is complete, and is what was saved.
  testing::AssertionResult Loads(const Tokens& tokens, int first_block = 0) {
    std::set<std::pair<KvGroup, int>> got;
    bool equal = true;
    const Status status =
        store_->Load(tokens, first_block, [&](KvGroup group, int entry, std::span<const std::byte> bytes) {
          const std::string want = BlockContents(tokens, group, entry);
          equal &= bytes.size() == want.size() && std::memcmp(bytes.data(), want.data(), want.size()) == 0;
          got.emplace(group, entry);
        });
    if (!status.ok()) return testing::AssertionFailure() << status.message();
    if (!equal) return testing::AssertionFailure() << "other bytes";
    std::set<std::pair<KvGroup, int>> want;
    const int length = static_cast<int>(tokens.size()), entries = (length + kBlock - 1) / kBlock;
    for (int i = first_block; i < entries; ++i) want.emplace(KvGroup::kFull, i);
    for (int i = std::max(0, length - kWindow + 1) / kBlock; i < entries; ++i) want.emplace(KvGroup::kSliding, i);
    if (got != want) return testing::AssertionFailure() << "other blocks";
    return testing::AssertionSuccess();
  }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().extension() == ".kv") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  std::string folder_;
  std::unique_ptr<PrefixStore> store_;
};

TEST_F(PrefixStoreTest, OutlastsTheProcess) {
  Open();
  for (const int length : {1, 3, 4, 5, 13, 22, 40}) Save(Counting(length));
  Open();
  for (const int length : {1, 3, 4, 5, 13, 22, 40}) {
    EXPECT_EQ(store_->FindLongest(Counting(50), length), length);
    EXPECT_TRUE(Loads(Counting(length))) << length;
    EXPECT_TRUE(Loads(Counting(length), length / kBlock)) << length;
  }
  EXPECT_EQ(store_->FindLongest(Counting(50), 39), 22);
  EXPECT_EQ(store_->FindLongest(Counting(50), 0), 0);
  EXPECT_EQ(store_->FindLongest(Counting(50, 1), 50), 0);
  EXPECT_EQ(store_->counts().rejected, 0u);
}

TEST_F(PrefixStoreTest, WritesNothingTwice) {
  Open();
  Save(Counting(40));
  const auto written = store_->counts().written;
  EXPECT_EQ(written, 11u);  // ten blocks and the checkpoint
  Save(Counting(40));
  EXPECT_EQ(store_->counts().written, written);
  Save(Counting(42));
  EXPECT_EQ(store_->counts().written, written + 1) << "the blocks were there";
}

TEST_F(PrefixStoreTest, AnyFlippedBitOrLostByteIsNoticed) {
  Open();
  Save(Counting(22));
  store_.reset();
  const RandomStream random(1, 1);
  uint64_t draws = 0;
  for (const fs::path& file : Files()) {
    const std::string good = *ReadTextFile(file.string());
    for (int kind = 0; kind < 12; ++kind) {
      std::string bad = good;
      const auto at = static_cast<size_t>(random.Word(draws++) % bad.size());
      if (kind < 8) {
        bad[at] = static_cast<char>(bad[at] ^ (1 << (kind % 8)));
      } else if (kind == 8) {
        bad.resize(at);
      } else if (kind == 9) {
        bad.clear();
      } else if (kind == 10) {
        bad += 'x';
      } else {
        std::fill(bad.begin() + static_cast<std::ptrdiff_t>(at), bad.end(), '\0');  // as after a power cut
      }
      if (bad == good) continue;
      ASSERT_TRUE(WriteFileAtomically(file.string(), bad).ok());
      Open();
      EXPECT_EQ(store_->FindLongest(Counting(22), 22), 22) << "names are all it knows before it reads";
      EXPECT_FALSE(Loads(Counting(22))) << file << " " << kind;
      EXPECT_EQ(store_->counts().rejected, 1u);
      EXPECT_FALSE(fs::exists(file)) << "what is damaged is removed";
      EXPECT_EQ(store_->FindLongest(Counting(22), 22), 0);
      Save(Counting(22));  // made anew
      EXPECT_TRUE(Loads(Counting(22)));
      store_.reset();
      ASSERT_EQ(*ReadTextFile(file.string()), good);
    }
  }
}

TEST_F(PrefixStoreTest, FilesUnderOtherNamesAreNotBelieved) {
  Open();
  Save(Counting(4));
  Save(Counting(4, 100));
  store_.reset();
  const auto files = Files();
  ASSERT_EQ(files.size(), 4u);
  for (size_t i = 0; i < files.size(); ++i) fs::rename(files[i], files[i].string() + "x");
  for (size_t i = 0; i < files.size(); ++i) fs::rename(files[i].string() + "x", files[(i + 1) % 4]);
  Open();
  EXPECT_FALSE(Loads(Counting(4)));
  EXPECT_FALSE(Loads(Counting(4, 100)));
}

TEST_F(PrefixStoreTest, AnotherModelSeesNothing) {
  Open();
  Save(Counting(22));
  Open(1 << 20, /*model=*/8);
  EXPECT_EQ(store_->FindLongest(Counting(22), 22), 0);
  Save(Counting(22));
  Open();
  EXPECT_TRUE(Loads(Counting(22)));
}

TEST_F(PrefixStoreTest, StaysWithinItsSizeAndThrowsTheOldestAway) {
  constexpr uint64_t kMax = 6000;
  Open(kMax);
  for (int i = 0; i < 10; ++i) {
    Save(Counting(12, 1000 * i));
    EXPECT_TRUE(Loads(Counting(12, 0))) << "used again and again";
    EXPECT_TRUE(Loads(Counting(12, 1000 * i))) << i;
    uint64_t bytes = 0;
    for (const fs::path& file : Files()) bytes += fs::file_size(file);
    EXPECT_LE(bytes, kMax);
    EXPECT_EQ(bytes, store_->counts().bytes);
  }
  EXPECT_EQ(store_->FindLongest(Counting(12, 2000), 12), 0);
  Open(kMax / 4);
  EXPECT_LE(store_->counts().bytes, kMax / 4) << "a smaller limit holds from the start";
}

TEST_F(PrefixStoreTest, LeftoversOfACrashAreClearedAndStrangersLeftAlone) {
  Open();
  Save(Counting(4));
  store_.reset();
  const std::string leftover = Files()[0].string() + ".tmp.123";
  std::ofstream(leftover) << "half";
  std::ofstream(folder_ + "/notes.txt") << "mine";
  Open();
  EXPECT_FALSE(fs::exists(leftover));
  EXPECT_TRUE(fs::exists(folder_ + "/notes.txt"));
  EXPECT_TRUE(Loads(Counting(4)));
}

TEST_F(PrefixStoreTest, ErrorsOfTheFolder) {
  Open();
  const auto second = PrefixStore::Open({.directory = folder_});
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find("another process"), std::string::npos);
  std::ofstream(folder_ + "/file") << "x";
  EXPECT_EQ(PrefixStore::Open({.directory = folder_ + "/file/below"}).status().code(), StatusCode::kIo);
  // A folder that vanishes under it: nothing is stored, nothing breaks.
  fs::remove_all(folder_);
  Save(Counting(22));
  EXPECT_GT(store_->counts().write_errors, 0u);
  EXPECT_EQ(store_->FindLongest(Counting(22), 22), 0);
  EXPECT_EQ(store_->counts().files, 0u);
}

}  // namespace
}  // namespace gptoss

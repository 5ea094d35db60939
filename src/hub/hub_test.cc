#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "base/mmap_file.h"
#include "hub/cache.h"
#include "hub/digest.h"
#include "hub/http_client.h"
#include "hub/listing.h"
#include "hub/names.h"
#include "hub/part_file.h"
#include "hub/range_set.h"
#include "hub/retry.h"

namespace gptoss::hub {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "gptoss-hub-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void WriteFile(const std::string& path, std::string_view text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

TEST(NamesTest, ReleasedModelsHaveBareNames) {
  EXPECT_EQ(*ResolveRepoName("gpt-oss-20b"), "openai/gpt-oss-20b");
  EXPECT_EQ(*ResolveRepoName("gpt-oss-120b"), "openai/gpt-oss-120b");
  EXPECT_EQ(*ResolveRepoName("someone/My_Model.v2"), "someone/My_Model.v2");
}

TEST(NamesTest, RefusesWhatIsNotARepository) {
  for (const char* name : {"", "gpt-oss", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a--b/c", "a/b--c", "-a/b",
                           "a/b-", "a b/c", "a/b\n", "a/b.partial", "a/b.old", "a/b..c"}) {
    const auto result = ResolveRepoName(name);
    ASSERT_FALSE(result.ok()) << name;
    EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument) << name;
  }
  EXPECT_FALSE(ResolveRepoName("a/" + std::string(97, 'b')).ok());
  EXPECT_TRUE(ResolveRepoName("a/" + std::string(96, 'b')).ok());
}

TEST(NamesTest, Revisions) {
  for (const char* ok : {"main", "refs/pr/1", "v1.0", "0123456789abcdef0123456789abcdef01234567"}) {
    EXPECT_TRUE(ValidateRevision(ok).ok()) << ok;
  }
  for (const char* bad : {"", "a/../b", "/a", "a/", "a//b", "-x", "a?b", "a b", "a\r\nb"}) {
    EXPECT_FALSE(ValidateRevision(bad).ok()) << bad;
  }
}

TEST(NamesTest, RemotePaths) {
  for (const char* ok : {"config.json", "original/model.safetensors", "..a", "a..", "a b", "\xC3\xA4.json"}) {
    EXPECT_TRUE(ValidateRemotePath(ok).ok()) << ok;
  }
  for (const char* bad : {"", "/etc/passwd", "..", "../a", "a/..", "a/../b", "./a", "a/.", "a//b", "a/", "a\\b", "a\nb",
                          "a\x7F", "\xFF", "a.part", "a.part/b", "x/a.part.json", ".gptoss-pull.json"}) {
    const Status status = ValidateRemotePath(bad);
    EXPECT_EQ(status.code(), StatusCode::kCorruptData) << bad;
  }
  EXPECT_FALSE(ValidateRemotePath(std::string_view("a\0b", 3)).ok());
  EXPECT_TRUE(ValidateRemotePath(std::string(240, 'a')).ok());
  EXPECT_FALSE(ValidateRemotePath(std::string(241, 'a')).ok());
  std::string deep;
  while (deep.size() <= 1024) deep += "a/";
  EXPECT_FALSE(ValidateRemotePath(deep + "a").ok());
}

TEST(NamesTest, MessagesHoldNoControlCharacters) {
  EXPECT_EQ(Printable("a\x1b[2Jb\n"), "a?[2Jb?");
  EXPECT_EQ(Printable("abcdef", 3), "abc...");
  EXPECT_EQ(UrlEscape("a b/\xC3\xA4?#%", true), "a%20b/%C3%A4%3F%23%25");
  EXPECT_EQ(UrlEscape("refs/pr/1", false), "refs%2Fpr%2F1");
}

TEST(RangeSetTest, MergesWhatTouchesOrOverlaps) {
  RangeSet set;
  set.Add({10, 20});
  set.Add({30, 40});
  EXPECT_THAT(set.ranges(), ElementsAre(ByteRange{10, 20}, ByteRange{30, 40}));
  set.Add({20, 25});
  EXPECT_THAT(set.ranges(), ElementsAre(ByteRange{10, 25}, ByteRange{30, 40}));
  set.Add({24, 31});
  EXPECT_THAT(set.ranges(), ElementsAre(ByteRange{10, 40}));
  set.Add({0, 5});
  set.Add({50, 60});
  set.Add({7, 7});
  EXPECT_THAT(set.ranges(), ElementsAre(ByteRange{0, 5}, ByteRange{10, 40}, ByteRange{50, 60}));
  EXPECT_EQ(set.TotalBytes(), 45u);
  set.Add({0, 100});
  EXPECT_THAT(set.ranges(), ElementsAre(ByteRange{0, 100}));
}

// Against a bitmap, over pseudo-random additions.
TEST(RangeSetTest, AgreesWithABitmap) {
  constexpr uint64_t kSize = 200;
  uint64_t seed = 1;
  for (int round = 0; round < 50; ++round) {
    RangeSet set;
    std::vector<bool> bits(kSize);
    for (int i = 0; i < 12; ++i) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      const uint64_t begin = (seed >> 33) % kSize, end = std::min(kSize, begin + (seed >> 50) % 40);
      set.Add({begin, end});
      for (uint64_t b = begin; b < end; ++b) bits[b] = true;
    }
    std::vector<bool> covered(kSize);
    for (const ByteRange& r : set.ranges()) {
      for (uint64_t b = r.begin; b < r.end; ++b) covered[b] = true;
    }
    ASSERT_EQ(covered, bits);
    for (const ByteRange& r : set.Missing(kSize, 16)) {
      ASSERT_LT(r.begin, r.end);
      ASSERT_EQ(r.begin / 16, (r.end - 1) / 16) << "a piece crosses a border of chunks";
      for (uint64_t b = r.begin; b < r.end; ++b) {
        ASSERT_FALSE(covered[b]);
        covered[b] = true;
      }
    }
    ASSERT_EQ(covered, std::vector<bool>(kSize, true));
    const auto copy = RangeSet::FromJson(set.ToJson(), kSize);
    ASSERT_TRUE(copy.ok());
    ASSERT_EQ(copy->ranges(), set.ranges());
  }
}

TEST(RangeSetTest, MissingOfNothingAndOfAll) {
  RangeSet set;
  EXPECT_THAT(set.Missing(0, 4), IsEmpty());
  EXPECT_THAT(set.Missing(10, 4), ElementsAre(ByteRange{0, 4}, ByteRange{4, 8}, ByteRange{8, 10}));
  set.Add({0, 10});
  EXPECT_THAT(set.Missing(10, 4), IsEmpty());
}

TEST(RangeSetTest, RefusesMalformedStates) {
  for (const char* text : {"{}", "[1]", "[[1]]", "[[1,2,3]]", "[[2,1]]", "[[1,1]]", "[[0,101]]", "[[-1,5]]",
                           "[[0.5,5]]", "[[10,20],[5,8]]", "[[10,20],[15,30]]", "[[\"0\",5]]"}) {
    const auto json = ParseJson(text);
    ASSERT_TRUE(json.ok()) << text;
    EXPECT_FALSE(RangeSet::FromJson(*json, 100).ok()) << text;
  }
}

// FIPS 180-2's example for SHA-256; the id that git gives to a file holding "hello\n".
TEST(DigestTest, KnownValues) {
  const TemporaryFolder folder;
  WriteFile(folder / "abc", "abc");
  WriteFile(folder / "hello", "hello\n");
  WriteFile(folder / "empty", "");
  EXPECT_EQ(DigestFile(folder / "abc", DigestKind::kSha256)->ToString(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(DigestFile(folder / "hello", DigestKind::kGitBlob)->ToString(),
            "git-sha1:ce013625030ba8dba906f756967f9e9ca394464a");
  EXPECT_EQ(DigestFile(folder / "empty", DigestKind::kGitBlob)->ToString(),
            "git-sha1:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  EXPECT_EQ(DigestFile(folder / "absent", DigestKind::kSha256).status().code(), StatusCode::kNotFound);
  const std::atomic<bool> stop{true};
  EXPECT_EQ(DigestFile(folder / "abc", DigestKind::kSha256, &stop).status().code(), StatusCode::kCancelled);
}

TEST(DigestTest, Forms) {
  const std::string upper(64, 'A');
  EXPECT_EQ(MakeDigest(DigestKind::kSha256, upper)->hex, std::string(64, 'a'));
  EXPECT_FALSE(MakeDigest(DigestKind::kSha256, std::string(40, 'a')).ok());
  EXPECT_FALSE(MakeDigest(DigestKind::kGitBlob, std::string(40, 'g')).ok());
  EXPECT_EQ(*Digest::FromString(""), Digest{});
  EXPECT_FALSE(Digest::FromString("md5:00").ok());
  const Digest digest = *MakeDigest(DigestKind::kGitBlob, std::string(40, '7'));
  EXPECT_EQ(*Digest::FromString(digest.ToString()), digest);
}

constexpr char kListing[] = R"({"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[
  {"rfilename":"config.json","size":5,"blobId":"ce013625030ba8dba906f756967f9e9ca394464a"},
  {"rfilename":"model-00001-of-00001.safetensors","blobId":"0000000000000000000000000000000000000000",
   "lfs":{"sha256":"BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD","size":7}},
  {"rfilename":"model.safetensors.index.json","size":1},
  {"rfilename":"tokenizer.json","size":2},{"rfilename":"tokenizer_config.json","size":2},
  {"rfilename":"README.md","size":1},{"rfilename":"LICENSE","size":1},{"rfilename":"generation_config.json","size":1},
  {"rfilename":"original/config.json","size":1},{"rfilename":"original/model.safetensors","size":9},
  {"rfilename":"onnx/model.safetensors","size":9}]})";

std::vector<std::string> Paths(const std::vector<RemoteFile>& files) {
  std::vector<std::string> paths;
  for (const RemoteFile& file : files) paths.push_back(file.path);
  return paths;
}

TEST(ListingTest, Parses) {
  const auto listing = ParseListing(kListing);
  ASSERT_TRUE(listing.ok()) << listing.status().message();
  EXPECT_EQ(listing->commit, "0123456789abcdef0123456789abcdef01234567");
  ASSERT_EQ(listing->files.size(), 11u);
  const auto files = *SelectFiles(*listing, {.include = {"config.json", "model-*"}});
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].digest.ToString(), "git-sha1:ce013625030ba8dba906f756967f9e9ca394464a");
  EXPECT_EQ(files[1].size, 7u);
  EXPECT_EQ(files[1].digest.ToString(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ListingTest, Selections) {
  const RepoListing listing = *ParseListing(kListing);
  EXPECT_THAT(Paths(*SelectFiles(listing, {})),
              ElementsAre("config.json", "generation_config.json", "model-00001-of-00001.safetensors",
                          "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"));
  EXPECT_THAT(
      Paths(*SelectFiles(listing, {.original = true})),
      ElementsAre("original/config.json", "original/model.safetensors", "tokenizer.json", "tokenizer_config.json"));
  EXPECT_THAT(Paths(*SelectFiles(listing, {.include = {"onnx/*", "LICENS?"}})),
              ElementsAre("LICENSE", "onnx/model.safetensors"));
  EXPECT_EQ(SelectFiles(listing, {.include = {"*.gguf"}}).status().code(), StatusCode::kNotFound);
}

TEST(ListingTest, SaysWhenThereAreNoWeights) {
  const RepoListing listing = *ParseListing(R"({"siblings":[{"rfilename":"config.json","size":1}]})");
  EXPECT_TRUE(listing.commit.empty());
  EXPECT_THAT(SelectFiles(listing, {}).status().message(), HasSubstr("--include"));
  EXPECT_THAT(SelectFiles(listing, {.original = true}).status().message(), HasSubstr("--original"));
}

TEST(ListingTest, RefusesBadEntriesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"rfilename":"../x","size":1})", "../x"},
      {R"({"rfilename":"a"})", "size"},
      {R"({"rfilename":"a","size":1099511627777})", "1 TiB"},
      {R"({"rfilename":"a","size":1,"blobId":"12"})", "a: "},
      {R"({"rfilename":"a","size":1,"lfs":{}})", "lfs"},
      {R"({"rfilename":"a","size":1},{"rfilename":"a","size":1})", "twice"},
      {R"({"rfilename":"a","size":1},{"rfilename":"a.b","size":1},{"rfilename":"a/b/c","size":1})", "folder"},
      {R"(7)", "rfilename"},
  };
  for (const auto& [entry, word] : cases) {
    const auto listing = ParseListing(std::string(R"({"siblings":[)") + entry + "]}");
    ASSERT_FALSE(listing.ok()) << entry;
    EXPECT_THAT(listing.status().message(), HasSubstr(word));
  }
  EXPECT_FALSE(ParseListing(R"({"sha":"xyz","siblings":[]})").ok());
}

TEST(HttpTest, Origins) {
  EXPECT_EQ(*ParseOrigin("https://Huggingface.CO/a?b"), (Origin{"https", "huggingface.co", "443"}));
  EXPECT_EQ(*ParseOrigin("http://127.0.0.1:8080"), (Origin{"http", "127.0.0.1", "8080"}));
  for (const char* bad : {"", "huggingface.co", "ftp://a", "file:///etc/passwd", "https://u:p@a", "https://u@a"}) {
    EXPECT_FALSE(ParseOrigin(bad).ok()) << bad;
  }
  for (const char* url : {"http://localhost", "http://127.0.0.1", "http://127.9.9.9", "http://[::1]:5"}) {
    EXPECT_TRUE(IsLoopback(*ParseOrigin(url))) << url;
  }
  for (const char* url : {"http://127.0.0.1.example", "http://127.a.b.c", "http://128.0.0.1",
                          "http://localhost.example", "http://10.0.0.1", "http://[::2]"}) {
    EXPECT_FALSE(IsLoopback(*ParseOrigin(url))) << url;
  }
}

TEST(HttpTest, PlainHttpIsForLoopback) {
  EXPECT_TRUE(HttpClient::Create({.endpoint = "https://example.invalid"}).ok());
  EXPECT_TRUE(HttpClient::Create({.endpoint = "http://localhost:1"}).ok());
  EXPECT_FALSE(HttpClient::Create({.endpoint = "http://example.invalid"}).ok());
  EXPECT_TRUE(HttpClient::Create({.endpoint = "http://example.invalid", .allow_plain_http = true}).ok());
  EXPECT_FALSE(HttpClient::Create({.endpoint = "https://example.invalid", .token = "a\nb"}).ok());
}

TEST(HttpTest, ContentRange) {
  const auto range = ParseContentRange("bytes 5-9/100");
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->range, (ByteRange{5, 10}));
  EXPECT_EQ(range->total, 100u);
  EXPECT_EQ(ParseContentRange("Bytes 0-0/*")->total, std::nullopt);
  for (const char* bad : {"", "bytes", "bytes ", "bytes */100", "bytes 9-5/100", "bytes 5-/100", "bytes -5/100",
                          "bytes 5-9", "items 5-9/100", "bytes 5-9/x", "bytes 0-18446744073709551615/1",
                          "bytes 0-99999999999999999999/1", "bytes 1/2-3"}) {
    EXPECT_FALSE(ParseContentRange(bad).has_value()) << bad;
  }
}

TEST(RetryTest, DelaysGrowAndObeyTheServer) {
  const RetryPolicy policy{.max_retries = 5, .first_delay_s = 1, .max_delay_s = 10};
  EXPECT_DOUBLE_EQ(RetryDelay(policy, 1, {}, 0.5), 1);
  EXPECT_DOUBLE_EQ(RetryDelay(policy, 3, {}, 0.5), 4);
  EXPECT_DOUBLE_EQ(RetryDelay(policy, 1, {}, 0), 0.75);
  EXPECT_DOUBLE_EQ(RetryDelay(policy, 1, {}, 1), 1.25);
  EXPECT_DOUBLE_EQ(RetryDelay(policy, 1000000, {}, 0.5), 10);
  EXPECT_DOUBLE_EQ(RetryDelay(policy, 1, 60, 0.5), 60);
  EXPECT_TRUE(IsTransientStatus(429) && IsTransientStatus(503) && IsTransientStatus(500));
  EXPECT_FALSE(IsTransientStatus(404) || IsTransientStatus(401) || IsTransientStatus(501) || IsTransientStatus(200));
}

class PartFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<PartFile> Open(const RemoteFile& file, const std::string& commit = "c") {
    auto part = PartFile::Open(folder_.path(), file, commit, 1);
    EXPECT_TRUE(part.ok()) << part.status().message();
    return *std::move(part);
  }
  TemporaryFolder folder_;
  const RemoteFile file_{
      "sub/abc", 3, *Digest::FromString("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")};
};

TEST_F(PartFileTest, ResumesFinishesAndLeavesNothingBehind) {
  {
    const auto part = Open(file_);
    ASSERT_TRUE(part->Write(1, "bc").ok());
    EXPECT_EQ(part->Finish(nullptr).code(), StatusCode::kCorruptData);
  }
  const auto part = Open(file_);
  EXPECT_THAT(part->Missing(10), ElementsAre(ByteRange{0, 1}));
  ASSERT_TRUE(part->Write(0, "a").ok());
  EXPECT_TRUE(part->Finish(nullptr).ok());
  EXPECT_EQ(*ReadTextFile(folder_ / "sub/abc"), "abc");
  EXPECT_FALSE(fs::exists(folder_ / "sub/abc.part"));
  EXPECT_FALSE(fs::exists(folder_ / "sub/abc.part.json"));
}

TEST_F(PartFileTest, WrongBytesAreNamed) {
  const auto part = Open(file_);
  ASSERT_TRUE(part->Write(0, "abd").ok());
  const Status status = part->Finish(nullptr);
  EXPECT_EQ(status.code(), StatusCode::kCorruptData);
  EXPECT_THAT(status.message(), HasSubstr("sub/abc"));
  EXPECT_FALSE(fs::exists(folder_ / "sub/abc"));
}

TEST_F(PartFileTest, ResumesOnlyTheSameContents) {
  ASSERT_TRUE(Open(file_)->Write(0, "ab").ok());
  RemoteFile other = file_;
  other.digest.hex[0] = '0';
  EXPECT_EQ(Open(other)->BytesDone(), 0u);
  ASSERT_TRUE(Open(file_)->Write(0, "ab").ok());
  other = file_;
  other.size = 4;
  EXPECT_EQ(Open(other)->BytesDone(), 0u);
  other = file_;
  other.digest = {};
  ASSERT_TRUE(Open(other, "one")->Write(0, "a").ok());
  EXPECT_EQ(Open(other, "one")->BytesDone(), 1u);
  EXPECT_EQ(Open(other, "two")->BytesDone(), 0u);
}

TEST_F(PartFileTest, EntityTagsMatterWithoutChecksum) {
  EXPECT_TRUE(Open(file_)->AcceptEtag("a"));
  RemoteFile plain = file_;
  plain.digest = {};
  const auto part = Open(plain);
  EXPECT_TRUE(part->AcceptEtag(""));
  EXPECT_TRUE(part->AcceptEtag("a"));
  EXPECT_TRUE(part->AcceptEtag("a"));
  EXPECT_FALSE(part->AcceptEtag("b"));
  ASSERT_TRUE(part->Reset().ok());
  EXPECT_TRUE(part->AcceptEtag("b"));
}

TEST(CacheTest, FindsByEveryNameAndByLayout) {
  const TemporaryFolder models;
  const auto missing = FindPulledModel("gpt-oss-20b", models.path());
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("gptoss pull gpt-oss-20b"));
  WriteFile(models / "openai--gpt-oss-20b.partial/config.json", "{}");
  EXPECT_FALSE(FindPulledModel("gpt-oss-20b", models.path()).ok());
  WriteFile(models / "openai--gpt-oss-20b/config.json", "{}");
  EXPECT_EQ(*FindPulledModel("gpt-oss-20b", models.path()), models / "openai--gpt-oss-20b");
  EXPECT_EQ(*FindPulledModel("openai/gpt-oss-20b", models.path()), models / "openai--gpt-oss-20b");
  WriteFile(models / "openai--gpt-oss-120b/original/config.json", "{}");
  EXPECT_EQ(*FindPulledModel("gpt-oss-120b", models.path()), models / "openai--gpt-oss-120b/original");
  EXPECT_EQ(FindPulledModel("nano", models.path()).status().code(), StatusCode::kInvalidArgument);
}

TEST(CacheTest, ListsCompleteModels) {
  const TemporaryFolder models;
  EXPECT_THAT(*ListPulledModels(models / "absent"), IsEmpty());
  Manifest manifest{"b/two", "main", "c0", "https://e", {{"config.json", 5, {}}, {"m.safetensors", 7, {}}}};
  for (const char* folder : {"b--two", "a--one", "a--half.partial", "not-a-model"}) {
    fs::create_directories(models / folder);
    ASSERT_TRUE(WriteManifest(models / folder, manifest).ok());
  }
  fs::create_directories(models / "no--manifest");
  const auto list = *ListPulledModels(models.path());
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].repo, "a/one");
  EXPECT_EQ(list[1].repo, "b/two");
  EXPECT_EQ(list[1].path, models / "b--two");
  EXPECT_EQ(list[1].commit, "c0");
  EXPECT_EQ(list[1].bytes, 12u);
}

TEST(CacheTest, ManifestsAreCheckedWhenRead) {
  const TemporaryFolder folder;
  EXPECT_EQ(ReadManifest(folder.path()).status().code(), StatusCode::kNotFound);
  const std::string name = folder / std::string(kManifestName);
  for (const char* text : {"", "{}", R"({"version":2,"files":[]})", R"({"version":1})",
                           R"({"version":1,"files":[{"path":"../x","size":1,"digest":""}]})",
                           R"({"version":1,"files":[{"path":"x","size":-1,"digest":""}]})",
                           R"({"version":1,"files":[{"path":"x","size":1,"digest":"?"}]})"}) {
    WriteFile(name, text);
    const auto manifest = ReadManifest(folder.path());
    ASSERT_FALSE(manifest.ok()) << text;
    EXPECT_THAT(manifest.status().message(), HasSubstr(name));
  }
}

TEST(CacheTest, DefaultFolderFollowsTheEnvironment) {
  ::setenv("HOME", "/h", 1);
  ::unsetenv("XDG_DATA_HOME");
  ::unsetenv("GPTOSS_HOME");
  EXPECT_EQ(*DefaultModelsDir(), "/h/.local/share/gptoss/models");
  ::setenv("XDG_DATA_HOME", "/x", 1);
  EXPECT_EQ(*DefaultModelsDir(), "/x/gptoss/models");
  ::setenv("GPTOSS_HOME", "/g", 1);
  EXPECT_EQ(*DefaultModelsDir(), "/g/models");
  ::unsetenv("GPTOSS_HOME");
  ::unsetenv("XDG_DATA_HOME");
  ::unsetenv("HOME");
  EXPECT_EQ(DefaultModelsDir().status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace gptoss::hub

#include "server/response_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "json/json.h"

namespace gptoss::server {
namespace {

using testing::HasSubstr;

struct StoreTest : testing::Test {
  std::string folder = testing::TempDir() + "/store_" + std::to_string(getpid()) + "_" +
                       testing::UnitTest::GetInstance()->current_test_info()->name();
  std::string path = folder + "/responses.db";
  StoreTest() { std::filesystem::create_directories(folder); }
  ~StoreTest() override { std::filesystem::remove_all(folder); }
};

StoredResponse Response(const std::string& id, size_t bytes = 10, const std::string& owner = "") {
  StoredResponse r;
  r.id = id;
  r.owner = owner;
  r.status = "completed";
  const std::string text(bytes, 'x');
  r.body = WriteJson(
      {{"id", id}, {"status", "completed"}, {"output", Json::array({{{"id", "msg_out_" + id}, {"t", text}}})}});
  r.input = WriteJson(Json::array({{{"id", "msg_in_" + id}}}));
  return r;
}

Status PutNow(ResponseStore& store, StoredResponse r) {
  Status status = IoError("never called");
  store.Put(std::move(r), [&](const Status& s) { status = s; });
  store.Flush();
  return status;
}

TEST_F(StoreTest, OutlivesItsProcessAndKeepsOwnersApart) {
  SealKey key;
  {
    auto store = ResponseStore::Open(path);
    ASSERT_TRUE(store.ok()) << store.status().message();
    key = (*store)->seal_key();
    ASSERT_TRUE(PutNow(**store, Response("resp_1", 10, "alice")).ok());
    (*store)->PutTurn({"k1", "k2"}, "tokens");
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
  }
  auto store = *ResponseStore::Open(path);
  EXPECT_EQ(store->seal_key(), key);
  EXPECT_EQ(store->Get("alice", "resp_1")->body, Response("resp_1", 10, "alice").body);
  EXPECT_EQ(store->Get("bob", "resp_1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store->GetByItem("alice", "msg_in_resp_1")->id, "resp_1");
  EXPECT_EQ(store->GetByItem("alice", "msg_out_resp_1")->id, "resp_1");
  EXPECT_EQ(store->GetByItem("bob", "msg_in_resp_1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store->FindTurn("k1"), "tokens");
  EXPECT_EQ(store->FindTurn("k2"), "tokens");
  EXPECT_EQ(store->FindTurn("k3"), "");
  EXPECT_FALSE(*store->Delete("bob", "resp_1"));
  EXPECT_TRUE(*store->Delete("alice", "resp_1"));
  EXPECT_FALSE(*store->Delete("alice", "resp_1"));
  EXPECT_EQ(store->GetByItem("alice", "msg_in_resp_1").status().code(), StatusCode::kNotFound);
}

TEST_F(StoreTest, ChainsComeOldestFirst) {
  auto store = *ResponseStore::Open(path);
  std::string previous;
  for (int i = 0; i < 5; ++i) {
    StoredResponse r = Response("resp_" + std::to_string(i));
    r.previous_id = previous;
    previous = r.id;
    ASSERT_TRUE(PutNow(*store, r).ok());
  }
  const auto chain = store->GetChain("", "resp_4");
  ASSERT_TRUE(chain.ok());
  ASSERT_EQ(chain->size(), 5u);
  EXPECT_EQ(chain->front().id, "resp_0");
  EXPECT_EQ(chain->back().id, "resp_4");
  EXPECT_EQ(store->GetChain("", "resp_4", 3).status().code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE(*store->Delete("", "resp_1"));
  EXPECT_THAT(store->GetChain("", "resp_4").status().message(), HasSubstr("resp_1"));
}

TEST_F(StoreTest, ABoundedStoreForgetsTheLeastRecentlyUsed) {
  StoreLimits limits;
  limits.max_responses = 10;
  limits.max_bytes = 1 << 20;
  limits.max_turn_bytes = 4000;
  auto store = *ResponseStore::Open(path, limits);
  for (int i = 0; i < 25; ++i) ASSERT_TRUE(PutNow(*store, Response("resp_" + std::to_string(i))).ok());
  EXPECT_FALSE(store->Get("", "resp_14").ok());
  EXPECT_TRUE(store->Get("", "resp_15").ok());
  EXPECT_TRUE(store->Get("", "resp_24").ok());
  // By bytes: one of half the limit leaves no room for two more of its size.
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(PutNow(*store, Response("large_" + std::to_string(i), 500 << 10)).ok());
  EXPECT_FALSE(store->Get("", "large_0").ok());
  EXPECT_TRUE(store->Get("", "large_2").ok());
  for (int i = 0; i < 100; ++i) store->PutTurn({"turn_" + std::to_string(i)}, std::string(200, 't'));
  store->Flush();
  EXPECT_EQ(store->FindTurn("turn_0"), "");
  EXPECT_NE(store->FindTurn("turn_99"), "");
}

TEST_F(StoreTest, WhatIsTooOldGoes) {
  { ASSERT_TRUE(PutNow(**ResponseStore::Open(path), Response("old")).ok()); }
  StoreLimits limits;
  limits.max_age_s = -10;  // everything from before ten seconds in the future
  auto store = *ResponseStore::Open(path, limits);
  store->Put(Response("new"), {});
  store->Flush();
  EXPECT_FALSE(store->Get("", "old").ok());
}

// The process is killed while it writes as fast as it can; whatever it was told to be stored is there afterwards.
TEST_F(StoreTest, KilledWhileWritingLosesNothingThatWasAcknowledged) {
  for (int round = 0; round < 5; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(pipe_ends[0]);
      auto store = ResponseStore::Open(path);
      if (!store.ok()) _exit(1);
      for (int i = 0; i < 100000; ++i) {
        const int number = round * 1000000 + i;
        (*store)->Put(Response("resp_" + std::to_string(number), 3000), [number, &pipe_ends](const Status& status) {
          if (status.ok() && write(pipe_ends[1], &number, sizeof number) != sizeof number) _exit(1);
        });
        if (i % 8 == 0) (*store)->Flush();
      }
      _exit(0);
    }
    close(pipe_ends[1]);
    std::vector<int> acknowledged;
    int number = 0;
    while (acknowledged.size() < static_cast<size_t>(40 + 37 * round) &&
           read(pipe_ends[0], &number, sizeof number) == sizeof number) {
      acknowledged.push_back(number);
    }
    kill(child, SIGKILL);
    // What it acknowledged before it died counts too.
    while (read(pipe_ends[0], &number, sizeof number) == sizeof number) acknowledged.push_back(number);
    close(pipe_ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    ASSERT_GE(acknowledged.size(), 40u);
    auto store = ResponseStore::Open(path);
    ASSERT_TRUE(store.ok()) << store.status().message();
    for (const int stored : acknowledged) {
      EXPECT_TRUE((*store)->Get("", "resp_" + std::to_string(stored)).ok()) << stored;
    }
  }
}

TEST_F(StoreTest, ResponsesThatWereRunningWhenItDiedHaveFailed) {
  {
    auto store = *ResponseStore::Open(path);
    StoredResponse r = Response("resp_1", 10, "alice");
    r.status = "in_progress";
    ASSERT_TRUE(PutNow(*store, r).ok());
  }
  auto store = *ResponseStore::Open(path);
  const auto r = store->Get("alice", "resp_1");
  ASSERT_TRUE(r.ok()) << r.status().message();
  const Json body = *ParseJson(r->body);
  EXPECT_EQ(body["status"], "failed");
  EXPECT_EQ(body["error"]["code"], "server_error");
}

TEST_F(StoreTest, ADamagedFileIsSetAside) {
  const auto damage = [&](size_t at, size_t bytes) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file << std::string(bytes, '\x5a');
  };
  const auto fill = [&] {
    auto store = *ResponseStore::Open(path);
    for (int i = 0; i < 200; ++i) store->Put(Response("resp_" + std::to_string(i), 500), {});
  };
  for (const size_t at : {size_t{0}, size_t{100}, size_t{4096}, size_t{20000}}) {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    fill();
    damage(at, 3000);
    std::string said;
    auto store = ResponseStore::Open(path, {}, [&](const std::string& line) { said += line; });
    ASSERT_TRUE(store.ok()) << at << ": " << store.status().message();
    ASSERT_TRUE(PutNow(**store, Response("new")).ok());
    EXPECT_TRUE((*store)->Get("", "new").ok());
    size_t aside = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      aside += entry.path().string().find(".damaged-") != std::string::npos;
    }
    // Either the whole file was set aside, or what SQLite cannot tell is found by the response's own checksum.
    if (aside > 0) {
      EXPECT_THAT(said, HasSubstr("set aside"));
    } else {
      size_t damaged = 0;
      for (int i = 0; i < 200; ++i) damaged += !(*store)->Get("", "resp_" + std::to_string(i)).ok();
      EXPECT_GT(damaged, 0u) << at;
    }
  }
  std::filesystem::resize_file(path, 5000);
  std::filesystem::remove(path + "-wal");
  auto store = ResponseStore::Open(path);
  ASSERT_TRUE(store.ok()) << store.status().message();
  EXPECT_TRUE(PutNow(**store, Response("new")).ok());
}

TEST_F(StoreTest, AFullDiskIsSaidAndWhatFitsIsKept) {
  StoreLimits limits;
  limits.max_file_bytes = 256 << 10;
  auto store = *ResponseStore::Open(path, limits);
  ASSERT_TRUE(PutNow(*store, Response("small")).ok());
  std::vector<Status> statuses(3);
  store->Put(Response("large", 2 << 20), [&](const Status& s) { statuses[0] = s; });
  store->Put(Response("next"), [&](const Status& s) { statuses[1] = s; });
  store->PutTurn({"k"}, "turn");
  store->Flush();
  EXPECT_EQ(statuses[0].code(), StatusCode::kResourceExhausted) << statuses[0].message();
  EXPECT_THAT(statuses[0].message(), HasSubstr("full"));
  EXPECT_TRUE(statuses[1].ok()) << statuses[1].message();
  EXPECT_TRUE(store->Get("", "small").ok());
  EXPECT_TRUE(store->Get("", "next").ok());
  EXPECT_FALSE(store->Get("", "large").ok());
  EXPECT_EQ(store->FindTurn("k"), "turn");
}

TEST_F(StoreTest, FilesThatCannotBeUsedAreRefused) {
  EXPECT_THAT(ResponseStore::Open("/proc/no/such/folder/x.db").status().message(), HasSubstr("/proc/no/such"));
  { auto store = *ResponseStore::Open(path); }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(60);  // user_version, big-endian
  file << std::string("\0\0\0\x63", 4);
  file.close();
  EXPECT_THAT(ResponseStore::Open(path).status().message(), HasSubstr("newer version"));
}

}  // namespace
}  // namespace gptoss::server

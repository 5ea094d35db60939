// Downloads a set of files with several connections, in ranges, until every one is complete and checked.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "hub/http_client.h"
#include "hub/part_file.h"
#include "hub/retry.h"

namespace gptoss::hub {

struct DownloadOptions {
  HttpOptions http;
  std::string repo;      // for messages
  std::string base_url;  // escaped file paths are appended
  int jobs = 4;
  uint64_t chunk_bytes = 64u << 20;
  RetryPolicy retry;
  const std::atomic<bool>* cancel = nullptr;
};

struct DownloadProgress {
  uint64_t bytes_done = 0;
  int files_done = 0;
  int files_verifying = 0;
};

/// What Run reports; `tick` (about five times a second) and `note` are called on the caller's thread, `verified` on a
/// worker's, one at a time.
struct DownloadEvents {
  std::function<void(const DownloadProgress&)> tick;
  std::function<void(const std::string&)> note;  // one line for people, e.g. that a range is tried again
  std::function<Status(const RemoteFile&)> verified;
};

/// The error for an HTTP status that ends a download: says what a person can do about 401, 403 and 404.
Status HttpStatusError(const HttpResponse& response, const std::string& repo, const std::string& what, bool has_token);

class Downloader {
 public:
  Downloader(DownloadOptions options, std::vector<std::unique_ptr<PartFile>> files, DownloadEvents events);

  /// Returns once all files are in place, or with the first error; what was received by then is kept for a later call.
  /// Each file is read again from the start once if its checksum is wrong. On failure: kIo, kCorruptData,
  /// kResourceExhausted, kUnsupported, kNotFound, each naming the file; kCancelled.
  Status Run();

  /// Bytes received from the network, including those that had to be thrown away.
  uint64_t bytes_received() const { return bytes_received_.load(); }

 private:
  struct Task {
    std::unique_ptr<PartFile> part;
    std::deque<ByteRange> pending;
    int in_flight = 0;
    bool whole_only = false;  // the server ignores ranges: one connection, from the first byte
    bool restart = false;     // once nothing is in flight, forget all bytes and begin again
    bool verifying = false;
    bool finished = false;
    int restarts = 0;
    int wrong_checksums = 0;
  };
  struct Unit {
    Task* task;
    ByteRange range;
    bool verify = false;
    bool whole_only = false;
  };
  enum class Outcome { kDone, kAbandoned, kTransient, kFatal };
  struct Attempt {
    Outcome outcome = Outcome::kDone;
    Status status;
    std::optional<int64_t> retry_after_s;
  };

  void Work();
  std::optional<Unit> Claim();
  std::optional<Unit> ClaimFrom(Task& task);
  Status Process(HttpClient& client, const Unit& unit);
  Status Fetch(HttpClient& client, const Unit& unit);
  Attempt Try(HttpClient& client, Task& task, ByteRange* left);
  Attempt Judge(const HttpResponse& response, const Task& task, const ByteRange& left) const;
  Attempt CheckHead(const HttpResponse& head, Task& task, const ByteRange& left, bool ranged);
  Status Verify(Task& task);
  Status RequestRestart(Task& task, bool whole_only);
  bool Sleep(double seconds);
  void Note(std::string text);
  void Stop(Status status);
  DownloadProgress Snapshot();

  const DownloadOptions options_;
  const DownloadEvents events_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> bytes_received_{0};

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<Task> tasks_;
  std::vector<std::string> notes_;
  Status error_;
  int workers_ = 0;
  uint64_t jitter_state_ = 0;
};

}  // namespace gptoss::hub

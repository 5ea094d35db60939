// Structured logs: one JSON object a line, written by a thread of its own so that nobody waits for a slow disk or pipe.
// They never hold what users or models say.
#pragma once

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "json/json.h"

namespace gptoss::server {

/// Thread-safe.
class Log {
 public:
  /// Writes to `file`, which must outlive the log; null: nowhere.
  explicit Log(std::FILE* file);
  /// Writes what is waiting.
  ~Log();

  /// Adds the time. When too much waits, lines are dropped, and counted in the next that is not.
  void Write(Json fields);

 private:
  void Loop();

  std::FILE* const file_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<std::string> lines_;
  uint64_t dropped_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace gptoss::server

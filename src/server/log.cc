#include "server/log.h"

#include <array>
#include <chrono>
#include <ctime>
#include <utility>

namespace gptoss::server {
namespace {

constexpr size_t kMostWaiting = 10'000;

/// "2026-01-31T12:00:00.123Z".
std::string UtcNow() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = static_cast<std::time_t>(millis / 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> date{};
  const size_t length = std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  const std::string fraction = std::to_string(1000 + millis % 1000);
  return std::string(date.data(), length) + "." + fraction.substr(1) + "Z";
}

}  // namespace

Log::Log(std::FILE* file) : file_(file) {
  if (file_ != nullptr) thread_ = std::thread([this] { Loop(); });
}

Log::~Log() {
  if (file_ == nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_one();
  thread_.join();
}

void Log::Write(Json fields) {
  if (file_ == nullptr) return;
  Json line = {{"time", UtcNow()}};
  line.update(fields);
  const std::lock_guard lock(mutex_);
  if (lines_.size() >= kMostWaiting) {
    ++dropped_;
    return;
  }
  if (dropped_ > 0) line["dropped_lines"] = std::exchange(dropped_, 0);
  lines_.push_back(WriteJson(line) + "\n");
  ready_.notify_one();
}

void Log::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stopping_ || !lines_.empty(); });
    if (lines_.empty()) return;
    const std::vector<std::string> lines = std::exchange(lines_, {});
    lock.unlock();
    for (const std::string& line : lines) std::fwrite(line.data(), 1, line.size(), file_);
    std::fflush(file_);
    lock.lock();
  }
}

}  // namespace gptoss::server

// What an op needs besides its arguments: threads, scratch memory and a profiler. Passed, never global.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "parallel/device.h"
#include "parallel/thread_pool.h"

namespace gptoss {

/// Memory of a device that lasts until the enclosing ScratchFrame ends. Blocks are kept and reused. Not thread-safe:
/// ops allocate before they fork.
class ScratchArena {
 public:
  /// `device` must outlive the arena.
  explicit ScratchArena(Device& device = HostDevice()) : device_(&device) {}

  Device& device() const { return *device_; }
  /// `count` uninitialised values of T, aligned to 64 bytes.
  template <typename T>
  T* Allocate(size_t count) {
    return static_cast<T*>(AllocateBytes(count * sizeof(T)));
  }
  /// Holds `bytes` at least, in one piece, so that frames of up to as much take nothing more. Nothing may be allocated.
  /// On failure: kResourceExhausted naming the size.
  Status Reserve(size_t bytes);
  /// Bytes held from the system.
  size_t capacity() const;

 private:
  friend class ScratchFrame;
  struct Block {
    DeviceBuffer memory;
    size_t used = 0;
  };
  void* AllocateBytes(size_t bytes);
  Device* device_;
  std::vector<Block> blocks_;
  size_t current_ = 0;
};

/// Gives back at its end what was allocated since its start.
class ScratchFrame {
 public:
  explicit ScratchFrame(ScratchArena& arena);
  ~ScratchFrame();
  ScratchFrame(const ScratchFrame&) = delete;
  ScratchFrame& operator=(const ScratchFrame&) = delete;

 private:
  ScratchArena& arena_;
  size_t block_, used_;
};

/// What forward passes touched, from which the bytes follow that they had to read.
struct PassCounts {
  int64_t passes = 0;
  int64_t rows = 0;
  int64_t head_passes = 0;   // times that the output matrix was read
  int64_t experts = 0;       // experts with at least one row, summed over layers and passes
  int64_t kv_positions = 0;  // positions whose keys and values were needed, summed over sequences, layers and passes
};

/// Seconds by stage name, and what the passes touched. Stage names are string literals. Not thread-safe.
class Profiler {
 public:
  void Add(std::string_view stage, double seconds) { seconds_[stage] += seconds; }
  const std::map<std::string_view, double>& seconds() const { return seconds_; }
  /// Of the seconds above, those in which the calling thread waited for the others of the pool.
  double waiting() const { return waiting_; }
  double* wait_clock() { return &waiting_; }
  PassCounts& counts() { return counts_; }
  const PassCounts& counts() const { return counts_; }
  void Reset() { *this = Profiler(); }
  /// Whether a stage ends when the device has done its work, and not when it has been told. That is what takes the
  /// time, but the device then idles between stages. Without effect on the host.
  void set_waits(bool waits) { waits_ = waits; }
  bool waits() const { return waits_; }

 private:
  std::map<std::string_view, double> seconds_;
  double waiting_ = 0;
  PassCounts counts_;
  bool waits_ = true;
};

struct ExecContext {
  ThreadPool& pool;
  ScratchArena& scratch;
  Profiler* profiler = nullptr;          // null: no timing
  ScratchArena* host_scratch = nullptr;  // of the host, beside another device's, where some layers stay on the host

  Device& device() const { return scratch.device(); }
};

/// Times its own scope under `stage`, when there is a profiler.
class ProfileScope {
 public:
  ProfileScope(ExecContext& context, std::string_view stage)
      : profiler_(context.profiler), device_(&context.device()), stage_(stage) {
    if (profiler_ != nullptr) start_ = std::chrono::steady_clock::now();
  }
  ~ProfileScope() {
    if (profiler_ == nullptr) return;
    // What went wrong on the device is said again where its results are fetched.
    if (profiler_->waits()) static_cast<void>(device_->Wait());
    profiler_->Add(stage_, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profiler* profiler_;
  Device* device_;
  std::string_view stage_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace gptoss

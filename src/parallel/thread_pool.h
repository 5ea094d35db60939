// A pool for kernels that run for microseconds. Work is claimed in small pieces, never dealt in fixed shares, so a
// thread that the operating system has taken off its core holds up at most the one piece that it had claimed.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace gptoss {

/// Threads that share the work of one caller at a time. Run must not be called from inside a task, nor by two threads
/// at once.
class ThreadPool {
 public:
  /// `num_threads` counts the calling thread; at least 1.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  /// Adds to `*seconds` the time that the calling thread, out of work itself, waits for the others at the end of Run.
  /// Null: not measured, which is the default.
  void set_wait_clock(double* seconds) { wait_seconds_ = seconds; }

  /// Calls function(task, worker) once for every task in [0, count); worker is in [0, num_threads()). Returns when all
  /// are done; what the tasks wrote is visible to the caller.
  template <typename Function>
  void Run(int64_t count, const Function& function) {
    RunErased(count, &Invoke<Function>, &function);
  }

  /// Calls function(begin, end, worker) on pieces of at most `grain` items that cover [0, count).
  template <typename Function>
  void ParallelFor(int64_t count, int64_t grain, const Function& function) {
    const int64_t pieces = (count + grain - 1) / grain;
    Run(pieces, [&](int64_t piece, int worker) {
      const int64_t begin = piece * grain;
      function(begin, begin + grain < count ? begin + grain : count, worker);
    });
  }

 private:
  using TaskFunction = void (*)(const void* context, int64_t task, int worker);
  template <typename Function>
  static void Invoke(const void* context, int64_t task, int worker) {
    (*static_cast<const Function*>(context))(task, worker);
  }

  void RunErased(int64_t count, TaskFunction function, const void* context);
  void WorkerLoop(int worker);
  /// Claims and runs tasks of job `epoch` until none is left.
  void WorkOn(uint32_t epoch, int worker);
  void AwaitAll(uint32_t count);

  // The job. Fields are read before a claim and trusted only if the claim, which checks the epoch, succeeds.
  std::atomic<TaskFunction> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<uint32_t> count_{0};
  alignas(64) std::atomic<uint64_t> ticket_{0};  // epoch << 32 | next task
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> wake_{0};  // changes with every job and at shutdown
  std::atomic<bool> stop_{false};
  double* wait_seconds_ = nullptr;  // the caller's
  std::vector<std::thread> threads_;
};

}  // namespace gptoss

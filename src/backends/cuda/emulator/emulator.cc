#include "backends/cuda/emulator/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "backends/cuda/emulator/guarded_memory.h"
#include "base/check.h"

namespace gptoss::cuda {

ThreadPlace current_place;

namespace {

constexpr size_t kStackBytes = size_t{128} << 10;
constexpr int kWarpSize = 32;

enum class FiberState { kReady, kAtBlockBarrier, kAtExchange, kEnded };

/// Entered by its context once; from then on threads change places by jumps, which need no system call.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool entered = false;
  std::unique_ptr<std::byte[]> stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
  FiberState state = FiberState::kReady;
};

/// Slots of one warp, for its even and its odd exchanges: nobody writes into those of an exchange before all have read
/// those of the one before.
struct WarpSlots {
  std::array<std::array<std::byte, kWarpSize * kLaneBytes>, 2> slots;
  std::array<int, kWarpSize> exchanges = {};  // done by each lane
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<WarpSlots> warps;
  std::vector<std::max_align_t> shared;
  const std::function<void()>* kernel = nullptr;
  jmp_buf scheduler;
  size_t running = 0;
};
Block block;

/// The i-th of `count` to go.
size_t InOrder(size_t i, size_t count) {
  static const bool backward = std::getenv("GPTOSS_EMULATOR_BACKWARD") != nullptr;
  return backward ? count - 1 - i : i;
}

void Enter() {
  (*block.kernel)();
  block.fibers[block.running].state = FiberState::kEnded;
  _longjmp(block.scheduler, 1);
}

void Wait(FiberState state) {
  Fiber& fiber = block.fibers[block.running];
  fiber.state = state;
  if (_setjmp(fiber.place) == 0) _longjmp(block.scheduler, 1);
}

/// Runs a fiber until it waits or ends.
void Resume(Fiber& fiber) {
  if (_setjmp(block.scheduler) != 0) return;
  if (fiber.entered) _longjmp(fiber.place, 1);
  fiber.entered = true;
  GPTOSS_CHECK(setcontext(&fiber.context) == 0);
}

void Prepare(size_t threads) {
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  block.warps.assign(threads / kWarpSize, WarpSlots());
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.state = FiberState::kReady;
    fiber.entered = false;
    GPTOSS_CHECK(getcontext(&fiber.context) == 0);
    fiber.context.uc_stack = {.ss_sp = fiber.stack.get(), .ss_flags = 0, .ss_size = kStackBytes};
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, Enter, 0);
  }
}

/// Fibers begin … end - 1 all wait in `state` or have ended: those that wait go on.
bool Release(size_t begin, size_t end, FiberState state) {
  bool waiting = false;
  for (size_t i = begin; i < end; ++i) {
    if (block.fibers[i].state != state && block.fibers[i].state != FiberState::kEnded) return false;
    waiting |= block.fibers[i].state == state;
  }
  if (!waiting) return false;
  for (size_t i = begin; i < end; ++i) {
    if (block.fibers[i].state == state) block.fibers[i].state = FiberState::kReady;
  }
  return true;
}

/// Runs the lanes of a warp until each waits for the block or has ended.
void RunWarp(size_t begin, size_t end) {
  do {
    for (size_t i = 0; i < end - begin; ++i) {
      const size_t thread = begin + InOrder(i, end - begin);
      if (block.fibers[thread].state != FiberState::kReady) continue;
      block.running = thread;
      current_place.thread = {static_cast<unsigned>(thread), 0, 0};
      Resume(block.fibers[thread]);
    }
  } while (Release(begin, end, FiberState::kAtExchange));
}

/// Threads that still wait when none can go on would be a deadlock on a GPU too.
void RunBlock(size_t threads) {
  Prepare(threads);
  std::ranges::fill(std::as_writable_bytes(std::span(block.shared)), kNobodysByte);
  const size_t warps = threads / kWarpSize;
  do {
    for (size_t i = 0; i < warps; ++i) {
      const size_t begin = InOrder(i, warps) * kWarpSize;
      RunWarp(begin, begin + kWarpSize);
    }
  } while (Release(0, threads, FiberState::kAtBlockBarrier));
  for (size_t i = 0; i < threads; ++i) GPTOSS_CHECK(block.fibers[i].state == FiberState::kEnded);
}

}  // namespace

void* SharedMemory() { return block.shared.data(); }

void BlockBarrier() { Wait(FiberState::kAtBlockBarrier); }

const std::byte* WarpExchange(const void* value, size_t bytes) {
  GPTOSS_CHECK(bytes <= kLaneBytes);
  WarpSlots& warp = block.warps[block.running / kWarpSize];
  const size_t lane = block.running % kWarpSize;
  std::byte* slots = warp.slots[static_cast<size_t>(warp.exchanges[lane]++ % 2)].data();
  std::memcpy(slots + lane * kLaneBytes, value, bytes);
  Wait(FiberState::kAtExchange);
  return slots;
}

void RunGrid(dim3 grid, dim3 size, size_t shared_bytes, const std::function<void()>& kernel) {
  GPTOSS_CHECK(size.y == 1 && size.z == 1 && size.x <= 1024 && size.x % kWarpSize == 0);
  const DeviceScope scope;
  block.kernel = &kernel;
  block.shared.resize(shared_bytes / sizeof(std::max_align_t) + 1);
  const size_t blocks = size_t{grid.x} * grid.y * grid.z;
  for (size_t i = 0; i < blocks; ++i) {
    const size_t index = InOrder(i, blocks);
    const dim3 place{static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
                     static_cast<unsigned>(index / grid.x / grid.y)};
    current_place = {.thread = {}, .block = place, .block_size = size, .grid_size = grid};
    RunBlock(size.x);
  }
}

}  // namespace gptoss::cuda

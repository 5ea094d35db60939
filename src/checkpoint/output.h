// What the writers share: files that appear only when complete, and rows that several threads convert and write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "checkpoint/checkpoint.h"

namespace gptoss {

/// A file or directory that is written under a temporary name beside `path` and renamed when it is complete. What was
/// not committed is removed.
class StagedPath {
 public:
  /// On failure: kInvalidArgument when something other than an empty directory is there; kResourceExhausted when the
  /// disk has less than `bytes` free; kIo.
  static Result<StagedPath> Create(const std::string& path, bool is_directory, uint64_t bytes);

  StagedPath(StagedPath&& other) noexcept;
  StagedPath(const StagedPath&) = delete;
  ~StagedPath();

  const std::string& staged() const { return staged_; }
  Status Commit();

 private:
  StagedPath() = default;
  std::string path_, staged_;
};

/// A new file that threads write to at offsets. Move-only.
class OutputFile {
 public:
  static Result<OutputFile> Create(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  ~OutputFile();

  /// On failure: kIo, or kResourceExhausted when the disk is full.
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) const;
  Status WriteAt(uint64_t offset, std::string_view text) const {
    return WriteAt(offset, std::as_bytes(std::span(text)));
  }
  /// Waits until the bytes are on the disk, and closes.
  Status Finish();

 private:
  OutputFile() = default;
  std::string path_;
  int fd_ = -1;
};

/// Buffers of one thread, reused from task to task.
struct WriteScratch {
  std::vector<std::byte> data, scales, source_data, source_scales, packed;
};

struct WriteTask {
  uint64_t bytes = 0;  // for progress
  std::function<Status(WriteScratch&)> run;
};

/// Runs the tasks on a few threads, in no fixed order. The first error, or a cancelled progress, stops all.
Status RunWriteTasks(const std::vector<WriteTask>& tasks, WriteProgress* progress);

/// About this many bytes make one task.
inline constexpr uint64_t kWriteChunkBytes = 4 << 20;

enum class RowPart { kDataAndScales, kData, kScales };

/// Reads rows [first, first + count) of `tensor` as type `to` into scratch.data and scratch.scales.
/// On failure: what ReadRows and RowConverter say, naming the tensor.
Status ReadConvertedRows(const Checkpoint& source, const StoredTensor& tensor, uint64_t first, uint64_t count, DType to,
                         RowPart part, bool allow_lossy, WriteScratch* scratch);

}  // namespace gptoss

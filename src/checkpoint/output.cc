#include "checkpoint/output.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>

#include "checkpoint/row_convert.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;

/// More threads than this only compete for the disk.
constexpr unsigned kMaxThreads = 8;

Status SystemError(const std::string& path, const char* what) {
  const int error = errno;
  const std::string message = path + ": " + what + ": " + std::strerror(error);
  return error == ENOSPC || error == EDQUOT ? ResourceExhausted(message) : IoError(message);
}

std::string WithoutTrailingSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

Status CheckFree(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (!fs::exists(status)) return Status();
  if (fs::is_directory(status) && fs::is_empty(path, error) && !error) return Status();
  return InvalidArgument(path + ": already exists; remove it or choose another path");
}

Status CheckSpace(const std::string& directory, uint64_t bytes) {
  struct statvfs info;
  if (::statvfs(directory.c_str(), &info) != 0) return SystemError(directory, "cannot ask for free space");
  const uint64_t free = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (free >= bytes) return Status();
  return ResourceExhausted(directory + ": " + std::to_string(bytes) + " bytes are needed, " + std::to_string(free) +
                           " are free");
}

}  // namespace

Result<StagedPath> StagedPath::Create(const std::string& path, bool is_directory, uint64_t bytes) {
  if (path.empty()) return InvalidArgument("no path was given to write to");
  StagedPath staged;
  staged.path_ = WithoutTrailingSlash(path);
  GPTOSS_RETURN_IF_ERROR(CheckFree(staged.path_));
  std::string parent = fs::path(staged.path_).parent_path().string();
  if (parent.empty()) parent = ".";
  GPTOSS_RETURN_IF_ERROR(CheckSpace(parent, bytes));
  const std::string temporary = staged.path_ + ".tmp." + std::to_string(::getpid());
  std::error_code error;
  fs::remove_all(temporary, error);  // left over by a process that was killed and had our number
  if (is_directory && !fs::create_directory(temporary, error)) {
    return IoError(temporary + ": cannot create: " + error.message());
  }
  staged.staged_ = temporary;
  return staged;
}

StagedPath::StagedPath(StagedPath&& other) noexcept
    : path_(std::move(other.path_)), staged_(std::exchange(other.staged_, {})) {}

StagedPath::~StagedPath() {
  std::error_code error;
  if (!staged_.empty()) fs::remove_all(staged_, error);
}

Status StagedPath::Commit() {
  GPTOSS_RETURN_IF_ERROR(CheckFree(path_));
  std::error_code error;
  if (fs::is_directory(path_, error)) fs::remove(path_, error);  // an empty one
  if (::rename(staged_.c_str(), path_.c_str()) != 0) return SystemError(path_, "cannot rename the finished output");
  staged_.clear();
  return Status();
}

Result<OutputFile> OutputFile::Create(const std::string& path) {
  OutputFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file.fd_ < 0) return SystemError(path, "cannot create");
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status OutputFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path_, "cannot write");
    done += static_cast<size_t>(n);
  }
  return Status();
}

Status OutputFile::Finish() {
  const bool synced = ::fsync(fd_) == 0;
  Status status = synced ? Status() : SystemError(path_, "cannot flush");
  if (::close(std::exchange(fd_, -1)) != 0 && synced) status = SystemError(path_, "cannot close");
  return status;
}

Status RunWriteTasks(const std::vector<WriteTask>& tasks, WriteProgress* progress) {
  uint64_t total = 0;
  for (const WriteTask& task : tasks) total += task.bytes;
  std::atomic<size_t> next{0};
  std::mutex mutex;  // guards the two below, and progress
  uint64_t done = 0;
  Status first_error;

  const auto work = [&] {
    WriteScratch scratch;
    for (size_t i = next.fetch_add(1); i < tasks.size(); i = next.fetch_add(1)) {
      Status status = tasks[i].run(scratch);
      const std::lock_guard lock(mutex);
      done += tasks[i].bytes;
      if (status.ok() && progress != nullptr && !progress->Update(done, total))
        status = Cancelled("writing was cancelled");
      if (!status.ok()) {
        if (first_error.ok()) first_error = std::move(status);
        next.store(tasks.size());
      }
    }
  };
  const size_t wanted =
      std::min<size_t>(std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads), tasks.size());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < wanted; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return first_error;
}

Status ReadConvertedRows(const Checkpoint& source, const StoredTensor& tensor, uint64_t first, uint64_t count, DType to,
                         RowPart part, bool allow_lossy, WriteScratch* scratch) {
  const uint64_t cols = tensor.spec.cols();
  const uint64_t data_bytes = part == RowPart::kScales ? 0 : RowBytes(to, cols);
  const uint64_t scale_bytes = part == RowPart::kData ? 0 : RowScaleBytes(to, cols);
  scratch->data.resize(count * data_bytes);
  scratch->scales.resize(count * scale_bytes);
  if (tensor.dtype == to) return source.ReadRows(tensor, first, count, scratch->data, scratch->scales);

  const uint64_t in_data = RowBytes(tensor.dtype, cols), in_scales = RowScaleBytes(tensor.dtype, cols);
  scratch->source_data.resize(count * in_data);
  scratch->source_scales.resize(count * in_scales);
  GPTOSS_RETURN_IF_ERROR(source.ReadRows(tensor, first, count, scratch->source_data, scratch->source_scales));
  RowConverter convert(tensor.dtype, to, cols, allow_lossy);
  const auto row = [](std::vector<std::byte>& whole, uint64_t r, uint64_t bytes) {
    return std::span(whole).subspan(r * bytes, bytes);
  };
  for (uint64_t r = 0; r < count; ++r) {
    const Status status = convert.Row(row(scratch->source_data, r, in_data), row(scratch->source_scales, r, in_scales),
                                      row(scratch->data, r, data_bytes), row(scratch->scales, r, scale_bytes));
    GPTOSS_RETURN_IF_ERROR(status.WithContext(source.Describe() + ": tensor \"" + tensor.spec.name + "\""));
  }
  return Status();
}

}  // namespace gptoss

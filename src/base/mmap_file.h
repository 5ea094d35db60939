// Read-only access to a file: mapped, or read in pieces with pread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace gptoss {

/// An open file that is mapped on demand and can be read from any thread. Move-only.
class MappedFile {
 public:
  /// Opens and maps `path` read-only. On failure: kNotFound or kIo, naming the path. An empty file maps to an empty
  /// span.
  static Result<MappedFile> Open(const std::string& path);

  /// As if `bytes` were the contents of a file called `path`. They are not copied and must outlive the object.
  static MappedFile OfMemory(std::string path, std::span<const std::byte> bytes);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  /// Reads exactly dst.size() bytes at `offset` with pread, without touching the mapping (so that pages of large
  /// weights do not count as this process's memory). On failure: kIo or kCorruptData when the file ends early.
  Status ReadAt(uint64_t offset, std::span<std::byte> dst) const;

 private:
  MappedFile() = default;
  void Close();
  std::string path_;
  int fd_ = -1;  // of memory: none
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

/// Tells the system that the pages of a mapped range need not stay in this process; they come back when touched.
void DropResidentPages(std::span<const std::byte> mapped);

/// Whole contents of a small text file. On failure: kNotFound, kIo, or kResourceExhausted past `max_bytes`.
Result<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes = 64u << 20);

/// Writes `text` to `path` through a temporary file and rename, so that a crash leaves the old file or the new one.
Status WriteFileAtomically(const std::string& path, std::string_view text);

}  // namespace gptoss

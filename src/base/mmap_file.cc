#include "base/mmap_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace gptoss {
namespace {

Status SystemError(const std::string& path, const char* what) {
  const int error = errno;
  const std::string message = path + ": " + what + ": " + std::strerror(error);
  return error == ENOENT ? NotFound(message) : IoError(message);
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::string& path) {
  MappedFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd_ < 0) return SystemError(path, "cannot open");
  struct stat info;
  if (::fstat(file.fd_, &info) != 0) return SystemError(path, "cannot stat");
  if (!S_ISREG(info.st_mode)) return InvalidArgument(path + ": not a regular file");
  file.size_ = static_cast<uint64_t>(info.st_size);
  if (file.size_ > 0) {
    void* p = ::mmap(nullptr, file.size_, PROT_READ, MAP_SHARED, file.fd_, 0);
    if (p == MAP_FAILED) return SystemError(path, "cannot map");
    file.data_ = static_cast<const std::byte*>(p);
  }
  return file;
}

MappedFile MappedFile::OfMemory(std::string path, std::span<const std::byte> bytes) {
  MappedFile file;
  file.path_ = std::move(path);
  file.data_ = bytes.data();
  file.size_ = bytes.size();
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  Close();
  path_ = std::move(other.path_);
  fd_ = std::exchange(other.fd_, -1);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

MappedFile::~MappedFile() { Close(); }

void MappedFile::Close() {
  if (fd_ >= 0) {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
    ::close(fd_);
  }
  data_ = nullptr;
  fd_ = -1;
}

Status MappedFile::ReadAt(uint64_t offset, std::span<std::byte> dst) const {
  size_t done = 0;
  if (fd_ < 0) {
    if (offset > size_ || dst.size() > size_ - offset) {
      return CorruptData(path_ + ": ends at byte " + std::to_string(size_) + ", more was expected");
    }
    std::memcpy(dst.data(), data_ + offset, dst.size());
    return Status();
  }
  while (done < dst.size()) {
    const ssize_t n = ::pread(fd_, dst.data() + done, dst.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path_, "cannot read");
    if (n == 0)
      return CorruptData(path_ + ": file ends at byte " + std::to_string(offset + done) + ", more was expected");
    done += static_cast<size_t>(n);
  }
  return Status();
}

void DropResidentPages(std::span<const std::byte> mapped) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(mapped.data()) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(mapped.data() + mapped.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  GPTOSS_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (file.size() > max_bytes) {
    return ResourceExhausted(path + ": " + std::to_string(file.size()) + " bytes, more than the limit of " +
                             std::to_string(max_bytes));
  }
  std::string text(file.size(), '\0');
  GPTOSS_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Status WriteFileAtomically(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".tmp." + std::to_string(::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError(temporary, "cannot create");
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      Status status = SystemError(temporary, "cannot write");
      ::close(fd);
      ::unlink(temporary.c_str());
      return status;
    }
    done += static_cast<size_t>(n);
  }
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  if (!synced || ::rename(temporary.c_str(), path.c_str()) != 0) {
    Status status = SystemError(path, "cannot replace");
    ::unlink(temporary.c_str());
    return status;
  }
  return Status();
}

}  // namespace gptoss

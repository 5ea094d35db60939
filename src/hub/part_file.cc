#include "hub/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/mmap_file.h"
#include "json/json.h"

namespace gptoss::hub {
namespace {

constexpr int64_t kStateVersion = 1;

Status SystemError(const std::string& path, std::string_view what) {
  const int error = errno;
  const std::string message = path + ": " + std::string(what) + ": " + std::strerror(error);
  return error == ENOSPC || error == EDQUOT ? ResourceExhausted(message) : IoError(message);
}

}  // namespace

PartFile::PartFile(std::string path, RemoteFile file, std::string identity, uint64_t save_interval)
    : path_(std::move(path)), file_(std::move(file)), identity_(std::move(identity)), save_interval_(save_interval) {}

PartFile::~PartFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::unique_ptr<PartFile>> PartFile::Open(const std::string& folder, const RemoteFile& file,
                                                 const std::string& commit, uint64_t save_interval) {
  const std::filesystem::path path = std::filesystem::path(folder) / file.path;
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) return IoError(path.parent_path().string() + ": cannot create the folder: " + error.message());
  const std::string identity = file.digest.known() ? file.digest.ToString() : "commit:" + commit;
  std::unique_ptr<PartFile> part(new PartFile(path.string(), file, identity, save_interval));
  GPTOSS_RETURN_IF_ERROR(part->OpenFile());
  if (!part->LoadState()) GPTOSS_RETURN_IF_ERROR(part->Reset());
  return part;
}

Status PartFile::OpenFile() {
  const std::string name = path_ + ".part";
  fd_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  return fd_ < 0 ? SystemError(name, "cannot open") : Status();
}

/// False when there is nothing that can be resumed.
bool PartFile::LoadState() {
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || static_cast<uint64_t>(info.st_size) != file_.size) return false;
  const auto text = ReadTextFile(path_ + ".part.json");
  if (!text.ok()) return false;
  const auto root = ParseJson(*text);
  if (!root.ok()) return false;
  const auto version = GetInt(*root, "version");
  const auto size = GetInt(*root, "size");
  const std::string* identity = FindString(*root, "identity");
  const std::string* etag = FindString(*root, "etag");
  const Json* done = FindField(*root, "done");
  if (!version.ok() || *version != kStateVersion || !size.ok() || static_cast<uint64_t>(*size) != file_.size ||
      identity == nullptr || *identity != identity_ || etag == nullptr || done == nullptr) {
    return false;
  }
  auto ranges = RangeSet::FromJson(*done, file_.size);
  if (!ranges.ok()) return false;
  done_ = *std::move(ranges);
  etag_ = *etag;
  return true;
}

uint64_t PartFile::BytesDone() const {
  const std::lock_guard lock(mutex_);
  return done_.TotalBytes();
}

std::vector<ByteRange> PartFile::Missing(uint64_t chunk) const {
  const std::lock_guard lock(mutex_);
  return done_.Missing(file_.size, chunk);
}

Status PartFile::Write(uint64_t offset, std::string_view bytes) {
  GPTOSS_CHECK(offset <= file_.size && bytes.size() <= file_.size - offset);
  for (size_t written = 0; written < bytes.size();) {
    const ssize_t n =
        ::pwrite(fd_, bytes.data() + written, bytes.size() - written, static_cast<off_t>(offset + written));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path_ + ".part", "cannot write");
    written += static_cast<size_t>(n);
  }
  const std::lock_guard lock(mutex_);
  done_.Add({offset, offset + bytes.size()});
  unsaved_ += bytes.size();
  return unsaved_ >= save_interval_ ? SaveStateLocked() : Status();
}

bool PartFile::AcceptEtag(const std::string& etag) {
  const std::lock_guard lock(mutex_);
  if (file_.digest.known() || etag.empty()) return true;
  if (etag_.empty()) etag_ = etag;
  return etag_ == etag;
}

Status PartFile::SaveState() {
  const std::lock_guard lock(mutex_);
  return unsaved_ == 0 ? Status() : SaveStateLocked();
}

Status PartFile::SaveStateLocked() {
  const Json root = {{"version", kStateVersion},
                     {"size", file_.size},
                     {"identity", identity_},
                     {"etag", etag_},
                     {"done", done_.ToJson()}};
  unsaved_ = 0;
  return WriteFileAtomically(path_ + ".part.json", WriteJson(root) + "\n");
}

Status PartFile::Reset() {
  const std::lock_guard lock(mutex_);
  done_.Clear();
  etag_.clear();
  // To zero first, so that no byte of the old contents remains.
  if (::ftruncate(fd_, 0) != 0 || ::ftruncate(fd_, static_cast<off_t>(file_.size)) != 0) {
    return SystemError(path_ + ".part", "cannot set the size");
  }
  return SaveStateLocked();
}

Status PartFile::Finish(const std::atomic<bool>* cancel) {
  const std::string name = path_ + ".part";
  if (::fsync(fd_) != 0) return SystemError(name, "cannot write");
  if (BytesDone() != file_.size) return CorruptData(file_.path + ": bytes are missing");
  if (file_.digest.known()) {
    GPTOSS_ASSIGN_OR_RETURN(const Digest actual, DigestFile(name, file_.digest.kind, cancel));
    if (!(actual == file_.digest)) {
      return CorruptData(file_.path + ": the downloaded bytes have " + actual.ToString() + ", the listing says " +
                         file_.digest.ToString());
    }
  }
  if (::rename(name.c_str(), path_.c_str()) != 0) return SystemError(path_, "cannot rename the finished download");
  ::unlink((path_ + ".part.json").c_str());
  return Status();
}

void PartFile::Discard() {
  const std::lock_guard lock(mutex_);
  unsaved_ = 0;
  ::unlink((path_ + ".part").c_str());
  ::unlink((path_ + ".part.json").c_str());
}

}  // namespace gptoss::hub

#include "hub/pull.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>  // renameat2
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

#include "hub/cache.h"
#include "hub/downloader.h"
#include "hub/http_client.h"
#include "hub/names.h"
#include "hub/part_file.h"

namespace gptoss::hub {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kDiskReserve = 64u << 20;
constexpr uint64_t kMaxSaveInterval = 8u << 20;
constexpr uint64_t kMinChunk = 64u << 10, kMaxChunk = uint64_t{64} << 30;
constexpr int kMaxJobs = 32;

/// Held while a model is being pulled; released by the system if the process dies.
class FolderLock {
 public:
  static Result<FolderLock> Take(const std::string& path, const std::string& repo) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return IoError(path + ": cannot open: " + std::strerror(errno));
    FolderLock lock(fd);
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      return IoError(repo + " is being pulled by another process (it holds " + path + ")");
    }
    return lock;
  }
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

void SyncFolder(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

std::string Gigabytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f GB", static_cast<double>(bytes) * 1e-9);
  return text;
}

bool HasSize(const fs::path& path, uint64_t size) {
  std::error_code error;
  return fs::is_regular_file(path, error) && fs::file_size(path, error) == size && !error;
}

/// One pull: the paths and what has been decided so far.
class PullJob {
 public:
  PullJob(const PullOptions& options, const PullEvents& events) : options_(options), events_(events) {}
  Result<PullSummary> Run();

 private:
  Status Prepare();
  Result<std::string> FetchListing(HttpClient& client);
  Status SelectAndCompare();
  bool IsAlreadyComplete() const;
  Result<std::vector<std::unique_ptr<PartFile>>> PlanDownloads();
  bool TakeVerified(const RemoteFile& file);
  bool LinkFromPlaced(const RemoteFile& file);
  Status CheckSpace(uint64_t bytes) const;
  Status Download(std::vector<std::unique_ptr<PartFile>> parts);
  Status Place();
  void KeepFilesOfSameCommit();
  void RemoveStrays() const;
  Status Swap();
  void RemoveReplaced(const fs::path& old) const;
  HttpOptions Http() const;
  bool Sleep(double seconds) const;

  const PullOptions& options_;
  const PullEvents& events_;
  std::string endpoint_;
  fs::path placed_, partial_;
  RepoListing listing_;
  bool has_previous_ = false;  // a model of this name is in place
  Manifest previous_;
  Manifest manifest_;  // of the partial folder: files that are in place there
  PullSummary summary_;
};

HttpOptions PullJob::Http() const {
  return {.endpoint = endpoint_,
          .token = options_.token,
          .ca_file = options_.ca_file,
          .allow_plain_http = options_.allow_plain_http};
}

Status PullJob::Prepare() {
  GPTOSS_ASSIGN_OR_RETURN(summary_.repo, ResolveRepoName(options_.name));
  GPTOSS_RETURN_IF_ERROR(ValidateRevision(options_.revision));
  if (options_.jobs < 1 || options_.jobs > kMaxJobs) return InvalidArgument("--jobs must be 1 to 32");
  if (options_.chunk_bytes < kMinChunk || options_.chunk_bytes > kMaxChunk) {
    return InvalidArgument("--chunk-size must be 64K to 64G");
  }
  if (options_.retry.max_retries < 0 || !(options_.retry.first_delay_s >= 0)) {
    return InvalidArgument("--retries and --retry-delay must not be negative");
  }
  summary_.revision = options_.revision;
  endpoint_ = options_.endpoint;
  while (endpoint_.ends_with('/')) endpoint_.pop_back();
  std::string models_dir = options_.models_dir;
  if (models_dir.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(models_dir, DefaultModelsDir());
  }
  std::error_code error;
  fs::create_directories(models_dir, error);
  if (error) return IoError(models_dir + ": cannot create the folder: " + error.message());
  placed_ = fs::path(models_dir) / FolderName(summary_.repo);
  partial_ = placed_;
  partial_ += ".partial";
  summary_.path = placed_.string();
  return Status();
}

bool PullJob::Sleep(double seconds) const {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    if (options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed)) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

Result<std::string> PullJob::FetchListing(HttpClient& client) {
  const std::string url = endpoint_ + "/api/models/" + UrlEscape(summary_.repo, true) + "/revision/" +
                          UrlEscape(options_.revision, false) + "?blobs=true";
  for (int failures = 0;;) {
    std::string body;
    const auto response = client.Get(url, std::nullopt, options_.cancel, [&](const HttpResponse&, std::string_view b) {
      body.append(b.substr(0, kMaxListingBytes + 1 - std::min(body.size(), kMaxListingBytes + 1)));
      return body.size() <= kMaxListingBytes;
    });
    if (!response.ok() && response.status().code() != StatusCode::kIo) return response.status();
    if (response.ok() && response->stopped_by_sink) {
      return ResourceExhausted(summary_.repo + ": the endpoint's listing is longer than 32 MiB");
    }
    if (response.ok() && response->status / 100 == 2) return body;
    if (response.ok() && !IsTransientStatus(response->status)) {
      return HttpStatusError(*response, summary_.repo, "revision \"" + options_.revision + "\"",
                             !options_.token.empty());
    }
    const std::string why =
        response.ok() ? "the server answered HTTP " + std::to_string(response->status) : response.status().message();
    const auto retry_after = response.ok() ? response->retry_after_s : std::nullopt;
    if (++failures > options_.retry.max_retries || retry_after.value_or(0) > kMaxRetryAfterSeconds) {
      return IoError(summary_.repo + ": cannot list the repository: " + why + "; check the network or --endpoint" +
                     (retry_after ? " (the server asks to wait " + std::to_string(*retry_after) + " s)" : ""));
    }
    const double delay = RetryDelay(options_.retry, failures, retry_after, 0.5);
    events_.note("listing " + summary_.repo + ": " + why + "; trying again");
    if (!Sleep(delay)) return Cancelled("stopped");
  }
}

Status PullJob::SelectAndCompare() {
  GPTOSS_ASSIGN_OR_RETURN(HttpClient client, HttpClient::Create(Http()));
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, FetchListing(client));
  auto listing = ParseListing(text);
  if (!listing.ok()) return listing.status().WithContext(summary_.repo);
  listing_ = *std::move(listing);
  auto files = SelectFiles(listing_, options_.selection);
  if (!files.ok()) return files.status().WithContext(summary_.repo);
  summary_.files = *std::move(files);
  summary_.commit = listing_.commit;
  for (const RemoteFile& file : summary_.files) summary_.bytes_total += file.size;

  std::error_code error;
  if (!fs::exists(placed_, error)) return Status();
  auto previous = ReadManifest(placed_.string());
  if (!previous.ok()) {
    return Unsupported(placed_.string() +
                       " exists but was not made by gptoss pull; move it away or choose another --cache-dir");
  }
  previous_ = *std::move(previous);
  has_previous_ = true;
  return Status();
}

bool PullJob::IsAlreadyComplete() const {
  return std::all_of(summary_.files.begin(), summary_.files.end(), [&](const RemoteFile& file) {
    const RemoteFile* have = previous_.Find(file.path);
    const bool same = have != nullptr && have->size == file.size && have->digest == file.digest;
    const bool known = file.digest.known() || previous_.commit == listing_.commit;
    return same && known && HasSize(placed_ / file.path, file.size);
  });
}

/// A file that an earlier, interrupted call finished.
bool PullJob::TakeVerified(const RemoteFile& file) {
  const RemoteFile* have = manifest_.Find(file.path);
  const bool known = file.digest.known() || manifest_.commit == listing_.commit;
  return have != nullptr && have->size == file.size && have->digest == file.digest && known &&
         HasSize(partial_ / file.path, file.size);
}

/// A file that the present version of the model has too: one more name for the same bytes.
bool PullJob::LinkFromPlaced(const RemoteFile& file) {
  const RemoteFile* have = previous_.Find(file.path);
  if (have == nullptr || !file.digest.known() || !(have->digest == file.digest)) return false;
  if (!HasSize(placed_ / file.path, file.size)) return false;
  std::error_code error;
  fs::create_directories((partial_ / file.path).parent_path(), error);
  fs::remove(partial_ / file.path, error);
  fs::create_hard_link(placed_ / file.path, partial_ / file.path, error);
  if (error) return false;  // a file system without links: download it again
  std::erase_if(manifest_.files, [&](const RemoteFile& f) { return f.path == file.path; });
  manifest_.files.push_back(file);
  return true;
}

Result<std::vector<std::unique_ptr<PartFile>>> PullJob::PlanDownloads() {
  std::error_code error;
  fs::create_directories(partial_, error);
  if (error) return IoError(partial_.string() + ": cannot create the folder: " + error.message());
  if (auto manifest = ReadManifest(partial_.string()); manifest.ok()) manifest_ = *std::move(manifest);
  std::vector<const RemoteFile*> missing;
  for (const RemoteFile& file : summary_.files) {
    if (!TakeVerified(file) && !LinkFromPlaced(file)) missing.push_back(&file);
  }
  // An entry without checksum counts only within one commit; entries of another commit are dropped with their files.
  std::erase_if(manifest_.files, [&](const RemoteFile& have) {
    const bool wanted = std::any_of(summary_.files.begin(), summary_.files.end(), [&](const RemoteFile& file) {
      return file.path == have.path && file.size == have.size && file.digest == have.digest;
    });
    const bool lacks = std::any_of(missing.begin(), missing.end(), [&](const auto* f) { return f->path == have.path; });
    return !wanted || lacks;
  });
  manifest_.repo = summary_.repo;
  manifest_.revision = options_.revision;
  manifest_.commit = listing_.commit;
  manifest_.endpoint = endpoint_;
  GPTOSS_RETURN_IF_ERROR(WriteManifest(partial_.string(), manifest_));

  std::vector<std::unique_ptr<PartFile>> parts;
  const uint64_t interval = std::min(options_.chunk_bytes, kMaxSaveInterval);
  uint64_t bytes = 0;
  for (const RemoteFile* file : missing) {
    GPTOSS_ASSIGN_OR_RETURN(auto part, PartFile::Open(partial_.string(), *file, listing_.commit, interval));
    bytes += file->size - part->BytesDone();
    parts.push_back(std::move(part));
  }
  GPTOSS_RETURN_IF_ERROR(CheckSpace(bytes));
  return parts;
}

Status PullJob::CheckSpace(uint64_t bytes) const {
  struct statvfs info {};
  if (bytes == 0 || ::statvfs(partial_.c_str(), &info) != 0) return Status();
  const uint64_t available = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (available >= bytes && available - bytes >= kDiskReserve) return Status();
  return ResourceExhausted(partial_.string() + ": " + Gigabytes(bytes) + " are still to be downloaded but only " +
                           Gigabytes(available) + " are free; free some, or choose another disk with --cache-dir");
}

Status PullJob::Download(std::vector<std::unique_ptr<PartFile>> parts) {
  uint64_t in_parts = 0;
  for (const auto& part : parts) in_parts += part->file().size;
  PullProgress progress;
  progress.bytes_total = summary_.bytes_total;
  progress.files_total = static_cast<int>(summary_.files.size());
  const uint64_t bytes_before = summary_.bytes_total - in_parts;
  const int files_before = progress.files_total - static_cast<int>(parts.size());

  DownloadOptions options;
  options.http = Http();
  options.repo = summary_.repo;
  // The commit, where known: a branch that moves during a long download then cannot mix two versions.
  const std::string& at = listing_.commit.empty() ? options_.revision : listing_.commit;
  options.base_url = endpoint_ + "/" + UrlEscape(summary_.repo, true) + "/resolve/" + UrlEscape(at, false) + "/";
  options.jobs = options_.jobs;
  options.chunk_bytes = options_.chunk_bytes;
  options.retry = options_.retry;
  options.cancel = options_.cancel;

  DownloadEvents events;
  events.note = events_.note;
  events.tick = [&](const DownloadProgress& now) {
    progress.bytes_done = bytes_before + now.bytes_done;
    progress.files_done = files_before + now.files_done;
    progress.files_verifying = now.files_verifying;
    events_.progress(progress);
  };
  events.verified = [&](const RemoteFile& file) {
    manifest_.files.push_back(file);
    return WriteManifest(partial_.string(), manifest_);
  };
  Downloader downloader(std::move(options), std::move(parts), std::move(events));
  const Status status = downloader.Run();
  summary_.bytes_received = downloader.bytes_received();
  return status;
}

/// Pulling original/* of a commit does not lose its other files, nor the other way round.
void PullJob::KeepFilesOfSameCommit() {
  if (listing_.commit.empty() || previous_.commit != listing_.commit) return;
  for (const RemoteFile& file : previous_.files) {
    if (manifest_.Find(file.path) == nullptr) LinkFromPlaced(file);
  }
}

/// Leftovers of earlier selections and of interrupted writes; the folder was made by pull and holds nothing else.
void PullJob::RemoveStrays() const {
  std::error_code error;
  std::vector<fs::path> strays;
  for (fs::recursive_directory_iterator it(partial_, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(error)) continue;
    const std::string relative = it->path().lexically_relative(partial_).generic_string();
    if (relative != kManifestName && manifest_.Find(relative) == nullptr) strays.push_back(it->path());
  }
  for (const fs::path& stray : strays) {
    fs::remove(stray, error);
    for (fs::path folder = stray.parent_path(); folder != partial_; folder = folder.parent_path()) {
      if (!fs::remove(folder, error)) break;  // only when empty
    }
  }
}

void PullJob::RemoveReplaced(const fs::path& old) const {
  std::error_code error;
  std::vector<fs::path> folders;
  for (const RemoteFile& file : previous_.files) {
    fs::remove(old / file.path, error);
    for (fs::path folder = (old / file.path).parent_path(); folder != old; folder = folder.parent_path()) {
      folders.push_back(folder);
    }
  }
  fs::remove(old / kManifestName, error);
  std::sort(folders.begin(), folders.end(),
            [](const fs::path& a, const fs::path& b) { return a.native().size() > b.native().size(); });
  for (const fs::path& folder : folders) fs::remove(folder, error);
  if (fs::remove(old, error); fs::exists(old, error)) {
    events_.note("kept " + old.string() + ": it holds files of the replaced model that gptoss pull did not place");
  }
}

Status PullJob::Swap() {
  std::error_code error;
  fs::path old = placed_.string() + ".old";
  for (int n = 1; fs::exists(old, error); ++n) old = placed_.string() + "." + std::to_string(n) + ".old";
  // At every instant a complete model stands under the name. Some network file systems cannot exchange; there the name
  // is free for a moment.
  if (has_previous_ && ::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, placed_.c_str(), RENAME_EXCHANGE) == 0) {
    fs::rename(partial_, old, error);
    if (error) return IoError(partial_.string() + ": cannot rename the replaced model: " + error.message());
  } else {
    if (has_previous_) fs::rename(placed_, old, error);
    if (error) return IoError(placed_.string() + ": cannot move the replaced model away: " + error.message());
    fs::rename(partial_, placed_, error);
    if (error) {
      std::error_code ignored;
      if (has_previous_) fs::rename(old, placed_, ignored);
      return IoError(placed_.string() + ": cannot put the finished model in place: " + error.message());
    }
  }
  SyncFolder(placed_.parent_path());
  if (has_previous_) RemoveReplaced(old);
  return Status();
}

Status PullJob::Place() {
  KeepFilesOfSameCommit();
  std::sort(manifest_.files.begin(), manifest_.files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.path < b.path; });
  GPTOSS_RETURN_IF_ERROR(WriteManifest(partial_.string(), manifest_));
  RemoveStrays();
  SyncFolder(partial_);
  return Swap();
}

Result<PullSummary> PullJob::Run() {
  GPTOSS_RETURN_IF_ERROR(Prepare());
  const fs::path lock_path = placed_.parent_path() / ("." + placed_.filename().string() + ".lock");
  GPTOSS_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(lock_path.string(), summary_.repo));
  GPTOSS_RETURN_IF_ERROR(SelectAndCompare());
  if (IsAlreadyComplete()) {
    summary_.already_complete = true;
    return summary_;
  }
  GPTOSS_ASSIGN_OR_RETURN(auto parts, PlanDownloads());
  GPTOSS_RETURN_IF_ERROR(Download(std::move(parts)));
  GPTOSS_RETURN_IF_ERROR(Place());
  return summary_;
}

}  // namespace

Result<PullSummary> Pull(const PullOptions& options, const PullEvents& events) {
  return PullJob(options, events).Run();
}

}  // namespace gptoss::hub

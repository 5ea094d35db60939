#include "hub/downloader.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "base/rng.h"
#include "hub/names.h"

namespace gptoss::hub {
namespace {

constexpr std::chrono::milliseconds kTick{200};
constexpr int kMaxWrongChecksums = 2;
/// An attempt that brought at least this much was not in vain: the count of failures begins again.
constexpr uint64_t kProgressBytes = 1u << 20;

std::string Seconds(double s) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f s", s);
  return text;
}

}  // namespace

Status HttpStatusError(const HttpResponse& response, const std::string& repo, const std::string& what, bool has_token) {
  const std::string code = " (HTTP " + std::to_string(response.status) +
                           (response.error_message.empty() ? "" : ": " + response.error_message) + ")";
  const bool gated = response.error_code == "GatedRepo" || response.status == 403;
  if (response.status == 401 || response.status == 403) {
    const std::string why = gated ? "the repository is gated: accept its terms on its web page, and "
                                  : "the repository is private or gated, or does not exist: ";
    return IoError(repo + ": access to " + what + " was refused" + code + "; " + why +
                   (has_token ? "use an HF_TOKEN that may read it" : "set HF_TOKEN to a token that may read it"));
  }
  if (response.status == 404) {
    return NotFound(repo + ": " + what + " was not found" + code + "; check the name and --revision");
  }
  return IoError(repo + ": " + what + ": the server answered" + code);
}

Downloader::Downloader(DownloadOptions options, std::vector<std::unique_ptr<PartFile>> files, DownloadEvents events)
    : options_(std::move(options)), events_(std::move(events)), jitter_state_(std::random_device{}()) {
  for (auto& part : files) {
    Task task;
    for (const ByteRange& range : part->Missing(options_.chunk_bytes)) task.pending.push_back(range);
    task.part = std::move(part);
    tasks_.push_back(std::move(task));
  }
}

Status Downloader::Run() {
  // curl_global_init is not thread-safe; the first client is made here. This also reports bad options before any
  // thread.
  if (const auto probe = HttpClient::Create(options_.http); !probe.ok()) return probe.status();
  workers_ = options_.jobs;
  std::vector<std::thread> threads;
  for (int i = 0; i < options_.jobs; ++i) {
    try {
      threads.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {  // the system's limit of threads: go on with those that exist
      const std::lock_guard lock(mutex_);
      workers_ -= options_.jobs - i;
      if (i == 0) error_ = ResourceExhausted("cannot start a thread; raise the limit of processes");
      break;
    }
  }
  for (bool running = true; running;) {
    std::vector<std::string> notes;
    {
      std::unique_lock lock(mutex_);
      running = !changed_.wait_for(lock, kTick, [&] { return workers_ == 0; });
      notes.swap(notes_);
    }
    if (options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed)) Stop(Cancelled("stopped"));
    for (const std::string& note : notes) events_.note(note);
    events_.tick(Snapshot());
  }
  for (std::thread& thread : threads) thread.join();
  for (const Task& task : tasks_) {
    if (task.finished) continue;
    if (Status saved = task.part->SaveState(); !saved.ok() && error_.ok()) error_ = saved;
  }
  return error_;
}

void Downloader::Work() {
  auto client = HttpClient::Create(options_.http);
  if (!client.ok()) Stop(client.status());
  while (client.ok()) {
    const std::optional<Unit> unit = Claim();
    if (!unit) break;
    const Status status = Process(*client, *unit);
    if (!status.ok()) Stop(status);
  }
  const std::lock_guard lock(mutex_);
  --workers_;
  changed_.notify_all();
}

std::optional<Downloader::Unit> Downloader::Claim() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    bool all_finished = true;
    for (Task& task : tasks_) {
      if (task.finished) continue;
      all_finished = false;
      if (auto unit = ClaimFrom(task)) return unit;
    }
    if (all_finished) return std::nullopt;
    changed_.wait(lock);
  }
  return std::nullopt;
}

/// The next thing to do for one file, if any; with mutex_ held.
std::optional<Downloader::Unit> Downloader::ClaimFrom(Task& task) {
  if (task.verifying) return std::nullopt;
  if (task.restart) {
    if (task.in_flight > 0) return std::nullopt;
    if (Status reset = task.part->Reset(); !reset.ok()) {
      error_ = reset;
      stop_ = true;
      changed_.notify_all();
      return std::nullopt;
    }
    task.restart = false;
    task.pending.clear();
    const uint64_t chunk = task.whole_only ? std::max<uint64_t>(task.part->file().size, 1) : options_.chunk_bytes;
    for (const ByteRange& range : task.part->Missing(chunk)) task.pending.push_back(range);
  }
  if (!task.pending.empty()) {
    const ByteRange range = task.pending.front();
    task.pending.pop_front();
    ++task.in_flight;
    return Unit{&task, range, false, task.whole_only};
  }
  if (task.in_flight > 0) return std::nullopt;
  task.verifying = true;
  return Unit{&task, {}, true, false};
}

Status Downloader::Process(HttpClient& client, const Unit& unit) {
  Task& task = *unit.task;
  const Status status = unit.verify ? Verify(task) : Fetch(client, unit);
  const std::lock_guard lock(mutex_);
  if (unit.verify) {
    task.verifying = false;
  } else {
    --task.in_flight;
  }
  changed_.notify_all();
  return status;
}

/// Fetches a range, with as many attempts as the policy allows.
Status Downloader::Fetch(HttpClient& client, const Unit& unit) {
  Task& task = *unit.task;
  ByteRange left = unit.range;
  const std::string& path = task.part->file().path;
  for (int failures = 0;;) {
    const uint64_t before = left.size();
    Attempt attempt = Try(client, task, &left);
    if (attempt.outcome == Outcome::kDone) return task.part->SaveState();
    if (attempt.outcome == Outcome::kAbandoned) return Status();
    if (attempt.outcome == Outcome::kFatal) return attempt.status;
    if (before - left.size() >= kProgressBytes && !unit.whole_only) failures = 0;
    if (++failures > options_.retry.max_retries) {
      return IoError(path + ": " + attempt.status.message() + ", " + std::to_string(failures) +
                     " times in a row; the same command resumes where it stopped");
    }
    double jitter = 0;
    {
      const std::lock_guard lock(mutex_);
      jitter = static_cast<double>(Mix64(++jitter_state_) >> 11) * 0x1.0p-53;
    }
    if (attempt.retry_after_s.value_or(0) > kMaxRetryAfterSeconds) {
      return IoError(path + ": " + attempt.status.message() + "; the server asks to wait " +
                     std::to_string(*attempt.retry_after_s) + " s, run the same command again then");
    }
    const double delay = RetryDelay(options_.retry, failures, attempt.retry_after_s, jitter);
    Note(path + ": " + attempt.status.message() + "; trying again in " + Seconds(delay));
    if (!Sleep(delay)) return Cancelled("stopped");
    if (unit.whole_only) {  // then this is the file's only range in flight
      GPTOSS_RETURN_IF_ERROR(task.part->Reset());
      left = {0, task.part->file().size};
    }
  }
}

/// One request; `left` shrinks by what was written.
Downloader::Attempt Downloader::Try(HttpClient& client, Task& task, ByteRange* left) {
  const RemoteFile& file = task.part->file();
  const bool ranged = left->size() != file.size;
  bool head_checked = false;
  Attempt refused;
  const auto sink = [&](const HttpResponse& head, std::string_view bytes) {
    bytes_received_.fetch_add(bytes.size(), std::memory_order_relaxed);
    if (!std::exchange(head_checked, true)) refused = CheckHead(head, task, *left, ranged);
    if (refused.outcome != Outcome::kDone) return false;
    const bool surplus = bytes.size() > left->size();
    if (surplus && !ranged) {
      refused = {Outcome::kFatal, IoError(file.path + ": the server sends more bytes than its listing says"), {}};
      return false;
    }
    bytes = bytes.substr(0, left->size());  // past the range nothing is taken; the checksum judges the rest
    if (Status written = task.part->Write(left->begin, bytes); !written.ok()) {
      refused = {Outcome::kFatal, written, {}};
      return false;
    }
    left->begin += bytes.size();
    return !surplus;
  };
  std::optional<ByteRange> range;
  if (ranged) range = *left;
  const auto response = client.Get(options_.base_url + UrlEscape(file.path, true), range, &stop_, sink);
  if (refused.outcome != Outcome::kDone) return refused;
  if (!response.ok()) {
    const bool transient = response.status().code() == StatusCode::kIo;
    if (transient) return {Outcome::kTransient, response.status(), {}};
    const bool cancelled = response.status().code() == StatusCode::kCancelled;
    return {Outcome::kFatal, cancelled ? response.status() : response.status().WithContext(file.path), {}};
  }
  return Judge(*response, task, *left);
}

/// What a completed exchange means for the range, of which `left` was not received.
Downloader::Attempt Downloader::Judge(const HttpResponse& response, const Task& task, const ByteRange& left) const {
  if (response.status / 100 == 2) {
    if (left.size() == 0) return {};
    return {Outcome::kTransient,
            IoError("the server ended its answer " + std::to_string(left.size()) + " bytes early"),
            {}};
  }
  // 416: the server's file is shorter than its listing says. That can be a stale cache, so it is worth asking again.
  if (IsTransientStatus(response.status) || response.status == 416) {
    return {Outcome::kTransient, IoError("the server answered HTTP " + std::to_string(response.status)),
            response.retry_after_s};
  }
  return {Outcome::kFatal,
          HttpStatusError(response, options_.repo, task.part->file().path, !options_.http.token.empty()),
          {}};
}

/// Whether the body that begins is the one asked for.
Downloader::Attempt Downloader::CheckHead(const HttpResponse& head, Task& task, const ByteRange& left, bool ranged) {
  const uint64_t size = task.part->file().size;
  const auto lie = [](std::string message) { return Attempt{Outcome::kTransient, IoError(std::move(message)), {}}; };
  if (ranged && head.status == 200) {
    const Status status = RequestRestart(task, /*whole_only=*/true);
    return {status.ok() ? Outcome::kAbandoned : Outcome::kFatal, status, {}};
  }
  if (head.status != (ranged ? 206 : 200)) {
    return lie("the server answered HTTP " + std::to_string(head.status) + " to a plain download");
  }
  if (ranged) {
    if (!head.content_range || !(head.content_range->range == left) ||
        head.content_range->total.value_or(size) != size) {
      return lie("the server answered with another range than the one asked for");
    }
  } else if (head.content_length && *head.content_length != size) {
    return lie("the server announces " + std::to_string(*head.content_length) + " bytes, its listing " +
               std::to_string(size));
  }
  if (!task.part->AcceptEtag(head.etag)) {
    const Status status = RequestRestart(task, /*whole_only=*/false);
    return {status.ok() ? Outcome::kAbandoned : Outcome::kFatal, status, {}};
  }
  return {};
}

Status Downloader::RequestRestart(Task& task, bool whole_only) {
  const std::lock_guard lock(mutex_);
  if (task.restart) return Status();  // another connection found the same
  task.restart = true;
  task.whole_only |= whole_only;
  task.pending.clear();
  if (++task.restarts > options_.retry.max_retries + 1) {
    return IoError(task.part->file().path + ": the server's file keeps changing while it is read; try again later");
  }
  return Status();
}

Status Downloader::Verify(Task& task) {
  const Status status = task.part->Finish(&stop_);
  if (status.ok()) {
    const std::lock_guard lock(mutex_);
    GPTOSS_RETURN_IF_ERROR(events_.verified(task.part->file()));
    task.finished = true;
    return Status();
  }
  if (status.code() != StatusCode::kCorruptData) return status;
  if (++task.wrong_checksums >= kMaxWrongChecksums) {
    task.part->Discard();
    return CorruptData(status.message() + ", in " + std::to_string(kMaxWrongChecksums) +
                       " downloads; nothing of this file was kept, try again later or with another --endpoint");
  }
  Note(status.message() + "; downloading it again");
  const std::lock_guard lock(mutex_);
  task.restart = true;
  return Status();
}

/// False when the download was stopped meanwhile.
bool Downloader::Sleep(double seconds) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return stop_.load(); });
}

void Downloader::Note(std::string text) {
  const std::lock_guard lock(mutex_);
  notes_.push_back(std::move(text));
}

/// The first error is the one reported: later ones are often only its consequences.
void Downloader::Stop(Status status) {
  const std::lock_guard lock(mutex_);
  if (error_.ok()) error_ = std::move(status);
  stop_ = true;
  changed_.notify_all();
}

DownloadProgress Downloader::Snapshot() {
  const std::lock_guard lock(mutex_);
  DownloadProgress progress;
  for (const Task& task : tasks_) {
    progress.bytes_done += task.part->BytesDone();
    progress.files_done += task.finished ? 1 : 0;
    progress.files_verifying += task.verifying ? 1 : 0;
  }
  return progress;
}

}  // namespace gptoss::hub

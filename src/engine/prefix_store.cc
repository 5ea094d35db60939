#include "engine/prefix_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/mmap_file.h"
#include "base/rng.h"
#include "checkpoint/xxh64.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'g', 'p', 't', 'o', 's', 's', 'k', 'v'};
constexpr uint32_t kVersion = 1;
constexpr std::string_view kSuffix = ".kv";
/// Copies that wait for the disk; more is not stored.
constexpr uint64_t kMaxQueuedBytes = 256u << 20;

template <typename T>
void Put(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::span<const std::byte> AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// The key that a file's name spells; false for names of other files.
bool ParseName(std::string_view name, std::array<uint64_t, 2>* key) {
  if (name.size() != 32 + kSuffix.size() || !name.ends_with(kSuffix)) return false;
  for (int half = 0; half < 2; ++half) {
    uint64_t value = 0;
    for (const char c : name.substr(static_cast<size_t>(half) * 16, 16)) {
      const size_t digit = std::string_view("0123456789abcdef").find(c);
      if (digit == std::string_view::npos) return false;
      value = value << 4 | digit;
    }
    (*key)[static_cast<size_t>(half)] = value;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<PrefixStore>> PrefixStore::Open(const PrefixStoreOptions& options) {
  const auto error = [&](const std::string& what) {
    return IoError("cache folder " + options.directory + ": " + what);
  };
  std::error_code code;
  fs::create_directories(options.directory, code);
  if (code) return error(code.message());
  fs::permissions(options.directory, fs::perms::owner_all, code);
  if (code) return error(code.message());
  const std::string lock = options.directory + "/lock";
  const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return error(std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return error("another process is using it; give each its own folder");
  }
  std::unique_ptr<PrefixStore> store(new PrefixStore(options, fd));
  GPTOSS_RETURN_IF_ERROR(store->ReadFolder());
  return store;
}

PrefixStore::PrefixStore(const PrefixStoreOptions& options, int lock_fd)
    : options_(options), lock_fd_(lock_fd), writer_([this] { WriterLoop(); }) {}

PrefixStore::~PrefixStore() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  writer_.join();
  ::close(lock_fd_);
}

Status PrefixStore::ReadFolder() {
  struct Found {
    fs::file_time_type time;
    uint64_t bytes;
    Key key;
  };
  std::vector<Found> found;
  std::error_code code;
  for (fs::directory_iterator it(options_.directory, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename().string();
    Found file;
    std::error_code unread;
    if (ParseName(name, &file.key)) {
      file.time = it->last_write_time(unread);
      file.bytes = unread ? 0 : it->file_size(unread);
      if (!unread) found.push_back(file);
    } else if (name.find(std::string(kSuffix) + ".tmp.") != std::string::npos) {
      fs::remove(it->path(), unread);  // a write that a crash cut off
    }
  }
  if (code) return IoError("cache folder " + options_.directory + ": " + code.message());
  std::ranges::sort(found, {}, &Found::time);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Found& file : found) Add(file.key, {file.bytes, next_stamp_++, true});
  return Status();
}

std::string PrefixStore::PathOf(const Key& key) const {
  std::string name;
  for (const uint64_t half : key) {
    for (int shift = 60; shift >= 0; shift -= 4) name += "0123456789abcdef"[half >> shift & 15];
  }
  return options_.directory + "/" + name + std::string(kSuffix);
}

std::vector<PrefixStore::Key> PrefixStore::Keys(std::span<const int32_t> tokens) const {
  std::vector<Key> keys = {{Mix64(options_.model + kGoldenGamma), Mix64(~options_.model + kGoldenGamma)}};
  keys.reserve(tokens.size() + 1);
  for (const int32_t token : tokens) {
    const auto [a, b] = keys.back();
    const auto word = static_cast<uint64_t>(static_cast<uint32_t>(token));
    keys.push_back({Mix64((a ^ word) + kGoldenGamma), Mix64(b + (word << 1 | 1) * kGoldenGamma)});
  }
  return keys;
}

PrefixStore::Key PrefixStore::KeyOf(Kind kind, const Key& prefix) {
  return {prefix[0] ^ static_cast<uint64_t>(kind), prefix[1]};
}

int PrefixStore::WindowEntries(int length, int* first) const {
  *first = std::max(0, length - options_.window + 1) / options_.block_size;
  return (length + options_.block_size - 1) / options_.block_size - *first;
}

uint64_t PrefixStore::PayloadBytes(Kind kind, int length) const {
  if (kind == Kind::kBlock) return options_.full_block_bytes;
  int first;
  const auto windowed = static_cast<uint64_t>(WindowEntries(length, &first));
  return (length % options_.block_size == 0 ? 0 : options_.full_block_bytes) + windowed * options_.sliding_block_bytes;
}

std::string PrefixStore::Header(Kind kind, std::span<const int32_t> tokens) const {
  std::string header(kMagic, sizeof kMagic);
  Put(kVersion, &header);
  Put(static_cast<uint32_t>(kind), &header);
  Put(options_.model, &header);
  Put(static_cast<uint64_t>(tokens.size()), &header);
  Put(PayloadBytes(kind, static_cast<int>(tokens.size())), &header);
  header.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
  return header;
}

int PrefixStore::FindLongest(std::span<const int32_t> tokens, int limit) const {
  tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(std::max(0, limit))));
  const std::vector<Key> keys = Keys(tokens);
  const auto size = static_cast<size_t>(options_.block_size);
  const std::lock_guard<std::mutex> lock(mutex_);
  int longest = 0;
  for (size_t length = 1; length < keys.size(); ++length) {
    if (length % size == 0 && !OnDisk(KeyOf(Kind::kBlock, keys[length]))) break;
    if (OnDisk(KeyOf(Kind::kCheckpoint, keys[length]))) longest = static_cast<int>(length);
  }
  return longest;
}

Result<std::string> PrefixStore::ReadFile(Kind kind, const Key& key, std::span<const int32_t> tokens) {
  const std::string path = PathOf(key), header = Header(kind, tokens);
  const auto read = [&]() -> Result<std::string> {
    GPTOSS_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
    const uint64_t payload = PayloadBytes(kind, static_cast<int>(tokens.size()));
    if (file.size() != header.size() + payload + sizeof(uint64_t)) return CorruptData(path + ": has another size");
    std::string contents(static_cast<size_t>(file.size()), '\0');
    GPTOSS_RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(contents))));
    const std::string_view body(contents.data(), contents.size() - sizeof(uint64_t));
    uint64_t checksum;
    std::memcpy(&checksum, contents.data() + body.size(), sizeof checksum);
    if (Xxh64(AsBytes(body)) != checksum) return CorruptData(path + ": is damaged");
    if (!body.starts_with(header)) return CorruptData(path + ": belongs to another model or other tokens");
    return contents.substr(header.size(), static_cast<size_t>(payload));
  };
  Result<std::string> payload = read();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (payload.ok()) {
    ++counts_.loaded;
    Touch(key);
  } else {
    ++counts_.rejected;
    Forget(key);
  }
  return payload;
}

Status PrefixStore::Load(std::span<const int32_t> tokens, int first_block, const WriteBlock& write) {
  const std::vector<Key> keys = Keys(tokens);
  const auto length = static_cast<int>(tokens.size());
  // The checkpoint first and the blocks from the last on: so the beginning, which most prompts share, is the last to
  // be thrown away.
  GPTOSS_ASSIGN_OR_RETURN(const std::string state,
                          ReadFile(Kind::kCheckpoint, KeyOf(Kind::kCheckpoint, keys.back()), tokens));
  std::span<const std::byte> rest = AsBytes(state);
  if (length % options_.block_size != 0) {
    write(KvGroup::kFull, length / options_.block_size, rest.first(options_.full_block_bytes));
    rest = rest.subspan(options_.full_block_bytes);
  }
  int first;
  const int windowed = WindowEntries(length, &first);
  for (int i = 0; i < windowed; ++i) {
    write(KvGroup::kSliding, first + i, rest.first(options_.sliding_block_bytes));
    rest = rest.subspan(options_.sliding_block_bytes);
  }
  for (int block = length / options_.block_size - 1; block >= first_block; --block) {
    const auto end = static_cast<size_t>((block + 1) * options_.block_size);
    GPTOSS_ASSIGN_OR_RETURN(const std::string contents,
                            ReadFile(Kind::kBlock, KeyOf(Kind::kBlock, keys[end]), tokens.first(end)));
    write(KvGroup::kFull, block, AsBytes(contents));
  }
  return Status();
}

void PrefixStore::Save(std::span<const int32_t> tokens, const ReadBlock& read) {
  const std::vector<Key> keys = Keys(tokens);
  const auto length = static_cast<int>(tokens.size());
  const auto missing = [&](const Key& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!files_.contains(key)) return job_bytes_ < kMaxQueuedBytes;
    Touch(key);
    return false;
  };
  const auto append = [&](KvGroup group, int entry, std::string* contents) {
    const size_t bytes = group == KvGroup::kFull ? options_.full_block_bytes : options_.sliding_block_bytes;
    contents->resize(contents->size() + bytes);
    read(group, entry, std::as_writable_bytes(std::span(*contents)).last(bytes));
  };
  if (const Key key = KeyOf(Kind::kCheckpoint, keys.back()); missing(key)) {
    std::string contents = Header(Kind::kCheckpoint, tokens);
    if (length % options_.block_size != 0) append(KvGroup::kFull, length / options_.block_size, &contents);
    int first;
    const int windowed = WindowEntries(length, &first);
    for (int i = 0; i < windowed; ++i) append(KvGroup::kSliding, first + i, &contents);
    Enqueue(key, std::move(contents));
  }
  for (int block = length / options_.block_size - 1; block >= 0; --block) {
    const auto end = static_cast<size_t>((block + 1) * options_.block_size);
    const Key key = KeyOf(Kind::kBlock, keys[end]);
    if (!missing(key)) continue;
    std::string contents = Header(Kind::kBlock, tokens.first(end));
    append(KvGroup::kFull, block, &contents);
    Enqueue(key, std::move(contents));
  }
}

void PrefixStore::Enqueue(const Key& key, std::string contents) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    job_bytes_ += contents.size();
    Add(key, {contents.size() + sizeof(uint64_t), next_stamp_++, false});
    jobs_.push_back({key, std::move(contents)});
  }
  work_.notify_one();
}

void PrefixStore::Flush() {
  std::unique_lock<std::mutex> lock(mutex_);
  idle_.wait(lock, [&] { return jobs_.empty() && !writing_; });
}

void PrefixStore::WriterLoop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    const uint64_t bytes = job.contents.size();
    // Thrown away again before it was written.
    const bool wanted = files_.contains(job.key);
    writing_ = true;
    lock.unlock();
    if (wanted) Write(std::move(job));
    lock.lock();
    writing_ = false;
    job_bytes_ -= bytes;
    if (jobs_.empty()) idle_.notify_all();
  }
}

void PrefixStore::Write(Job job) {
  const std::string path = PathOf(job.key);
  if (job.contents.empty()) {
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
    return;
  }
  Put(Xxh64(AsBytes(job.contents)), &job.contents);
  const bool written = WriteFileAtomically(path, job.contents).ok();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (written) {
    ++counts_.written;
    const auto found = files_.find(job.key);
    if (found != files_.end()) {
      found->second.on_disk = true;
    } else {
      ::unlink(path.c_str());  // thrown away while it was written
    }
  } else {
    ++counts_.write_errors;
    Forget(job.key);
  }
}

void PrefixStore::Touch(const Key& key) {
  const auto found = files_.find(key);
  if (found == files_.end()) return;
  by_age_.erase(found->second.stamp);
  found->second.stamp = next_stamp_++;
  by_age_[found->second.stamp] = key;
  jobs_.push_back({key, {}});
  work_.notify_one();
}

bool PrefixStore::OnDisk(const Key& key) const {
  const auto found = files_.find(key);
  return found != files_.end() && found->second.on_disk;
}

void PrefixStore::Add(const Key& key, const File& file) {
  files_[key] = file;
  by_age_[file.stamp] = key;
  counts_.bytes += file.bytes;
  while (counts_.bytes > options_.max_bytes && !by_age_.empty()) Forget(Key(by_age_.begin()->second));
}

void PrefixStore::Forget(const Key& key) {
  const auto found = files_.find(key);
  if (found == files_.end()) return;
  counts_.bytes -= found->second.bytes;
  by_age_.erase(found->second.stamp);
  files_.erase(found);
  ::unlink(PathOf(key).c_str());
}

PrefixStore::Counts PrefixStore::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Counts counts = counts_;
  counts.files = files_.size();
  return counts;
}

}  // namespace gptoss

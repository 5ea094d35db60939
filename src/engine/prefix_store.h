// Prefixes of the cache in a folder, so that they outlast the process: a file for each whole block of the full layers,
// and one for each checkpoint (the begun block of the full layers, the window of the sliding ones). Files are written
// whole or not at all, by a thread beside; each names the model and all the tokens that it stands for, and ends in a
// checksum. What is damaged, cut short, or of another model, is as if it were not there.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "ops/forward_batch.h"

namespace gptoss {

struct PrefixStoreOptions {
  std::string directory;   // made if absent; readable by its owner only, for prompts are in it
  uint64_t model = 0;      // identity of whatever computed the contents
  uint64_t max_bytes = 0;  // of all files; the least recently used ones go
  int block_size = kKvBlockSize;
  int window = 128;
  uint64_t full_block_bytes = 0, sliding_block_bytes = 0;
};

class PrefixStore {
 public:
  /// Reads the bytes of a block from, or writes them to, the memory of a sequence: entry `entry` of its table.
  using ReadBlock = std::function<void(KvGroup group, int entry, std::span<std::byte> bytes)>;
  using WriteBlock = std::function<void(KvGroup group, int entry, std::span<const std::byte> bytes)>;

  /// On failure: kIo, naming the folder, also when another process uses it.
  static Result<std::unique_ptr<PrefixStore>> Open(const PrefixStoreOptions& options);
  ~PrefixStore();  // writes first what is to be written
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;

  /// The largest length of at most `limit` for which the state after that many of `tokens` is stored; 0: none.
  int FindLongest(std::span<const int32_t> tokens, int limit) const;
  /// Gives the state after all of `tokens`: full blocks from entry `first_block` on, and the window. On failure: kIo or
  /// kCorruptData; the file at fault is removed, and some blocks may have been given already.
  Status Load(std::span<const int32_t> tokens, int first_block, const WriteBlock& write);
  /// Stores the state after all of `tokens`, as far as it is not stored already. Only copies what it needs: errors of
  /// writing just leave it unstored. So does a disk that cannot keep up.
  void Save(std::span<const int32_t> tokens, const ReadBlock& read);
  /// Waits until everything saved is on disk.
  void Flush();

  struct Counts {
    uint64_t files = 0, bytes = 0, written = 0, loaded = 0, rejected = 0, write_errors = 0;
  };
  Counts counts() const;

 private:
  using Key = std::array<uint64_t, 2>;
  struct KeyHash {
    size_t operator()(const Key& key) const { return static_cast<size_t>(key[0]); }
  };
  enum class Kind : uint32_t { kBlock = 1, kCheckpoint = 2 };
  struct File {
    uint64_t bytes;
    uint64_t stamp;        // of its last use
    bool on_disk = false;  // else it is on its way
  };
  struct Job {
    Key key;
    std::string contents;  // empty: the file was used, which its time shall tell
  };

  PrefixStore(const PrefixStoreOptions& options, int lock_fd);
  Status ReadFolder();
  std::string PathOf(const Key& key) const;
  /// By length: what a file after that many tokens is called.
  std::vector<Key> Keys(std::span<const int32_t> tokens) const;
  static Key KeyOf(Kind kind, const Key& prefix);
  int WindowEntries(int length, int* first) const;
  uint64_t PayloadBytes(Kind kind, int length) const;
  std::string Header(Kind kind, std::span<const int32_t> tokens) const;
  /// The checked payload of a file.
  Result<std::string> ReadFile(Kind kind, const Key& key, std::span<const int32_t> tokens);
  void Enqueue(const Key& key, std::string contents);
  void WriterLoop();
  void Write(Job job);

  // With the mutex held.
  void Touch(const Key& key);
  void Add(const Key& key, const File& file);
  bool OnDisk(const Key& key) const;
  void Forget(const Key& key);

  const PrefixStoreOptions options_;
  const int lock_fd_;

  mutable std::mutex mutex_;
  std::condition_variable work_, idle_;
  std::unordered_map<Key, File, KeyHash> files_;
  std::map<uint64_t, Key> by_age_;  // by stamp
  uint64_t next_stamp_ = 1;
  std::deque<Job> jobs_;
  uint64_t job_bytes_ = 0;
  bool writing_ = false, stop_ = false;
  Counts counts_;

  std::thread writer_;
};

}  // namespace gptoss

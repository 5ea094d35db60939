// One file on its way in: "NAME.part" of the final size with holes, and "NAME.part.json" that lists the ranges done.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "hub/listing.h"
#include "hub/range_set.h"

namespace gptoss::hub {

/// Thread-safe. A killed process loses at most `save_interval` bytes an open range, since the state is written after
/// the bytes it describes. A machine that loses power may lose more; the checksum at the end finds that.
class PartFile {
 public:
  /// Opens or creates the pair in `folder` (created as needed). An earlier part is resumed when its state names the
  /// same size and the same identity: the checksum, or `commit` for a file that has none; anything else starts anew. On
  /// failure: kIo naming the file.
  static Result<std::unique_ptr<PartFile>> Open(const std::string& folder, const RemoteFile& file,
                                                const std::string& commit, uint64_t save_interval);
  PartFile(const PartFile&) = delete;
  ~PartFile();

  const RemoteFile& file() const { return file_; }
  uint64_t BytesDone() const;
  std::vector<ByteRange> Missing(uint64_t chunk) const;

  /// Writes at `offset`; the caller keeps within the file's size. On failure: kIo or kResourceExhausted (disk full).
  Status Write(uint64_t offset, std::string_view bytes);

  /// Notes the entity tag of the version being read. False when another version was begun: the file must be restarted.
  /// Only asked for files without checksum: mirrors of one file need not agree on its tag.
  bool AcceptEtag(const std::string& etag);

  Status SaveState();
  /// Forgets all bytes.
  Status Reset();
  /// Checks size and checksum, then gives the file its final name. On failure: kCorruptData when the bytes are not
  /// those of the listing, kIo, kCancelled.
  Status Finish(const std::atomic<bool>* cancel);
  /// Deletes both files: what is known to be wrong must not be resumed.
  void Discard();

 private:
  PartFile(std::string path, RemoteFile file, std::string identity, uint64_t save_interval);
  Status OpenFile();
  bool LoadState();
  Status SaveStateLocked();

  const std::string path_;  // final name; ".part" and ".part.json" are appended
  const RemoteFile file_;
  const std::string identity_;
  const uint64_t save_interval_;
  int fd_ = -1;

  mutable std::mutex mutex_;
  RangeSet done_;
  std::string etag_;
  uint64_t unsaved_ = 0;
};

}  // namespace gptoss::hub

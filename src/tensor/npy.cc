#include "tensor/npy.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "base/mmap_file.h"

namespace gptoss {
namespace {

constexpr char kMagic[] = "\x93NUMPY\x01\x00";
constexpr size_t kMagicBytes = 8, kPreludeBytes = 10;

uint64_t ItemSize(std::string_view dtype) {
  if (dtype == "<f4" || dtype == "<i4") return 4;
  if (dtype == "<f8") return 8;
  return dtype == "|u1" ? 1 : 0;
}

/// Text between `before` and `after` in the header dictionary, or "" when it is not there.
std::string_view Between(std::string_view text, std::string_view before, std::string_view after) {
  const size_t from = text.find(before);
  if (from == std::string_view::npos) return {};
  const size_t begin = from + before.size();
  const size_t end = text.find(after, begin);
  return end == std::string_view::npos ? std::string_view{} : text.substr(begin, end - begin);
}

}  // namespace

Result<NpyArray> ReadNpy(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const auto* data = reinterpret_cast<const char*>(file.bytes().data());
  if (file.size() < kPreludeBytes || std::memcmp(data, kMagic, kMagicBytes) != 0) {
    return CorruptData(path + ": not a .npy file of version 1.0");
  }
  const size_t header_bytes = static_cast<uint8_t>(data[8]) | static_cast<size_t>(static_cast<uint8_t>(data[9])) << 8;
  if (kPreludeBytes + header_bytes > file.size()) return CorruptData(path + ": the header is longer than the file");
  const std::string_view header(data + kPreludeBytes, header_bytes);
  NpyArray array;
  array.dtype = Between(header, "'descr': '", "'");
  const uint64_t item = ItemSize(array.dtype);
  if (item == 0 || header.find("'fortran_order': False") == std::string_view::npos) {
    return Unsupported(path + ": only C-ordered <f4, <f8, <i4 and |u1 arrays are read");
  }
  uint64_t count = 1;
  const std::string dims(Between(header, "'shape': (", ")"));
  for (const char* p = dims.c_str(); *p != '\0';) {
    if (!std::isdigit(static_cast<unsigned char>(*p))) {
      ++p;
      continue;
    }
    char* end;
    array.shape.push_back(std::strtoull(p, &end, 10));
    if (array.shape.back() > file.size()) return CorruptData(path + ": the shape is larger than the file");
    count *= array.shape.back();
    p = end;
  }
  const size_t offset = kPreludeBytes + header_bytes;
  if (count != (file.size() - offset) / item || (file.size() - offset) % item != 0) {
    return CorruptData(path + ": the data does not have the size that its shape says");
  }
  array.bytes.assign(data + offset, data + file.size());
  return array;
}

Result<NpyWriter> NpyWriter::Create(const std::string& path, uint64_t rows, uint64_t cols) {
  NpyWriter writer;
  writer.path_ = path;
  writer.remaining_ = rows * cols;
  writer.file_.reset(std::fopen(path.c_str(), "wb"));
  if (writer.file_ == nullptr) return IoError(path + ": cannot create: " + std::strerror(errno));
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " +
                       std::to_string(cols) + "), }";
  header.append((64 - (kPreludeBytes + header.size() + 1) % 64) % 64, ' ');  // data starts at a multiple of 64
  header.push_back('\n');
  std::string prelude(kMagic, kMagicBytes);
  prelude.push_back(static_cast<char>(header.size() & 0xFF));
  prelude.push_back(static_cast<char>(header.size() >> 8));
  const std::string all = prelude + header;
  if (std::fwrite(all.data(), 1, all.size(), writer.file_.get()) != all.size()) {
    return IoError(path + ": cannot write: " + std::strerror(errno));
  }
  return writer;
}

Status NpyWriter::Append(std::span<const float> values) {
  if (values.size() > remaining_) return InvalidArgument(path_ + ": more values than the header announced");
  remaining_ -= values.size();
  if (std::fwrite(values.data(), sizeof(float), values.size(), file_.get()) != values.size()) {
    return IoError(path_ + ": cannot write: " + std::strerror(errno));
  }
  return Status();
}

Status NpyWriter::Finish() {
  if (remaining_ != 0) return InvalidArgument(path_ + ": fewer values than the header announced");
  if (std::fclose(file_.release()) != 0) return IoError(path_ + ": cannot write: " + std::strerror(errno));
  return Status();
}

}  // namespace gptoss

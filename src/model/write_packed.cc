#include "model/write_packed.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "checkpoint/output.h"
#include "checkpoint/packed.h"
#include "checkpoint/xxh64.h"
#include "model/weight_map.h"

namespace gptoss {
namespace {

std::string_view DenseName(DensePrecision dense) {
  switch (dense) {
    case DensePrecision::kDefault:
      return "auto";
    case DensePrecision::kInt8:
      return "int8";
    case DensePrecision::kAsStored:
      return "bf16";
  }
  return "auto";
}

constexpr uint64_t AlignUp(uint64_t n) { return (n + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment; }

/// Conversion to float of a narrower type loses nothing; everything else that changes the type rounds.
bool IsExact(const WeightMap& map) {
  for (const HeldTensor& tensor : map.tensors) {
    for (const StoredTensor* part : tensor.parts) {
      if (part->dtype != tensor.dtype && tensor.dtype != DType::kF32) return false;
    }
  }
  return true;
}

/// The header with everything but checksums; arrays begin at `begin`, as in the map.
PackedHeader MakeHeader(const Checkpoint& source, const WeightMap& map, const PackOptions& options, uint64_t begin) {
  PackedHeader header;
  header.config = source.config();
  header.dense = DenseName(options.dense);
  header.exact = IsExact(map);
  for (const HeldTensor& t : map.tensors) {
    PackedTensor tensor{
        .held = t.held, .dtype = t.dtype, .layout = std::string(WeightLayoutName(t.layout)), .data = {}, .scales = {}};
    const uint64_t chunk = t.chunk_rows();
    tensor.data = {begin + t.data_offset, t.data_bytes(), chunk * t.row_bytes(), 0};
    if (t.scale_bytes() > 0) {
      tensor.scales = {begin + t.scale_offset, t.scale_bytes(), chunk * t.row_scale_bytes(), 0};
    }
    header.tensors.push_back(std::move(tensor));
  }
  if (!options.tokenizer_bytes.empty()) {
    const uint64_t bytes = options.tokenizer_bytes.size();
    const uint64_t sum = Xxh64(std::as_bytes(std::span(options.tokenizer_bytes)));
    header.tokenizer = {AlignUp(begin + map.bytes), bytes, bytes, CombineBlockChecksums({&sum, 1})};
    header.tokenizer_form = options.tokenizer_form;
  }
  return header;
}

struct BlockSums {
  std::vector<uint64_t> data, scales;  // one a chunk
};

/// Rows of one tensor, from the source to their place in the file.
Status WriteChunk(const Checkpoint& source, const HeldTensor& t, const PackedTensor& place, uint64_t chunk,
                  const OutputFile& file, BlockSums* sums, WriteScratch& scratch) {
  const uint64_t first = chunk * t.chunk_rows(), count = std::min(t.chunk_rows(), t.rows() - first);
  scratch.data.resize(count * t.row_bytes());
  scratch.scales.resize(count * t.row_scale_bytes());
  GPTOSS_RETURN_IF_ERROR(ReadHeldRows(source, t, first, count, scratch.data, scratch.scales));
  sums->data[chunk] = Xxh64(scratch.data);
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(place.data.offset + first * t.row_bytes(), scratch.data));
  if (scratch.scales.empty()) return Status();
  sums->scales[chunk] = Xxh64(scratch.scales);
  return file.WriteAt(place.scales.offset + first * t.row_scale_bytes(), scratch.scales);
}

Status WriteArrays(const Checkpoint& source, const WeightMap& map, PackedHeader* header, const OutputFile& file,
                   WriteProgress* progress) {
  std::vector<BlockSums> sums(map.tensors.size());
  std::vector<WriteTask> tasks;
  for (size_t i = 0; i < map.tensors.size(); ++i) {
    const HeldTensor& t = map.tensors[i];
    sums[i].data.resize(header->tensors[i].data.blocks());
    sums[i].scales.resize(header->tensors[i].scales.blocks());
    for (uint64_t chunk = 0; chunk * t.chunk_rows() < t.rows(); ++chunk) {
      const uint64_t rows = std::min(t.chunk_rows(), t.rows() - chunk * t.chunk_rows());
      tasks.push_back({rows * (t.row_bytes() + t.row_scale_bytes()), [&, i, chunk](WriteScratch& scratch) {
                         return WriteChunk(source, map.tensors[i], header->tensors[i], chunk, file, &sums[i], scratch);
                       }});
    }
  }
  GPTOSS_RETURN_IF_ERROR(RunWriteTasks(tasks, progress));
  for (size_t i = 0; i < sums.size(); ++i) {
    header->tensors[i].data.checksum = CombineBlockChecksums(sums[i].data);
    if (!sums[i].scales.empty()) header->tensors[i].scales.checksum = CombineBlockChecksums(sums[i].scales);
  }
  return Status();
}

}  // namespace

Status WritePacked(const Checkpoint& source, const std::string& path, const PackOptions& options) {
  const WeightMap map = MapWeights(source, options.dense, /*embedding_too=*/true, {.layout = options.layout});
  GPTOSS_RETURN_IF_ERROR(CheckUniformParts(map));
  // Offsets and checksums do not change the header's length by more than their digits: a page is enough for all.
  GPTOSS_ASSIGN_OR_RETURN(const std::string draft, FormatPackedHeader(MakeHeader(source, map, options, 0), UINT64_MAX));
  const uint64_t begin = AlignUp(draft.size() + 16 * 2 * map.tensors.size() + kPackedAlignment);
  PackedHeader header = MakeHeader(source, map, options, begin);
  const uint64_t arrays_end = header.tokenizer.bytes > 0 ? header.tokenizer.offset + header.tokenizer.bytes : 0;
  const uint64_t file_bytes = AlignUp(std::max(begin + map.bytes, arrays_end)) + kPackedSlackBytes;

  GPTOSS_ASSIGN_OR_RETURN(StagedPath staged, StagedPath::Create(path, /*is_directory=*/false, file_bytes));
  GPTOSS_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(staged.staged()));
  const std::string slack(kPackedSlackBytes, '\0');
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(file_bytes - slack.size(), slack));
  GPTOSS_RETURN_IF_ERROR(WriteArrays(source, map, &header, file, options.progress));
  if (header.tokenizer.bytes > 0) {
    GPTOSS_RETURN_IF_ERROR(file.WriteAt(header.tokenizer.offset, options.tokenizer_bytes));
  }
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, FormatPackedHeader(header, file_bytes));
  GPTOSS_CHECK(text.size() <= begin);
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(0, text));
  GPTOSS_RETURN_IF_ERROR(file.Finish());
  return staged.Commit();
}

}  // namespace gptoss

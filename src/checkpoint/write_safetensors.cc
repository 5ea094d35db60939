// The Hugging Face and "original" layouts: all tensors BF16 but for the experts' MXFP4 codes and scales. The former can
// also have the experts in BF16.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/name_map.h"
#include "checkpoint/output.h"
#include "json/json.h"

namespace gptoss {
namespace {

/// One tensor of a file, made of one canonical tensor or of several in a row (qkv).
struct OutTensor {
  std::string name;
  bool is_bf16 = true;  // else U8
  std::vector<uint64_t> shape;
  uint64_t bytes = 0;
  std::vector<const StoredTensor*> parts;
  RowPart row_part = RowPart::kData;
  bool transposed = false;  // each expert's matrix
};

uint64_t Elements(const std::vector<uint64_t>& shape) {
  uint64_t n = 1;
  for (const uint64_t dim : shape) n *= dim;
  return n;
}

/// In canonical order, the file's tensors that the layout makes of them.
std::vector<OutTensor> OutTensors(const Checkpoint& source, const std::vector<LayoutTensor>& layout) {
  std::vector<OutTensor> out;
  for (size_t i = 0; i < layout.size(); ++i) {
    const LayoutTensor& to = layout[i];
    const StoredTensor* tensor = &source.tensors()[i];
    if (!out.empty() && out.back().name == to.name) {
      out.back().parts.push_back(tensor);
      continue;
    }
    const bool is_bf16 = to.scales_name.empty();
    out.push_back(
        {to.name, is_bf16, to.shape, Elements(to.shape) * (is_bf16 ? 2 : 1), {tensor}, RowPart::kData, to.transposed});
    if (!is_bf16) {
      out.push_back({to.scales_name, false, to.scales_shape, Elements(to.scales_shape), {tensor}, RowPart::kScales});
    }
  }
  return out;
}

/// `count` shards of about equal size: a tensor goes where its first byte falls.
std::vector<std::vector<OutTensor>> SplitInto(const std::vector<OutTensor>& tensors, uint64_t count, uint64_t total) {
  std::vector<std::vector<OutTensor>> shards;
  uint64_t before = 0, current = UINT64_MAX;
  for (const OutTensor& tensor : tensors) {
    const uint64_t shard = before * count / total;
    if (shard != current) shards.emplace_back();
    current = shard;
    shards.back().push_back(tensor);
    before += tensor.bytes;
  }
  return shards;
}

/// As few balanced shards as keep to `max_bytes`; only a tensor that is larger by itself exceeds it.
std::vector<std::vector<OutTensor>> Split(const std::vector<OutTensor>& tensors, uint64_t total, uint64_t max_bytes) {
  const auto too_large = [&](const std::vector<OutTensor>& shard) {
    uint64_t bytes = 0;
    for (const OutTensor& tensor : shard) bytes += tensor.bytes;
    return shard.size() > 1 && bytes > max_bytes;
  };
  // More shards than this help nobody, and keep before * count within 64 bits for any size of model.
  constexpr uint64_t kMaxShards = 99'999;
  const uint64_t limit = std::max<uint64_t>(1, max_bytes);
  for (uint64_t count = std::min((total - 1) / limit + 1, kMaxShards);; ++count) {
    std::vector<std::vector<OutTensor>> shards = SplitInto(tensors, count, total);
    if (count >= kMaxShards || std::none_of(shards.begin(), shards.end(), too_large)) return shards;
  }
}

/// The order of the safetensors library: widest element first, then by name.
void SortAsInFile(std::vector<OutTensor>* tensors) {
  std::sort(tensors->begin(), tensors->end(), [](const OutTensor& a, const OutTensor& b) {
    return std::pair(!a.is_bf16, std::string_view(a.name)) < std::pair(!b.is_bf16, std::string_view(b.name));
  });
}

/// Length prefix and header of a file with these tensors in this order, padded with spaces to a multiple of 8.
std::string HeaderBytes(const std::vector<OutTensor>& tensors, bool with_metadata) {
  Json header = Json::object();
  if (with_metadata) header["__metadata__"] = {{"format", "pt"}};
  uint64_t at = 0;
  for (const OutTensor& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.is_bf16 ? "BF16" : "U8"}, {"shape", tensor.shape}, {"data_offsets", {at, at + tensor.bytes}}};
    at += tensor.bytes;
  }
  std::string text = WriteJson(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string prefix(8, '\0');
  for (size_t i = 0; i < 8; ++i) prefix[i] = static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return prefix + text;
}

/// [rows, cols] to [cols, rows], values of two bytes.
void Transpose(std::span<const std::byte> from, uint64_t rows, uint64_t cols, std::vector<std::byte>* to) {
  to->resize(from.size());
  for (uint64_t r = 0; r < rows; ++r) {
    for (uint64_t c = 0; c < cols; ++c) std::memcpy(&(*to)[2 * (c * rows + r)], &from[2 * (r * cols + c)], 2);
  }
}

/// One task an expert.
void AddTransposedTasks(const Checkpoint& source, const WriteOptions& options, const OutputFile* file,
                        const StoredTensor* part, uint64_t offset, std::vector<WriteTask>* tasks) {
  const uint64_t cols = part->spec.cols(), rows = part->spec.shape[1], bytes = rows * RowBytes(DType::kBF16, cols);
  for (uint64_t expert = 0; expert < part->spec.shape[0]; ++expert) {
    tasks->push_back({bytes, [=, &source, &options](WriteScratch& scratch) {
                        GPTOSS_RETURN_IF_ERROR(ReadConvertedRows(source, *part, expert * rows, rows, DType::kBF16,
                                                                 RowPart::kData, options.allow_lossy, &scratch));
                        Transpose(scratch.data, rows, cols, &scratch.packed);
                        return file->WriteAt(offset + expert * bytes, scratch.packed);
                      }});
  }
}

/// Appends the tasks that fill `file` with the tensors from `offset` on.
void AddTasks(const Checkpoint& source, const WriteOptions& options, const OutputFile* file,
              const std::vector<OutTensor>& tensors, uint64_t offset, std::vector<WriteTask>* tasks) {
  for (const OutTensor& tensor : tensors) {
    if (tensor.transposed) {
      AddTransposedTasks(source, options, file, tensor.parts[0], offset, tasks);
      offset += tensor.bytes;
      continue;
    }
    for (const StoredTensor* part : tensor.parts) {
      const DType to = tensor.is_bf16 ? DType::kBF16 : DType::kMxfp4;
      const RowPart row_part = tensor.row_part;
      const uint64_t rows = part->spec.rows(), cols = part->spec.cols();
      const uint64_t row_bytes = row_part == RowPart::kScales ? RowScaleBytes(to, cols) : RowBytes(to, cols);
      const uint64_t chunk = std::max<uint64_t>(1, kWriteChunkBytes / row_bytes);
      for (uint64_t first = 0; first < rows; first += chunk) {
        const uint64_t count = std::min(chunk, rows - first), at = offset + first * row_bytes;
        tasks->push_back({count * row_bytes, [=, &source, &options](WriteScratch& scratch) {
                            GPTOSS_RETURN_IF_ERROR(ReadConvertedRows(source, *part, first, count, to, row_part,
                                                                     options.allow_lossy, &scratch));
                            return file->WriteAt(at, row_part == RowPart::kScales ? scratch.scales : scratch.data);
                          }});
      }
      offset += rows * row_bytes;
    }
  }
}

std::string Number(size_t n) {
  const std::string digits = std::to_string(n);
  return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
}

/// The published files of the Hugging Face layout count from 0 to the last, those of the original one from 1.
std::string ShardName(bool is_hf, size_t i, size_t count) {
  if (count == 1) return "model.safetensors";
  if (is_hf) return "model-" + Number(i) + "-of-" + Number(count - 1) + ".safetensors";
  return "model--" + Number(i + 1) + "-of-" + Number(count) + ".safetensors";
}

/// Python's json.dump without indentation, as the published file of the original layout looks.
std::string OneSpacedLine(const Json& object) {
  std::string text = "{";
  for (const auto& [key, value] : object.items()) {
    text += (text.size() > 1 ? ", \"" : "\"") + key + "\": " + WriteJson(value);
  }
  return text + "}\n";
}

Status WriteText(const std::string& directory, const std::string& name, const std::string& text) {
  GPTOSS_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create((std::filesystem::path(directory) / name).string()));
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(0, text));
  return file.Finish();
}

Status WriteSmallFiles(const Checkpoint& source, const std::string& directory, bool is_hf, bool bf16_experts,
                       const std::vector<OutTensor>& tensors) {
  if (is_hf) {
    const Json generation = {{"bos_token_id", 199998},
                             {"do_sample", true},
                             {"eos_token_id", {200002, 199999, 200012}},
                             {"pad_token_id", 199999},
                             {"transformers_version", "4.55.0.dev0"}};
    Json config = HfConfigJson(source.config());
    if (bf16_experts) config.erase("quantization_config");
    GPTOSS_RETURN_IF_ERROR(WriteText(directory, "config.json", WriteJson(config, 2) + "\n"));
    return WriteText(directory, "generation_config.json", WriteJson(generation, 2) + "\n");
  }
  Json dtypes = Json::object();
  for (const OutTensor& tensor : tensors) {
    dtypes[tensor.name] = tensor.is_bf16 ? "BF16" : tensor.row_part == RowPart::kScales ? "UE8" : "FP4";
  }
  GPTOSS_RETURN_IF_ERROR(WriteText(directory, "config.json", OneSpacedLine(OriginalConfigJson(source.config()))));
  return WriteText(directory, "dtypes.json", WriteJson(dtypes, 1) + "\n");
}

/// The original layout states fewer parameters: what it cannot say must have the value that its readers assume.
Status CheckOriginalCanHold(const ModelConfig& config) {
  ModelConfig reread = config;
  reread.rms_eps = 1e-5f;
  reread.max_context = static_cast<int>(config.rope_initial_context * config.rope_factor);
  if (reread == config) return Status();
  return Unsupported(
      "the original layout has no field for the epsilon of the RMS norm or the maximum context, and this model's "
      "differ "
      "from what its readers assume; write the hf layout, or allow losses");
}

Status WriteDirectory(const Checkpoint& source, const std::string& directory, const WriteOptions& options, bool is_hf) {
  const std::vector<OutTensor> tensors =
      OutTensors(source, is_hf ? HfLayout(source.config(), options.bf16_experts) : OriginalLayout(source.config()));
  uint64_t total = 0;
  for (const OutTensor& tensor : tensors) total += tensor.bytes;
  std::vector<std::vector<OutTensor>> shards = Split(tensors, total, options.max_shard_bytes);
  GPTOSS_ASSIGN_OR_RETURN(StagedPath staged, StagedPath::Create(directory, true, total + (1 << 20)));
  GPTOSS_RETURN_IF_ERROR(WriteSmallFiles(source, staged.staged(), is_hf, options.bf16_experts, tensors));

  std::vector<OutputFile> files;
  files.reserve(shards.size());  // tasks point into it
  std::vector<WriteTask> tasks;
  Json weight_map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = ShardName(is_hf, i, shards.size());
    for (const OutTensor& tensor : shards[i]) weight_map[tensor.name] = name;
    SortAsInFile(&shards[i]);
    const std::string path = (std::filesystem::path(staged.staged()) / name).string();
    GPTOSS_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
    files.push_back(std::move(file));
    const std::string header = HeaderBytes(shards[i], is_hf);
    GPTOSS_RETURN_IF_ERROR(files.back().WriteAt(0, header));
    AddTasks(source, options, &files.back(), shards[i], header.size(), &tasks);
  }
  if (shards.size() > 1) {
    const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
    GPTOSS_RETURN_IF_ERROR(WriteText(staged.staged(), "model.safetensors.index.json", WriteJson(index, 2) + "\n"));
  }
  GPTOSS_RETURN_IF_ERROR(RunWriteTasks(tasks, options.progress));
  for (OutputFile& file : files) GPTOSS_RETURN_IF_ERROR(file.Finish());
  return staged.Commit();
}

}  // namespace

Status WriteHf(const Checkpoint& source, const std::string& directory, const WriteOptions& options) {
  return WriteDirectory(source, directory, options, true);
}

Status WriteOriginal(const Checkpoint& source, const std::string& directory, const WriteOptions& options) {
  if (options.bf16_experts) return Unsupported("the original layout has experts in MXFP4 only; write hf or gguf");
  if (!options.allow_lossy) GPTOSS_RETURN_IF_ERROR(CheckOriginalCanHold(source.config()));
  return WriteDirectory(source, directory, options, false);
}

}  // namespace gptoss

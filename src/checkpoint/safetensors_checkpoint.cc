#include "checkpoint/safetensors_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "checkpoint/name_map.h"
#include "checkpoint/read_ahead.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/strict_json.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSingleName[] = "model.safetensors";
constexpr size_t kMaxShards = 10'000;

/// A tensor of a file: which shard, and what its header says.
struct FileTensor {
  size_t shard = 0;
  SafetensorsEntry entry;
};

/// All shards of a directory, opened and their headers merged.
struct ShardSet {
  std::vector<MappedFile> files;
  std::map<std::string, FileTensor, std::less<>> tensors;

  Status Add(const std::string& path);
  Status Add(MappedFile file);
};

Status ShardSet::Add(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  return Add(std::move(file));
}

Status ShardSet::Add(MappedFile file) {
  GPTOSS_ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(file));
  for (auto& [name, entry] : header.tensors) {
    const auto [at, inserted] = tensors.try_emplace(name, FileTensor{files.size(), std::move(entry)});
    if (!inserted) {
      return CorruptData(file.path() + ": tensor \"" + name + "\" is also in " + files[at->second.shard].path());
    }
  }
  files.push_back(std::move(file));
  return Status();
}

/// Shard names come from a file that somebody else wrote: nothing but a plain name of this directory is followed.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.size() < 256 && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Result<ShardSet> OpenIndexed(const fs::path& directory, const std::string& index_path) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index_path));
  Result<MapJson> index = ParseStrictJson(text);
  if (!index.ok()) return index.status().WithContext(index_path);
  const auto map = index->find("weight_map");
  if (!index->is_object() || map == index->end() || !map->is_object()) {
    return CorruptData(index_path + ": \"weight_map\" is missing or not an object");
  }
  std::set<std::string> names;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return CorruptData(index_path + ": tensor \"" + tensor + "\": its shard is not a plain file name");
    }
    names.insert(shard.get<std::string>());
  }
  if (names.size() > kMaxShards) return ResourceExhausted(index_path + ": more than 10000 shards");
  ShardSet shards;
  std::map<std::string, size_t> shard_of_name;
  for (const std::string& name : names) {
    const std::string path = (directory / name).string();
    if (!fs::exists(path)) return NotFound(path + ": the shard is missing; " + index_path + " names it");
    shard_of_name[name] = shards.files.size();
    GPTOSS_RETURN_IF_ERROR(shards.Add(path));
  }
  for (const auto& [tensor, shard] : map->items()) {
    const auto found = shards.tensors.find(tensor);
    const size_t expected = shard_of_name[shard.get<std::string>()];
    if (found == shards.tensors.end() || found->second.shard != expected) {
      return CorruptData(shards.files[expected].path() + ": tensor \"" + tensor + "\" is absent, though " + index_path +
                         " places it there");
    }
  }
  return shards;
}

/// For model--00002-of-00007.safetensors: the names of all 7, so that an absent one is named; else empty.
std::vector<std::string> Siblings(const std::string& name) {
  const size_t of = name.rfind("-of-");
  const size_t dot = name.rfind(".safetensors");
  if (of == std::string::npos || of < 5 || dot != of + 9) return {};
  const std::string count_text = name.substr(of + 4, 5);
  if (count_text.find_first_not_of("0123456789") != std::string::npos) return {};
  const int count = std::stoi(count_text);
  std::vector<std::string> names;
  for (int i = 1; i <= count; ++i) {
    const std::string number = std::to_string(i);
    names.push_back(name.substr(0, of - 5) + std::string(5 - number.size(), '0') + number + name.substr(of));
  }
  return names;
}

Result<ShardSet> OpenAllShards(const fs::path& directory) {
  std::set<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".safetensors") names.insert(it->path().filename().string());
  }
  if (error) return IoError(directory.string() + ": cannot list: " + error.message());
  if (names.empty()) return NotFound(directory.string() + ": holds no .safetensors file");
  if (names.size() > kMaxShards) return ResourceExhausted(directory.string() + ": more than 10000 shards");
  for (const std::string& sibling : Siblings(*names.begin())) {
    if (!names.contains(sibling)) {
      return NotFound((directory / sibling).string() + ": the shard is missing; " + *names.begin() + " implies it");
    }
  }
  ShardSet shards;
  for (const std::string& name : names) GPTOSS_RETURN_IF_ERROR(shards.Add((directory / name).string()));
  return shards;
}

Result<ShardSet> OpenShards(const fs::path& directory, bool is_hf) {
  const std::string single = (directory / kSingleName).string(), index = (directory / kIndexName).string();
  if (fs::exists(single)) {
    ShardSet shards;
    GPTOSS_RETURN_IF_ERROR(shards.Add(single));
    return shards;
  }
  if (fs::exists(index)) return OpenIndexed(directory, index);
  if (!is_hf) return OpenAllShards(directory);
  return NotFound(directory.string() + ": holds neither " + kSingleName + " nor " + kIndexName);
}

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  SafetensorsCheckpoint(std::string directory, CheckpointFormat format, const ModelConfig& config, ShardSet shards)
      : directory_(std::move(directory)), format_(format), shards_(std::move(shards)) {
    config_ = config;
  }

  /// Finds and checks every canonical tensor.
  Status Resolve();

  CheckpointFormat format() const override { return format_; }
  Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                  std::span<std::byte> scales) const override;
  void Fetch(const StoredTensor& tensor, uint64_t first, uint64_t count) const override;
  std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor& tensor) const override;
  std::string Describe() const override { return directory_; }
  std::string TokenizerJson() const override { return tokenizer_json_; }
  /// Of a model that has no directory.
  void set_tokenizer_json(std::string text) { tokenizer_json_ = std::move(text); }

 private:
  struct Place {
    size_t shard = 0;
    uint64_t offset = 0;
    size_t scales_shard = 0;
    uint64_t scales_offset = 0;
    bool transposed = false;  // each expert's matrix
  };

  Result<const FileTensor*> Require(const std::string& name, const std::vector<uint64_t>& shape) const;
  Status RefuseUnknown(const std::set<std::string_view>& known) const;
  void ReadTransposed(const StoredTensor& own, const Place& place, uint64_t first, uint64_t count,
                      std::span<std::byte> data) const;

  std::string directory_;
  CheckpointFormat format_;
  std::string tokenizer_json_;
  ShardSet shards_;
  std::vector<Place> places_;  // parallel to tensors_
};

Result<const FileTensor*> SafetensorsCheckpoint::Require(const std::string& name,
                                                         const std::vector<uint64_t>& shape) const {
  const auto found = shards_.tensors.find(name);
  if (found == shards_.tensors.end()) return NotFound(directory_ + ": tensor \"" + name + "\" is missing");
  const FileTensor& tensor = found->second;
  if (tensor.entry.shape != shape) {
    return CorruptData(shards_.files[tensor.shard].path() + ": tensor \"" + name + "\" has shape " +
                       ShapeText(tensor.entry.shape) + ", config.json implies " + ShapeText(shape));
  }
  return &tensor;
}

Status SafetensorsCheckpoint::RefuseUnknown(const std::set<std::string_view>& known) const {
  for (const auto& [name, tensor] : shards_.tensors) {
    if (known.contains(name) || IsIgnorableTensor(name)) continue;
    return CorruptData(shards_.files[tensor.shard].path() + ": tensor \"" + name + "\" is not part of the model of " +
                       std::to_string(config_.num_layers) + " layers that config.json describes");
  }
  return Status();
}

Status SafetensorsCheckpoint::Resolve() {
  const bool is_hf = format_ == CheckpointFormat::kHf;
  const bool plain_experts = is_hf && shards_.tensors.contains("model.layers.0.mlp.experts.gate_up_proj");
  const std::vector<LayoutTensor> layout = is_hf ? HfLayout(config_, plain_experts) : OriginalLayout(config_);
  std::vector<TensorSpec> specs = CanonicalTensors(config_);
  std::set<std::string_view> known;
  for (size_t i = 0; i < specs.size(); ++i) {
    const LayoutTensor& in = layout[i];
    if (specs[i].is_expert_weight && !plain_experts && !shards_.tensors.contains(in.name)) {
      const std::string plain = in.name.substr(0, in.name.size() - 7);  // without "_blocks" or ".blocks"
      if (shards_.tensors.contains(plain)) {
        return Unsupported(
            directory_ + ": tensor \"" + plain +
            "\" holds experts that are not MXFP4; only the Hugging Face layout is read so, and only when all are");
      }
    }
    GPTOSS_ASSIGN_OR_RETURN(const FileTensor* data, Require(in.name, in.shape));
    known.insert(in.name);
    const DType dtype = data->entry.dtype;
    const std::string where = shards_.files[data->shard].path() + ": tensor \"" + in.name + "\": ";
    Place place{.shard = data->shard,
                .offset = data->entry.offset + in.first_element * RowBytes(dtype, 1),
                .transposed = in.transposed};
    if (!in.scales_name.empty()) {
      GPTOSS_ASSIGN_OR_RETURN(const FileTensor* scales, Require(in.scales_name, in.scales_shape));
      known.insert(in.scales_name);
      if (dtype != DType::kU8 || scales->entry.dtype != DType::kU8) {
        return CorruptData(where + "codes and scales of MXFP4 must have dtype U8");
      }
      place.scales_shard = scales->shard;
      place.scales_offset = scales->entry.offset;
      tensors_.push_back({std::move(specs[i]), DType::kMxfp4});
    } else {
      if (dtype == DType::kU8) return CorruptData(where + "dtype U8 where BF16, F16 or F32 belongs");
      tensors_.push_back({std::move(specs[i]), dtype});
    }
    places_.push_back(place);
  }
  return RefuseUnknown(known);
}

/// Canonical row r of an expert is column r of what the file holds.
void SafetensorsCheckpoint::ReadTransposed(const StoredTensor& own, const Place& place, uint64_t first, uint64_t count,
                                           std::span<std::byte> data) const {
  const uint64_t rows = own.spec.shape[1], cols = own.spec.cols(), size = RowBytes(own.dtype, 1);
  const std::byte* all = shards_.files[place.shard].bytes().data() + place.offset;
  for (uint64_t at = first; at < first + count;) {
    const uint64_t row = at % rows, n = std::min(rows - row, first + count - at);
    const std::byte* expert = all + (at - row) * cols * size;
    std::byte* out = data.data() + (at - first) * cols * size;
    for (uint64_t c = 0; c < cols; ++c) {
      for (uint64_t i = 0; i < n; ++i)
        std::memcpy(out + (i * cols + c) * size, expert + (c * rows + row + i) * size, size);
    }
    at += n;
  }
}

Status SafetensorsCheckpoint::ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count,
                                       std::span<std::byte> data, std::span<std::byte> scales) const {
  GPTOSS_ASSIGN_OR_RETURN(const size_t index, CheckRead(tensor, first, count, data, scales));
  const StoredTensor& own = tensors_[index];
  const Place& place = places_[index];
  const auto context = [&](const Status& status) { return status.WithContext("tensor \"" + own.spec.name + "\""); };
  if (place.transposed) {
    ReadTransposed(own, place, first, count, data);
    return Status();
  }
  if (!data.empty())
    GPTOSS_RETURN_IF_ERROR(
        context(shards_.files[place.shard].ReadAt(place.offset + first * RowBytes(own.dtype, own.spec.cols()), data)));
  if (scales.empty()) return Status();
  return context(shards_.files[place.scales_shard].ReadAt(
      place.scales_offset + first * RowScaleBytes(own.dtype, own.spec.cols()), scales));
}

void SafetensorsCheckpoint::Fetch(const StoredTensor& tensor, uint64_t first, uint64_t count) const {
  const Result<size_t> index = IndexOf(tensor);
  if (!index.ok() || first > tensor.spec.rows() || count > tensor.spec.rows() - first) return;
  const Place& place = places_[*index];
  if (place.transposed) return;  // rows are spread over the whole tensor
  const DType dtype = tensors_[*index].dtype;
  const uint64_t bytes = RowBytes(dtype, tensor.spec.cols()), scale_bytes = RowScaleBytes(dtype, tensor.spec.cols());
  ReadIntoPageCache(shards_.files[place.shard], place.offset + first * bytes, count * bytes);
  if (scale_bytes == 0) return;
  ReadIntoPageCache(shards_.files[place.scales_shard], place.scales_offset + first * scale_bytes, count * scale_bytes);
}

std::optional<std::span<const std::byte>> SafetensorsCheckpoint::MappedBytes(const StoredTensor& tensor) const {
  const Result<size_t> index = IndexOf(tensor);
  if (!index.ok()) return std::nullopt;
  const StoredTensor& own = tensors_[*index];
  const Place& place = places_[*index];
  // Headers written without padding leave data unaligned to its elements; such tensors can only be copied.
  if (HasScales(own.dtype) || place.transposed || place.offset % RowBytes(own.dtype, 1) != 0) return std::nullopt;
  return shards_.files[place.shard].bytes().subspan(place.offset,
                                                    own.spec.rows() * RowBytes(own.dtype, own.spec.cols()));
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> OpenSafetensorsDirectory(const std::string& directory) {
  const std::string config_path = (fs::path(directory) / "config.json").string();
  if (!fs::exists(config_path)) {
    return NotFound(directory + ": holds no config.json; give a model directory or a .gguf file");
  }
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(config_path, 1 << 20));
  const Result<Json> json = ParseJson(text);
  if (!json.ok()) return json.status().WithContext(config_path);
  // Only the original layout spreads the rotary parameters over top-level fields of this name.
  const bool is_hf = FindField(*json, "rope_ntk_beta") == nullptr;
  const Result<ModelConfig> config = is_hf ? ParseHfConfig(*json) : ParseOriginalConfig(*json);
  if (!config.ok()) return config.status().WithContext(config_path);
  GPTOSS_ASSIGN_OR_RETURN(ShardSet shards, OpenShards(directory, is_hf));
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(
      directory, is_hf ? CheckpointFormat::kHf : CheckpointFormat::kOriginal, *config, std::move(shards));
  GPTOSS_RETURN_IF_ERROR(checkpoint->Resolve());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

Result<std::unique_ptr<Checkpoint>> OpenSafetensorsMemory(const std::string& name, std::string_view config_json,
                                                          std::span<const std::byte> safetensors,
                                                          std::string_view tokenizer_json) {
  const Result<Json> json = ParseJson(config_json);
  if (!json.ok()) return json.status().WithContext(name);
  const Result<ModelConfig> config = ParseHfConfig(*json);
  if (!config.ok()) return config.status().WithContext(name);
  ShardSet shards;
  GPTOSS_RETURN_IF_ERROR(shards.Add(MappedFile::OfMemory(name, safetensors)));
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(name, CheckpointFormat::kHf, *config, std::move(shards));
  checkpoint->set_tokenizer_json(std::string(tokenizer_json));
  GPTOSS_RETURN_IF_ERROR(checkpoint->Resolve());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace gptoss

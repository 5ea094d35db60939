#include "training/adapter_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/mmap_file.h"
#include "checkpoint/output.h"
#include "checkpoint/row_convert.h"
#include "checkpoint/safetensors.h"
#include "json/json.h"
#include "tensor/mxfp4.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;

constexpr char kConfigFile[] = "adapter_config.json", kTensorFile[] = "adapter_model.safetensors";
constexpr uint64_t kSlackBytes = 1 << 20;

/// Canonical and Hugging Face's names of what can be adapted.
constexpr std::pair<std::string_view, std::string_view> kModules[] = {
    {"q", "self_attn.q_proj"},        {"k", "self_attn.k_proj"}, {"v", "self_attn.v_proj"},
    {"out", "self_attn.o_proj"},      {"router", "mlp.router"},  {"gate_up", "mlp.experts.gate_up_proj"},
    {"down", "mlp.experts.down_proj"}};

/// "layers.3.out.lora_a" as the file calls it.
std::string FileName(const std::string& name) {
  const size_t last = name.rfind('.');
  const std::string end = name.substr(last + 1) == "lora_a" ? ".lora_A.weight" : ".lora_B.weight";
  const size_t before = name.rfind('.', last - 1);
  if (before == std::string::npos) return "base_model.model.lm_head" + end;
  const std::string target = name.substr(before + 1, last - before - 1);
  for (const auto& [canonical, module] : kModules) {
    if (target == canonical) return "base_model.model.model." + name.substr(0, before + 1) + std::string(module) + end;
  }
  return name;
}

Json ConfigJson(const AdapterLayout& layout) {
  const AdapterOptions& o = layout.options();
  Json modules = Json::array();
  for (const std::string& target : o.targets) {
    std::string name = "lm_head";
    for (const auto& [canonical, module] : kModules) {
      if (target == canonical) name = module.substr(module.rfind('.') + 1);
    }
    modules.push_back(name);
  }
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"r", o.rank},
          {"lora_alpha", o.alpha},
          {"target_modules", modules},
          {"bias", "none"},
          {"model", HfConfigJson(layout.config())}};
}

Result<AdapterOptions> ReadOptions(const Json& json) {
  AdapterOptions options;
  GPTOSS_ASSIGN_OR_RETURN(const int64_t rank, GetInt(json, "r"));
  options.rank = static_cast<int>(std::clamp<int64_t>(rank, 0, 1 << 20));
  const Json *alpha = FindField(json, "lora_alpha"), *modules = FindField(json, "target_modules");
  if (alpha == nullptr || !alpha->is_number()) return CorruptData("\"lora_alpha\" must be a number");
  if (modules == nullptr || !modules->is_array()) return CorruptData("\"target_modules\" must be a list");
  options.alpha = alpha->get<double>();
  options.targets.clear();
  for (const Json& module : *modules) {
    if (!module.is_string()) return CorruptData("\"target_modules\" must be a list of names");
    options.targets.push_back(module.get<std::string>());
  }
  return CheckAdapter(std::move(options));
}

Status ReadTensors(const std::string& file, const AdapterLayout& layout, std::vector<float>* values) {
  GPTOSS_ASSIGN_OR_RETURN(const MappedFile in, MappedFile::Open(file));
  GPTOSS_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(in));
  for (const FlatTensor& tensor : layout.tensors()) {
    const std::string name = FileName(tensor.spec.name);
    const auto found = header.tensors.find(name);
    if (found == header.tensors.end()) return CorruptData(file + ": tensor \"" + name + "\" is missing");
    const SafetensorsEntry& entry = found->second;
    if (entry.shape != tensor.spec.shape || !(entry.dtype == DType::kF32 || entry.dtype == DType::kBF16)) {
      return CorruptData(file + ": tensor \"" + name + "\" must be F32 or BF16 of shape " +
                         ShapeText(tensor.spec.shape) + ", it is " + std::string(DTypeName(entry.dtype)) + " " +
                         ShapeText(entry.shape));
    }
    std::vector<std::byte> bytes(entry.bytes);
    GPTOSS_RETURN_IF_ERROR(in.ReadAt(entry.offset, bytes));
    RowConverter convert(entry.dtype, DType::kF32, tensor.count, /*allow_lossy=*/false);
    const std::span<float> out(values->data() + tensor.offset, tensor.count);
    GPTOSS_RETURN_IF_ERROR(convert.Row(bytes, {}, std::as_writable_bytes(out), {}));
    if (!std::all_of(out.begin(), out.end(), [](float v) { return std::isfinite(v); })) {
      return CorruptData(file + ": tensor \"" + name + "\" has values that are not finite");
    }
  }
  if (header.tensors.size() != layout.tensors().size()) {
    return CorruptData(file + ": has tensors that adapter_config.json does not name");
  }
  return Status();
}

/// Base rows plus scale * B A.
class MergedCheckpoint final : public Checkpoint {
 public:
  MergedCheckpoint(std::shared_ptr<const Checkpoint> base, Adapter adapter, ExpertForm experts)
      : base_(std::move(base)), adapter_(std::move(adapter)) {
    config_ = base_->config();
    const bool encode = experts == ExpertForm::kMxfp4;
    for (const StoredTensor& stored : base_->tensors()) {
      StoredTensor own = stored;
      Pair pair;
      if (own.spec.name.ends_with(".weight") || own.spec.name == "unembedding") {
        const std::string name =
            own.spec.name == "unembedding" ? own.spec.name : own.spec.name.substr(0, own.spec.name.size() - 7);
        pair = {adapter_.layout.Find(name + ".lora_a"), adapter_.layout.Find(name + ".lora_b")};
      }
      if (pair.a != nullptr) own.dtype = encode && own.spec.is_expert_weight ? DType::kMxfp4 : DType::kF32;
      tensors_.push_back(std::move(own));
      pairs_.push_back(pair);
    }
  }

  CheckpointFormat format() const override { return CheckpointFormat::kSynthetic; }
  std::string Describe() const override { return base_->Describe(); }
  std::vector<std::string> VocabularyTokens() const override { return base_->VocabularyTokens(); }
  std::vector<int32_t> VocabularyTokenTypes() const override { return base_->VocabularyTokenTypes(); }
  std::string TokenizerJson() const override { return base_->TokenizerJson(); }
  std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor&) const override { return std::nullopt; }

  Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                  std::span<std::byte> scales) const override {
    GPTOSS_ASSIGN_OR_RETURN(const size_t index, CheckRead(tensor, first, count, data, scales));
    const StoredTensor& stored = base_->tensors()[index];
    if (pairs_[index].a == nullptr) return base_->ReadRows(stored, first, count, data, scales);
    const uint64_t cols = stored.spec.cols(), bytes = RowBytes(stored.dtype, cols);
    const uint64_t scale_bytes = RowScaleBytes(stored.dtype, cols);
    std::vector<std::byte> in(count * bytes), in_scales(count * scale_bytes);
    GPTOSS_RETURN_IF_ERROR(base_->ReadRows(stored, first, count, in, in_scales));
    RowConverter widen(stored.dtype, DType::kF32, cols, /*allow_lossy=*/true);  // float holds every stored type
    std::vector<float> values(count * cols);
    for (uint64_t r = 0; r < count; ++r) {
      const std::span<float> row = std::span(values).subspan(r * cols, cols);
      GPTOSS_RETURN_IF_ERROR(widen.Row(std::span(in).subspan(r * bytes, bytes),
                                       std::span(in_scales).subspan(r * scale_bytes, scale_bytes),
                                       std::as_writable_bytes(row), {}));
      AddAdapter(pairs_[index], stored.spec, first + r, row);
    }
    if (tensors_[index].dtype == DType::kF32) {
      std::memcpy(data.data(), values.data(), data.size());
      return Status();
    }
    std::vector<uint8_t> codes(values.size() / 2), exponents(values.size() / kBlockSize);
    EncodeMxfp4(values, codes, exponents);
    if (!data.empty()) std::memcpy(data.data(), codes.data(), data.size());
    if (!scales.empty()) std::memcpy(scales.data(), exponents.data(), scales.size());
    return Status();
  }

 private:
  struct Pair {
    const FlatTensor *a = nullptr, *b = nullptr;
  };

  /// `row` is counted through all experts.
  void AddAdapter(const Pair& pair, const TensorSpec& spec, uint64_t row, std::span<float> out) const {
    const auto rank = static_cast<uint64_t>(adapter_.layout.options().rank);
    const uint64_t matrix = spec.shape.size() == 3 ? row / spec.shape[1] : 0;
    const float* a = adapter_.values.data() + pair.a->offset + matrix * rank * out.size();
    const float* b = adapter_.values.data() + pair.b->offset + row * rank;
    for (uint64_t i = 0; i < rank; ++i) {
      const auto factor = static_cast<float>(adapter_.layout.options().scale() * static_cast<double>(b[i]));
      for (size_t c = 0; c < out.size(); ++c) out[c] += factor * a[i * out.size() + c];
    }
  }

  std::shared_ptr<const Checkpoint> base_;
  Adapter adapter_;
  std::vector<Pair> pairs_;  // parallel to tensors_
};

}  // namespace

Status SaveAdapter(const AdapterLayout& layout, std::span<const float> values, const std::string& path) {
  Json header = Json::object();
  uint64_t offset = 0;
  for (const FlatTensor& tensor : layout.tensors()) {
    const uint64_t bytes = tensor.count * sizeof(float);
    header[FileName(tensor.spec.name)] = {
        {"dtype", "F32"}, {"shape", tensor.spec.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = WriteJson(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string prefix(8, '\0');
  for (int i = 0; i < 8; ++i) prefix[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i) & 255);

  GPTOSS_ASSIGN_OR_RETURN(StagedPath staged, StagedPath::Create(path, true, offset + kSlackBytes));
  GPTOSS_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(staged.staged() + "/" + kTensorFile));
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(0, prefix + text));
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(8 + length, std::as_bytes(values)));
  GPTOSS_RETURN_IF_ERROR(file.Finish());
  GPTOSS_ASSIGN_OR_RETURN(OutputFile config, OutputFile::Create(staged.staged() + "/" + kConfigFile));
  GPTOSS_RETURN_IF_ERROR(config.WriteAt(0, WriteJson(ConfigJson(layout), 2) + "\n"));
  GPTOSS_RETURN_IF_ERROR(config.Finish());
  return staged.Commit();
}

Result<Adapter> LoadAdapter(const std::string& path, const ModelConfig& config) {
  const std::string file = path + "/" + kConfigFile;
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(file, kSlackBytes));
  const Result<Json> json = ParseJson(text);
  if (!json.ok()) return json.status().WithContext(file);
  const Result<AdapterOptions> options = ReadOptions(*json);
  if (!options.ok()) return options.status().WithContext(file);
  if (const Json* model = FindField(*json, "model"); model != nullptr) {
    const Result<ModelConfig> own = ParseHfConfig(*model);
    if (!own.ok()) return own.status().WithContext(file);
    if (!(*own == config)) {
      return InvalidArgument(path +
                             ": the adapter belongs to a model of another shape; give the model it was trained on");
    }
  }
  Adapter adapter{AdapterLayout(config, *options), {}};
  adapter.values.resize(adapter.layout.size());
  GPTOSS_RETURN_IF_ERROR(ReadTensors(path + "/" + kTensorFile, adapter.layout, &adapter.values));
  return adapter;
}

std::unique_ptr<Checkpoint> MergeAdapter(std::shared_ptr<const Checkpoint> base, Adapter adapter, ExpertForm experts) {
  return std::make_unique<MergedCheckpoint>(std::move(base), std::move(adapter), experts);
}

}  // namespace gptoss

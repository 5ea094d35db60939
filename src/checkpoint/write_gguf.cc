// GGUF of architecture `gpt-oss`: experts as they are, dense matrices in the chosen type, everything else F32.
#include <algorithm>
#include <cstring>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/ggml_blocks.h"
#include "checkpoint/gguf.h"
#include "checkpoint/name_map_gguf.h"
#include "checkpoint/output.h"
#include "checkpoint/row_convert.h"

namespace gptoss {
namespace {

constexpr uint64_t kAlignment = 32;         // the format's default, so that no key is needed
constexpr uint32_t kFileTypeMxfp4Moe = 38;  // llama.cpp's LLAMA_FTYPE_MOSTLY_MXFP4_MOE
constexpr uint32_t kFileTypeBf16 = 32;      // LLAMA_FTYPE_MOSTLY_BF16
constexpr uint32_t kQuantizationVersion = 2;

uint64_t Align(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

/// Appends values of the format to a string.
class HeaderBuilder {
 public:
  template <typename T>
  void Raw(T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    text_.append(bytes, sizeof(T));
  }
  void String(std::string_view s) {
    Raw<uint64_t>(s.size());
    text_.append(s);
  }
  void Type(GgufType type) { Raw(static_cast<uint32_t>(type)); }
  void U32(std::string_view key, uint32_t value) { Key(key, GgufType::kU32), Raw(value); }
  void F32(std::string_view key, double value) { Key(key, GgufType::kF32), Raw(static_cast<float>(value)); }
  void Str(std::string_view key, std::string_view value) { Key(key, GgufType::kString), String(value); }
  void Strs(std::string_view key, const std::vector<std::string>& values) {
    ArrayOf(key, GgufType::kString, values.size());
    for (const std::string& value : values) String(value);
  }
  void I32s(std::string_view key, const std::vector<int32_t>& values) {
    ArrayOf(key, GgufType::kI32, values.size());
    for (const int32_t value : values) Raw(value);
  }
  uint64_t pairs() const { return pairs_; }
  const std::string& text() const { return text_; }

 private:
  void Key(std::string_view key, GgufType type) {
    String(key);
    Type(type);
    ++pairs_;
  }
  void ArrayOf(std::string_view key, GgufType element, uint64_t count) {
    Key(key, GgufType::kArray);
    Type(element);
    Raw(count);
  }
  std::string text_;
  uint64_t pairs_ = 0;
};

struct OutTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  uint64_t offset = 0;  // from the start of the data section
  uint64_t bytes = 0;
};

/// What one canonical tensor becomes: one tensor of the file, or gate and up.
struct Output {
  const StoredTensor* source = nullptr;
  OutTensor plain, up;
  bool is_split() const { return !up.name.empty(); }
};

void AddModelKeys(const ModelConfig& c, HeaderBuilder* out) {
  const auto key = [](const char* name) { return std::string(kGgufArchitecture) + "." + name; };
  const auto u32 = [&](const char* name, int value) { out->U32(key(name), static_cast<uint32_t>(value)); };
  u32("block_count", c.num_layers);
  u32("context_length", c.max_context);
  u32("embedding_length", c.hidden_size);
  u32("feed_forward_length", c.intermediate_size);
  u32("attention.head_count", c.num_heads);
  u32("attention.head_count_kv", c.num_kv_heads);
  out->F32(key("rope.freq_base"), c.rope_theta);
  out->F32(key("attention.layer_norm_rms_epsilon"), c.rms_eps);
  u32("expert_count", c.num_experts);
  u32("expert_used_count", c.experts_per_token);
  u32("attention.key_length", c.head_dim);
  u32("attention.value_length", c.head_dim);
  u32("attention.sliding_window", c.sliding_window);
  u32("expert_feed_forward_length", c.intermediate_size);
  u32("vocab_size", c.vocab_size);
  if (c.rope_factor == 1.0) {
    out->Str(key("rope.scaling.type"), "none");
  } else {
    out->Str(key("rope.scaling.type"), "yarn");
    out->F32(key("rope.scaling.factor"), c.rope_factor);
    out->F32(key("rope.scaling.yarn_beta_fast"), c.rope_beta_fast);
    out->F32(key("rope.scaling.yarn_beta_slow"), c.rope_beta_slow);
  }
  u32("rope.scaling.original_context_length", c.rope_initial_context);
  if (c.swiglu_limit != 7.0f) out->F32(key("swiglu_limit"), c.swiglu_limit);  // see ParseGgufConfig
}

void AddVocabularyKeys(const GgufVocabularyData* vocabulary, HeaderBuilder* out) {
  if (vocabulary == nullptr) {
    out->Str("tokenizer.ggml.model", "none");
    return;
  }
  out->Str("tokenizer.ggml.model", "gpt2");
  out->Str("tokenizer.ggml.pre", "gpt-4o");
  out->Strs("tokenizer.ggml.tokens", vocabulary->tokens);
  out->I32s("tokenizer.ggml.token_type", vocabulary->types);
  out->Strs("tokenizer.ggml.merges", vocabulary->merges);
  // o200k_harmony: <|startoftext|>, <|return|>, <|endoftext|>.
  const auto special = [&](const char* name, uint32_t id) {
    if (id < vocabulary->tokens.size()) out->U32(std::string("tokenizer.ggml.") + name, id);
  };
  special("bos_token_id", 199998);
  special("eos_token_id", 200002);
  special("padding_token_id", 199999);
}

DType OutType(const StoredTensor& tensor, const WriteOptions& options) {
  if (tensor.spec.is_expert_weight) return options.bf16_experts ? DType::kBF16 : tensor.dtype;
  return IsDenseMatrix(tensor.spec) ? options.gguf_dense : DType::kF32;
}

std::vector<Output> PlaceOutputs(const Checkpoint& source, const WriteOptions& options, uint64_t* data_bytes) {
  const std::vector<GgufLayoutTensor> layout = GgufLayout(source.config());
  std::vector<Output> outputs;
  uint64_t at = 0;
  for (size_t i = 0; i < layout.size(); ++i) {
    Output output{.source = &source.tensors()[i], .plain = {}, .up = {}};
    const DType dtype = OutType(*output.source, options);
    const auto place = [&](const std::string& name) {
      OutTensor tensor{.name = name, .dtype = dtype, .shape = layout[i].shape, .offset = Align(at)};
      tensor.bytes = GgmlRowBytes(dtype, tensor.shape.back());
      for (size_t d = 0; d + 1 < tensor.shape.size(); ++d) tensor.bytes *= tensor.shape[d];
      at = tensor.offset + tensor.bytes;
      return tensor;
    };
    output.plain = place(layout[i].name);
    if (!layout[i].up_name.empty()) output.up = place(layout[i].up_name);
    outputs.push_back(std::move(output));
  }
  *data_bytes = Align(at);
  return outputs;
}

std::string BuildHeader(const Checkpoint& source, const WriteOptions& options, const std::vector<Output>& outputs) {
  HeaderBuilder metadata;
  metadata.Str("general.architecture", kGgufArchitecture);
  metadata.Str("general.type", "model");
  metadata.Str("general.name", "gpt-oss");
  AddModelKeys(source.config(), &metadata);
  metadata.U32("general.quantization_version", kQuantizationVersion);
  metadata.U32("general.file_type", options.bf16_experts ? kFileTypeBf16 : kFileTypeMxfp4Moe);
  AddVocabularyKeys(options.vocabulary, &metadata);

  HeaderBuilder tensors;
  uint64_t count = 0;
  const auto describe = [&](const OutTensor& tensor) {
    tensors.String(tensor.name);
    tensors.Raw(static_cast<uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) tensors.Raw(*dim);
    tensors.Raw(GgmlTypeOf(tensor.dtype));
    tensors.Raw(tensor.offset);
    ++count;
  };
  for (const Output& output : outputs) {
    describe(output.plain);
    if (output.is_split()) describe(output.up);
  }
  HeaderBuilder head;
  head.Raw<uint32_t>(3);
  head.Raw(count);
  head.Raw(metadata.pairs());
  std::string text = "GGUF" + head.text() + metadata.text() + tensors.text();
  text.resize(Align(text.size()), '\0');
  return text;
}

/// Packs every second unit of `unit` bytes of `from`, beginning with the one at `parity`.
void TakeAlternate(std::span<const std::byte> from, uint64_t unit, uint64_t parity, std::vector<std::byte>* to) {
  to->resize(from.size() / 2);
  for (uint64_t i = 0; i < to->size() / unit; ++i) {
    std::memcpy(to->data() + i * unit, from.data() + (2 * i + parity) * unit, unit);
  }
}

/// Canonical rows [first, first + count) of gate_up to the two tensors. Both numbers are even for weights; a bias has
/// gate and up alternating within its rows.
Status WriteGateUp(const OutputFile& file, uint64_t data_start, const Output& output, uint64_t first, uint64_t count,
                   WriteScratch& scratch) {
  const DType dtype = output.plain.dtype;
  const uint64_t cols = output.source->spec.cols();
  const bool is_bias = !output.source->spec.is_expert_weight;
  const uint64_t unit = is_bias ? RowBytes(dtype, 1) : GgmlRowBytes(dtype, cols);
  const uint64_t before = is_bias ? first * cols / 2 : first / 2;  // units before these rows in either tensor
  std::vector<std::byte>& rows = scratch.source_data;              // free again once rows were read
  rows.resize(count * GgmlRowBytes(dtype, cols));
  PackGgml(dtype, scratch.data, scratch.scales, rows);
  for (uint64_t parity = 0; parity < 2; ++parity) {
    const OutTensor& to = parity == 0 ? output.plain : output.up;
    TakeAlternate(rows, unit, parity, &scratch.packed);
    GPTOSS_RETURN_IF_ERROR(file.WriteAt(data_start + to.offset + before * unit, scratch.packed));
  }
  return Status();
}

std::vector<WriteTask> MakeTasks(const Checkpoint& source, const WriteOptions& options, const OutputFile& file,
                                 uint64_t data_start, const std::vector<Output>& outputs) {
  std::vector<WriteTask> tasks;
  for (const Output& output : outputs) {
    const DType dtype = output.plain.dtype;
    const uint64_t rows = output.source->spec.rows(), row_bytes = GgmlRowBytes(dtype, output.source->spec.cols());
    const uint64_t chunk = std::max<uint64_t>(2, kWriteChunkBytes / row_bytes / 2 * 2);
    for (uint64_t first = 0; first < rows; first += chunk) {
      const uint64_t count = std::min(chunk, rows - first);
      tasks.push_back({count * row_bytes, [=, &source, &options, &file, &output](WriteScratch& scratch) {
                         GPTOSS_RETURN_IF_ERROR(ReadConvertedRows(source, *output.source, first, count, dtype,
                                                                  RowPart::kDataAndScales, options.allow_lossy,
                                                                  &scratch));
                         if (output.is_split()) return WriteGateUp(file, data_start, output, first, count, scratch);
                         scratch.packed.resize(count * row_bytes);
                         PackGgml(dtype, scratch.data, scratch.scales, scratch.packed);
                         return file.WriteAt(data_start + output.plain.offset + first * row_bytes, scratch.packed);
                       }});
    }
  }
  return tasks;
}

Status CheckVocabulary(const GgufVocabularyData& vocabulary, int vocab_size) {
  if (vocabulary.tokens.size() == static_cast<size_t>(vocab_size) &&
      vocabulary.types.size() == vocabulary.tokens.size()) {
    return Status();
  }
  return InvalidArgument("the vocabulary has " + std::to_string(vocabulary.tokens.size()) + " tokens and " +
                         std::to_string(vocabulary.types.size()) + " token types, the model has " +
                         std::to_string(vocab_size) + " rows");
}

}  // namespace

Status WriteGguf(const Checkpoint& source, const std::string& path, const WriteOptions& options) {
  if (options.gguf_dense == DType::kMxfp4 || options.gguf_dense == DType::kU8) {
    return InvalidArgument("dense matrices can be q8_0, bf16, f16 or f32");
  }
  if (options.vocabulary != nullptr) {
    GPTOSS_RETURN_IF_ERROR(CheckVocabulary(*options.vocabulary, source.config().vocab_size));
  }
  uint64_t data_bytes = 0;
  const std::vector<Output> outputs = PlaceOutputs(source, options, &data_bytes);
  const std::string header = BuildHeader(source, options, outputs);
  GPTOSS_ASSIGN_OR_RETURN(StagedPath staged, StagedPath::Create(path, false, header.size() + data_bytes));
  GPTOSS_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(staged.staged()));
  GPTOSS_RETURN_IF_ERROR(file.WriteAt(0, header));
  GPTOSS_RETURN_IF_ERROR(RunWriteTasks(MakeTasks(source, options, file, header.size(), outputs), options.progress));
  // The format pads the data section to the alignment.
  const Output& last = outputs.back();
  if (const uint64_t end = last.plain.offset + last.plain.bytes; end < data_bytes) {
    const std::string padding(data_bytes - end, '\0');
    GPTOSS_RETURN_IF_ERROR(file.WriteAt(header.size() + end, padding));
  }
  GPTOSS_RETURN_IF_ERROR(file.Finish());
  return staged.Commit();
}

}  // namespace gptoss

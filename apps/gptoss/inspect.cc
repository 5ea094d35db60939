// gptoss inspect: what a checkpoint is: form, configuration, tensors.
#include <cinttypes>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/packed.h"
#include "checkpoint_output.h"
#include "commands.h"
#include "json/json.h"
#include "model_argument.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

uint64_t BytesOf(const StoredTensor& tensor) {
  const uint64_t cols = tensor.spec.cols();
  return tensor.spec.rows() * (RowBytes(tensor.dtype, cols) + RowScaleBytes(tensor.dtype, cols));
}

uint64_t Parameters(const Checkpoint& checkpoint) {
  uint64_t n = 0;
  for (const StoredTensor& tensor : checkpoint.tensors()) n += tensor.spec.rows() * tensor.spec.cols();
  return n;
}

/// Field names are those of the original layout, which are the paper's; the last two it does not have.
Json ConfigOf(const ModelConfig& config) {
  Json json = OriginalConfigJson(config);
  json["max_position_embeddings"] = config.max_context;
  json["rms_norm_eps"] = HfConfigJson(config)["rms_norm_eps"];
  return json;
}

const PackedCheckpoint* AsPacked(const Checkpoint& checkpoint) {
  const bool is_packed = checkpoint.format() == CheckpointFormat::kPacked;
  return is_packed ? static_cast<const PackedCheckpoint*>(&checkpoint) : nullptr;
}

/// What only the packed form has.
Json PackedJson(const PackedHeader& header) {
  const bool has_tokenizer = header.tokenizer.bytes > 0;
  std::map<std::string, int> layouts;
  for (const PackedTensor& tensor : header.tensors) ++layouts[tensor.layout];
  return {{"version", kPackedVersion},
          {"dense", header.dense},
          {"exact", header.exact},
          {"layouts", layouts},
          {"tokenizer", has_tokenizer ? Json(header.tokenizer_form) : Json()},
          {"tokenizer_bytes", header.tokenizer.bytes}};
}

Status CheckSums(const Checkpoint& checkpoint) {
  const PackedCheckpoint* packed = AsPacked(checkpoint);
  if (packed == nullptr) {
    return InvalidArgument("--check: " + checkpoint.Describe() + " holds no checksums; only packed files do");
  }
  ByteProgress progress("checking");
  return packed->VerifyChecksums(&progress);
}

void PrintJson(const Checkpoint& checkpoint, bool checked) {
  Json tensors = Json::array();
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    tensors.push_back({{"name", tensor.spec.name},
                       {"dtype", DTypeName(tensor.dtype)},
                       {"shape", tensor.spec.shape},
                       {"bytes", BytesOf(tensor)}});
  }
  Json document = {{"path", checkpoint.Describe()},
                   {"format", CheckpointFormatName(checkpoint.format())},
                   {"parameters", Parameters(checkpoint)},
                   {"total_bytes", checkpoint.TotalBytes()},
                   {"vocabulary_tokens", checkpoint.VocabularyTokens().size()},
                   {"config", ConfigOf(checkpoint.config())},
                   {"tensors", std::move(tensors)}};
  if (const PackedCheckpoint* packed = AsPacked(checkpoint)) document["packed"] = PackedJson(packed->header());
  if (checked) document["checksums"] = "ok";
  std::printf("%s\n", WriteJson(document).c_str());
}

void PrintText(const Checkpoint& checkpoint, bool checked) {
  std::printf("%s\n", checkpoint.Describe().c_str());
  std::printf("  %-28s %s\n", "format", std::string(CheckpointFormatName(checkpoint.format())).c_str());
  std::printf("  %-28s %.2f billion\n", "parameters", static_cast<double>(Parameters(checkpoint)) * 1e-9);
  std::printf("  %-28s %s\n", "weights", FormatBytes(static_cast<double>(checkpoint.TotalBytes())).c_str());
  if (const size_t tokens = checkpoint.VocabularyTokens().size(); tokens > 0) {
    std::printf("  %-28s %zu tokens\n", "vocabulary in the file", tokens);
  }
  if (const PackedCheckpoint* packed = AsPacked(checkpoint)) {
    const Json fields = PackedJson(packed->header());
    for (const auto& [key, value] : fields.items()) {
      std::printf("  %-28s %s\n", ("packed: " + key).c_str(), WriteJson(value).c_str());
    }
  }
  if (checked) std::printf("  %-28s ok\n", "checksums");
  const Json config = ConfigOf(checkpoint.config());
  for (const auto& [key, value] : config.items()) std::printf("  %-28s %s\n", key.c_str(), WriteJson(value).c_str());

  std::map<std::string, uint64_t> by_type;
  for (const StoredTensor& tensor : checkpoint.tensors())
    by_type[std::string(DTypeName(tensor.dtype))] += BytesOf(tensor);
  for (const auto& [type, bytes] : by_type) {
    std::printf("  %-28s %s\n", ("in " + type).c_str(), FormatBytes(static_cast<double>(bytes)).c_str());
  }
  std::printf("tensors\n");
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    std::printf("  %-28s %-6s %14" PRIu64 " bytes  %s\n", tensor.spec.name.c_str(),
                std::string(DTypeName(tensor.dtype)).c_str(), BytesOf(tensor), WriteJson(tensor.spec.shape).c_str());
  }
}

int RunInspect(const std::string& model, bool as_json, bool check) {
  const Result<std::shared_ptr<const Checkpoint>> checkpoint = OpenModelArgument(model);
  if (!checkpoint.ok()) return Fail(checkpoint.status());
  if (check) {
    if (const Status status = CheckSums(**checkpoint); !status.ok()) return Fail(status);
  }
  if (as_json) {
    PrintJson(**checkpoint, check);
  } else {
    PrintText(**checkpoint, check);
  }
  return 0;
}

}  // namespace

void RegisterInspect(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("inspect", "Show a checkpoint's form, configuration and tensors");
  auto model = std::make_shared<std::string>();
  auto as_json = std::make_shared<bool>(false), check = std::make_shared<bool>(false);
  command
      ->add_option("-m,--model", *model,
                   "Directory (hf or original layout), .gguf or packed file, or name of a pulled model")
      ->required();
  command->add_flag("--json", *as_json, "One JSON document");
  command->add_flag("--check", *check, "Read a packed file whole and compare its checksums");
  command->callback([model, as_json, check, exit_code] { *exit_code = RunInspect(*model, *as_json, *check); });
}

}  // namespace gptoss::cli

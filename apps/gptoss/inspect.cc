// gptoss inspect: what a checkpoint is: form, configuration, tensors.
#include <cinttypes>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "checkpoint/checkpoint.h"
#include "commands.h"
#include "json/json.h"
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

void PrintJson(const Checkpoint& checkpoint) {
  Json tensors = Json::array();
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    tensors.push_back({{"name", tensor.spec.name},
                       {"dtype", DTypeName(tensor.dtype)},
                       {"shape", tensor.spec.shape},
                       {"bytes", BytesOf(tensor)}});
  }
  const Json document = {{"path", checkpoint.Describe()},
                         {"format", CheckpointFormatName(checkpoint.format())},
                         {"parameters", Parameters(checkpoint)},
                         {"total_bytes", checkpoint.TotalBytes()},
                         {"vocabulary_tokens", checkpoint.VocabularyTokens().size()},
                         {"config", ConfigOf(checkpoint.config())},
                         {"tensors", std::move(tensors)}};
  std::printf("%s\n", WriteJson(document).c_str());
}

void PrintText(const Checkpoint& checkpoint) {
  std::printf("%s\n", checkpoint.Describe().c_str());
  std::printf("  %-28s %s\n", "format", std::string(CheckpointFormatName(checkpoint.format())).c_str());
  std::printf("  %-28s %.2f billion\n", "parameters", static_cast<double>(Parameters(checkpoint)) * 1e-9);
  std::printf("  %-28s %s\n", "weights", FormatBytes(static_cast<double>(checkpoint.TotalBytes())).c_str());
  if (const size_t tokens = checkpoint.VocabularyTokens().size(); tokens > 0) {
    std::printf("  %-28s %zu tokens\n", "vocabulary in the file", tokens);
  }
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

}  // namespace

void RegisterInspect(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("inspect", "Show a checkpoint's form, configuration and tensors");
  auto model = std::make_shared<std::string>();
  auto as_json = std::make_shared<bool>(false);
  command->add_option("--model", *model, "Directory (hf or original layout) or .gguf file")->required();
  command->add_flag("--json", *as_json, "One JSON document");
  command->callback([model, as_json, exit_code] {
    const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenCheckpoint(*model);
    if (!checkpoint.ok()) {
      *exit_code = Fail(checkpoint.status());
      return;
    }
    if (*as_json) {
      PrintJson(**checkpoint);
    } else {
      PrintText(**checkpoint);
    }
    *exit_code = 0;
  });
}

}  // namespace gptoss::cli

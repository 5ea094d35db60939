#include "model_argument.h"

#include <filesystem>
#include <utility>

#include "embedded_model.h"
#include "hub/cache.h"

namespace gptoss::cli {
namespace {

constexpr int kRandomVocabulary = 201088;  // so that any o200k_harmony token can be sampled

Result<std::shared_ptr<const Checkpoint>> MakeRandomModel() {
  SynthOptions options;
  GPTOSS_ASSIGN_OR_RETURN(options.config, NamedConfig("micro"));
  options.config.vocab_size = kRandomVocabulary;
  options.config.hidden_size = 64;  // the vocabulary alone takes 100 MB at twice this width
  options.config.intermediate_size = 64;
  options.seed = 1;
  GPTOSS_ASSIGN_OR_RETURN(auto checkpoint, MakeSyntheticCheckpoint(options));
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

/// A path as it is, or the folder of a pulled model.
Result<std::string> ResolveModelPath(const std::string& model) {
  if (std::filesystem::exists(model)) return model;
  auto pulled = hub::FindPulledModel(model);
  if (!pulled.ok()) return NotFound("model " + model + ": no such file or directory, and " + pulled.status().message());
  return *pulled;
}

}  // namespace

bool IsRandomModel(const std::string& model) { return model == "random"; }

Result<std::shared_ptr<const Checkpoint>> OpenModelArgument(const std::string& model) {
  if (model == "nano") return OpenEmbeddedModel();
  if (IsRandomModel(model)) return MakeRandomModel();
  GPTOSS_ASSIGN_OR_RETURN(const std::string path, ResolveModelPath(model));
  GPTOSS_ASSIGN_OR_RETURN(auto checkpoint, OpenCheckpoint(path));
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

Result<std::optional<Vocabulary>> OwnVocabulary(const Checkpoint& checkpoint) {
  if (checkpoint.format() == CheckpointFormat::kSynthetic) return std::optional<Vocabulary>();
  const std::string path = checkpoint.Describe(), beside = (std::filesystem::path(path) / "tokenizer.json").string();
  Result<Vocabulary> vocabulary = NotFound("");
  if (const std::vector<std::string> tokens = checkpoint.VocabularyTokens(); !tokens.empty()) {
    vocabulary = Vocabulary::FromGgufTokens(tokens, checkpoint.VocabularyTokenTypes());
  } else if (std::string text = checkpoint.TokenizerJson(); !text.empty()) {
    vocabulary = Vocabulary::FromTokenizerJson(std::move(text));
  } else if (std::filesystem::exists(beside)) {
    GPTOSS_ASSIGN_OR_RETURN(Vocabulary from_file, Vocabulary::FromFile(beside));
    return std::optional(std::move(from_file));
  } else {
    return std::optional<Vocabulary>();
  }
  if (!vocabulary.ok()) {
    return vocabulary.status().WithContext(path + ": its vocabulary cannot be used; name another with --tokenizer");
  }
  return std::optional(*std::move(vocabulary));
}

}  // namespace gptoss::cli

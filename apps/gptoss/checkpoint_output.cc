#include "checkpoint_output.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "progress.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace gptoss::cli {
namespace {

/// Rows of the embedding from which on a model has the published vocabulary: its ordinary and named special tokens.
constexpr int kFullVocabulary = 200019;

class BarProgress final : public WriteProgress {
 public:
  BarProgress() : bar_("writing", 0, ProgressUnit::kBytes, /*quiet=*/false) {}
  bool Update(uint64_t done, uint64_t total) override {
    bar_.SetTotal(total);
    bar_.Update(done);
    if (done == total) bar_.Finish();
    return true;
  }

 private:
  ProgressBar bar_;
};

Result<DType> ParseDense(const std::string& name) {
  if (name.empty() || name == "q8_0") return DType::kQ8_0;
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  if (name == "f32") return DType::kF32;
  return InvalidArgument("--dense is \"" + name + "\"; it can be q8_0, bf16, f16 or f32");
}

/// The vocabulary that belongs to `source`: its own, that of a tokenizer.json beside it, or the embedded one when the
/// model has as many rows; none for smaller models.
Result<std::optional<Vocabulary>> VocabularyOf(const Checkpoint& source) {
  const std::vector<std::string> tokens = source.VocabularyTokens();
  const std::string beside = (std::filesystem::path(source.Describe()) / "tokenizer.json").string();
  std::optional<Vocabulary> vocabulary;
  if (!tokens.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(vocabulary, Vocabulary::FromGgufTokens(tokens, source.VocabularyTokenTypes()));
  } else if (source.format() != CheckpointFormat::kSynthetic && std::filesystem::exists(beside)) {
    GPTOSS_ASSIGN_OR_RETURN(vocabulary, Vocabulary::FromFile(beside));
  } else if (source.config().vocab_size >= kFullVocabulary) {
    GPTOSS_ASSIGN_OR_RETURN(vocabulary, Vocabulary::Embedded());
  }
  return vocabulary;
}

Result<std::optional<GgufVocabularyData>> GgufVocabularyOf(const Checkpoint& source) {
  GPTOSS_ASSIGN_OR_RETURN(std::optional<Vocabulary> vocabulary, VocabularyOf(source));
  if (!vocabulary) return std::optional<GgufVocabularyData>();
  GPTOSS_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::FromVocabulary(*std::move(vocabulary)));
  GgufVocabulary exported = ExportForGguf(tokenizer->vocabulary(), source.config().vocab_size);
  return std::optional(
      GgufVocabularyData{std::move(exported.tokens), std::move(exported.types), std::move(exported.merges)});
}

}  // namespace

void AddOutputFlags(CLI::App& command, const char* format_flag, std::string* format, std::string* out,
                    std::string* dense) {
  command.add_option(format_flag, *format, "Form to write")
      ->required()
      ->check(CLI::IsMember({"hf", "original", "gguf"}));
  command.add_option("--out", *out, "Directory (hf, original) or file (gguf) to make")->required();
  command.add_option("--dense", *dense, "Type of attention, embedding and output matrices (gguf only; default q8_0)")
      ->check(CLI::IsMember({"q8_0", "bf16", "f16", "f32"}));
}

Status WriteCheckpointAs(const Checkpoint& source, const std::string& format, const std::string& out,
                         const std::string& dense, WriteOptions options) {
  if (!dense.empty() && format != "gguf") {
    return InvalidArgument("--dense goes with gguf only: the " + format + " layout holds bf16");
  }
  GPTOSS_ASSIGN_OR_RETURN(options.gguf_dense, ParseDense(dense));
  BarProgress progress;
  options.progress = &progress;
  if (format == "hf") return WriteHf(source, out, options);
  if (format == "original") return WriteOriginal(source, out, options);
  GPTOSS_ASSIGN_OR_RETURN(const std::optional<GgufVocabularyData> vocabulary, GgufVocabularyOf(source));
  if (vocabulary) options.vocabulary = &*vocabulary;
  return WriteGguf(source, out, options);
}

}  // namespace gptoss::cli

#include "checkpoint_output.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "backends/registry.h"
#include "base/mmap_file.h"
#include "json/json.h"
#include "model/write_packed.h"
#include "model_argument.h"
#include "progress.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace gptoss::cli {
namespace {

/// Rows of the embedding from which on a model has the published vocabulary: its ordinary and named special tokens.
constexpr int kFullVocabulary = 200019;

Result<DType> ParseDense(const std::string& name) {
  if (name.empty() || name == "q8_0") return DType::kQ8_0;
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  if (name == "f32") return DType::kF32;
  return InvalidArgument("--dense is \"" + name + "\"; for gguf it can be q8_0, bf16, f16 or f32");
}

/// The vocabulary that belongs to `source`: its own, or the embedded one when the model has as many rows; none for
/// smaller models.
Result<std::optional<Vocabulary>> VocabularyOf(const Checkpoint& source) {
  GPTOSS_ASSIGN_OR_RETURN(std::optional<Vocabulary> vocabulary, OwnVocabulary(source));
  if (!vocabulary && source.config().vocab_size >= kFullVocabulary) {
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

bool SameTokens(const Vocabulary& a, const Vocabulary& b) {
  if (a.size() != b.size()) return false;
  for (TokenId id = 0; id < a.size(); ++id) {
    if (a.KindOf(id) != b.KindOf(id) || a.Token(id) != b.Token(id)) return false;
  }
  return true;
}

/// The tokenizer that a packed file shall carry: a tokenizer.json as it is, or a GGUF file's vocabulary unless it is
/// the embedded one.
Status AddTokenizer(const Checkpoint& source, PackOptions* options) {
  const std::filesystem::path beside = std::filesystem::path(source.Describe()) / "tokenizer.json";
  options->tokenizer_bytes = source.TokenizerJson();
  if (source.format() != CheckpointFormat::kSynthetic && std::filesystem::exists(beside)) {
    GPTOSS_ASSIGN_OR_RETURN(options->tokenizer_bytes, ReadTextFile(beside.string(), Vocabulary::kMaxFileBytes));
  }
  if (!options->tokenizer_bytes.empty()) {
    options->tokenizer_form = "tokenizer.json";
    return Status();
  }
  const std::vector<std::string> tokens = source.VocabularyTokens();
  if (tokens.empty()) return Status();
  GPTOSS_ASSIGN_OR_RETURN(const std::optional<Vocabulary> own, OwnVocabulary(source));
  GPTOSS_ASSIGN_OR_RETURN(const Vocabulary embedded, Vocabulary::Embedded());
  if (own && SameTokens(*own, embedded)) return Status();
  options->tokenizer_form = "gguf";
  options->tokenizer_bytes = WriteJson(Json{{"tokens", tokens}, {"types", source.VocabularyTokenTypes()}});
  return Status();
}

Status WritePackedAs(const Checkpoint& source, const std::string& out, const std::string& dense) {
  PackOptions options;
  if (dense == "int8") {
    options.dense = DensePrecision::kInt8;
  } else if (dense == "bf16") {
    options.dense = DensePrecision::kAsStored;
  } else if (!dense.empty() && dense != "auto") {
    return InvalidArgument("--dense is \"" + dense + "\"; for the packed form it can be auto, int8 or bf16");
  }
  // As the kernels of this machine read them fastest; those of other machines read them too.
  GPTOSS_ASSIGN_OR_RETURN(const Ops* ops, CpuOps("", Precision::kFast));
  options.layout = ops->weight_layout;
  GPTOSS_RETURN_IF_ERROR(AddTokenizer(source, &options));
  ByteProgress progress("writing");
  options.progress = &progress;
  return WritePacked(source, out, options);
}

}  // namespace

bool ByteProgress::Update(uint64_t done, uint64_t total) {
  bar_.SetTotal(total);
  bar_.Update(done);
  if (done == total) bar_.Finish();
  return true;
}

void AddOutputFlags(CLI::App& command, const char* format_flag, OutputForms forms, OutputFlags* flags) {
  const bool packed = forms == OutputForms::kPublicAndPacked;
  std::vector<std::string> names = {"hf", "original", "gguf"}, dense = {"q8_0", "bf16", "f16", "f32"};
  std::string dense_help = "Type of attention, embedding and output matrices (gguf only; default q8_0)";
  if (packed) {
    names.emplace_back("packed");
    dense.insert(dense.end(), {"auto", "int8"});
    dense_help =
        "Type of attention, embedding and output matrices in gguf: q8_0 (default), bf16, f16, f32. For packed what "
        "--dense of run takes: auto, int8, bf16";
  }
  CLI::Option* form = command.add_option(format_flag, flags->format, "Form to write")->check(CLI::IsMember(names));
  if (!packed) form->required();
  command.add_option("--out", flags->out, "Directory (hf, original) or file to make")->required();
  command.add_option("--dense", flags->dense, dense_help)->check(CLI::IsMember(dense));
}

Status WriteCheckpointAs(const Checkpoint& source, const OutputFlags& flags, WriteOptions options) {
  if (flags.format == "packed") return WritePackedAs(source, flags.out, flags.dense);
  if (!flags.dense.empty() && flags.format != "gguf") {
    return InvalidArgument("--dense goes with gguf only: the " + flags.format + " layout holds bf16");
  }
  GPTOSS_ASSIGN_OR_RETURN(options.gguf_dense, ParseDense(flags.dense));
  ByteProgress progress("writing");
  options.progress = &progress;
  if (flags.format == "hf") return WriteHf(source, flags.out, options);
  if (flags.format == "original") return WriteOriginal(source, flags.out, options);
  GPTOSS_ASSIGN_OR_RETURN(const std::optional<GgufVocabularyData> vocabulary, GgufVocabularyOf(source));
  if (vocabulary) options.vocabulary = &*vocabulary;
  return WriteGguf(source, flags.out, options);
}

}  // namespace gptoss::cli

// models/nano inside the binary: a small trained model, for trying everything without a download.
#include "embedded_model.h"

#include "checkpoint/safetensors_checkpoint.h"

// As in tokenizer/embedded_vocabulary.cc. Tensors are read in place, so their file begins on a border of 64 bytes.
#define GPTOSS_EMBED(name, file)                  \
  asm(".pushsection .rodata\n"                    \
      ".balign 64\n"                              \
      ".global gptoss_nano_" name                 \
      "_begin\n"                                  \
      ".hidden gptoss_nano_" name                 \
      "_begin\n"                                  \
      "gptoss_nano_" name                         \
      "_begin:\n"                                 \
      ".incbin \"" GPTOSS_NANO_DIRECTORY "/" file \
      "\"\n"                                      \
      ".global gptoss_nano_" name                 \
      "_end\n"                                    \
      ".hidden gptoss_nano_" name                 \
      "_end\n"                                    \
      "gptoss_nano_" name                         \
      "_end:\n"                                   \
      ".popsection\n")

GPTOSS_EMBED("config", "config.json");
GPTOSS_EMBED("weights", "model.safetensors");
GPTOSS_EMBED("tokenizer", "tokenizer.json");

extern "C" {
extern const char gptoss_nano_config_begin[], gptoss_nano_config_end[];
extern const char gptoss_nano_weights_begin[], gptoss_nano_weights_end[];
extern const char gptoss_nano_tokenizer_begin[], gptoss_nano_tokenizer_end[];
}

namespace gptoss::cli {
namespace {

std::string_view Between(const char* begin, const char* end) { return {begin, static_cast<size_t>(end - begin)}; }

}  // namespace

Result<std::shared_ptr<const Checkpoint>> OpenEmbeddedModel() {
  const std::string_view weights = Between(gptoss_nano_weights_begin, gptoss_nano_weights_end);
  GPTOSS_ASSIGN_OR_RETURN(
      auto checkpoint,
      OpenSafetensorsMemory("the embedded model nano", Between(gptoss_nano_config_begin, gptoss_nano_config_end),
                            std::as_bytes(std::span(weights)),
                            Between(gptoss_nano_tokenizer_begin, gptoss_nano_tokenizer_end)));
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

}  // namespace gptoss::cli

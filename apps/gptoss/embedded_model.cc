// models/nano inside the binary: a small trained model, for trying everything without a download.
#include "embedded_model.h"

#include "base/embed_file.h"
#include "checkpoint/safetensors_checkpoint.h"

GPTOSS_EMBED_FILE(gptoss_nano_config, GPTOSS_NANO_DIRECTORY "/config.json")
GPTOSS_EMBED_FILE(gptoss_nano_weights, GPTOSS_NANO_DIRECTORY "/model.safetensors")
GPTOSS_EMBED_FILE(gptoss_nano_tokenizer, GPTOSS_NANO_DIRECTORY "/tokenizer.json")

namespace gptoss::cli {

Result<std::shared_ptr<const Checkpoint>> OpenEmbeddedModel() {
  GPTOSS_ASSIGN_OR_RETURN(
      auto checkpoint, OpenSafetensorsMemory("the embedded model nano", gptoss_nano_config(),
                                             std::as_bytes(std::span(gptoss_nano_weights())), gptoss_nano_tokenizer()));
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

}  // namespace gptoss::cli

// evals/nano.jsonl inside the binary: questions that training/nano keeps out of the training data.
#include "eval_suite.h"

// As in tokenizer/embedded_vocabulary.cc.
asm(".pushsection .rodata\n"
    ".global gptoss_embedded_suite_begin\n"
    ".hidden gptoss_embedded_suite_begin\n"
    "gptoss_embedded_suite_begin:\n"
    ".incbin \"" GPTOSS_SUITE_FILE
    "\"\n"
    ".global gptoss_embedded_suite_end\n"
    ".hidden gptoss_embedded_suite_end\n"
    "gptoss_embedded_suite_end:\n"
    ".popsection\n");

extern "C" {
extern const char gptoss_embedded_suite_begin[];
extern const char gptoss_embedded_suite_end[];
}

namespace gptoss::cli {

std::string_view EmbeddedNanoSuite() {
  return {gptoss_embedded_suite_begin, static_cast<size_t>(gptoss_embedded_suite_end - gptoss_embedded_suite_begin)};
}

}  // namespace gptoss::cli

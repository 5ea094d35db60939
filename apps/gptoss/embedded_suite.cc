// evals/nano.jsonl inside the binary: questions that training/nano keeps out of the training data.
#include "base/embed_file.h"
#include "eval_suite.h"

GPTOSS_EMBED_FILE(gptoss_embedded_suite, GPTOSS_SUITE_FILE)

namespace gptoss::cli {

std::string_view EmbeddedNanoSuite() { return gptoss_embedded_suite(); }

}  // namespace gptoss::cli

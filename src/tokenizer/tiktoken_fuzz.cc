// libFuzzer entry: .tiktoken files from untrusted bytes.
#include <string_view>

#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto vocabulary = gptoss::Vocabulary::FromTiktoken({reinterpret_cast<const char*>(data), size});
  if (vocabulary.ok()) static_cast<void>(gptoss::Tokenizer::FromVocabulary(*std::move(vocabulary)));
  return 0;
}

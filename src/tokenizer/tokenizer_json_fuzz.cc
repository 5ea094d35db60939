// libFuzzer entry: tokenizer.json from untrusted bytes.
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto vocabulary = gptoss::Vocabulary::FromTokenizerJson(std::string(reinterpret_cast<const char*>(data), size));
  if (vocabulary.ok()) static_cast<void>(gptoss::Tokenizer::FromVocabulary(*std::move(vocabulary)));
  return 0;
}

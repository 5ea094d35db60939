// libFuzzer entry: any bytes, encoded and decoded, must come back; and decoding in steps must equal decoding at once.
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto kTokenizer = gptoss::Tokenizer::Embedded();
  GPTOSS_CHECK(kTokenizer.ok());
  const gptoss::Tokenizer& tokenizer = **kTokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<gptoss::TokenId> ids = tokenizer.Encode(text);
  GPTOSS_CHECK(tokenizer.Decode(ids) == text);
  gptoss::IncrementalDecoder decoder(tokenizer);
  std::string stepwise;
  for (const gptoss::TokenId id : ids) stepwise += decoder.Add(id);
  stepwise += decoder.Finish();
  GPTOSS_CHECK(stepwise == gptoss::ReplaceInvalidUtf8(text));
  std::vector<gptoss::TokenId> with_special;
  tokenizer.EncodeWithSpecial(text, &with_special);
  GPTOSS_CHECK(tokenizer.Decode(with_special) == text ||
               text.find("<|endofprompt|>") != std::string_view::npos);  // decodes to its other name
  return 0;
}

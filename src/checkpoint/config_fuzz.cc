// Any text as config.json of either layout: a configuration that holds, or an error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/model_config.h"
#include "checkpoint/strict_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(gptoss::ParseStrictJson(text));
  const auto json = gptoss::ParseJson(text);
  if (!json.ok()) return 0;
  const auto hf = gptoss::ParseHfConfig(*json);
  GPTOSS_CHECK(!hf.ok() || gptoss::ParseHfConfig(gptoss::HfConfigJson(*hf)).ok());
  const auto original = gptoss::ParseOriginalConfig(*json);
  GPTOSS_CHECK(!original.ok() || gptoss::ParseOriginalConfig(gptoss::OriginalConfigJson(*original)).ok());
  return 0;
}

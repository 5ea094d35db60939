// Fuzz entry for what a server or a damaged disk can hand to pull: the listing, and the names in it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "hub/http_client.h"
#include "hub/listing.h"
#include "hub/names.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gptoss::hub;  // NOLINT
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ParseContentRange(text);
  const auto listing = ParseListing(text);
  if (!listing.ok()) return 0;
  const auto files = SelectFiles(*listing, {.include = {"*"}});
  if (!files.ok()) return 0;
  for (const RemoteFile& file : *files) GPTOSS_CHECK(ValidateRemotePath(file.path).ok());
  return 0;
}

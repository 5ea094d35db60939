// The keyword format.
#pragma once

#include <string>

#include "grammar/regex.h"

namespace gptoss {

/// The body of a string with this format, or null when the format is not known.
Regex FormatRegex(const std::string& format);

}  // namespace gptoss

// What `gptoss train` says about its data before training.
#pragma once

#include <string>

#include "training/dataset.h"

namespace gptoss::cli {

/// "FILE:LINE: reason" on stderr for the first bad lines and a count of the rest. Returns whether there were any.
bool PrintBadLines(const std::string& path, const Dataset& dataset);

/// One line on stderr: conversations, tokens, trained tokens, the longest.
void PrintStatistics(const std::string& path, const Dataset& dataset);

/// The first `count` conversations on stdout; what is trained on stands in green on a terminal, between ⟦ and ⟧
/// elsewhere.
void PrintPreview(const Renderer& renderer, const Dataset& dataset, int count);

}  // namespace gptoss::cli

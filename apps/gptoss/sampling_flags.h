// Flags that every command which samples shares.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/status.h"
#include "engine/speculation.h"
#include "sampling/sampler.h"

namespace gptoss::cli {

/// "ID=VALUE" with VALUE from -100 to 100. On failure: kInvalidArgument saying what is wrong.
Result<std::pair<int32_t, float>> ParseLogitBias(const std::string& text);

/// "off", or the most tokens to propose. On failure: kInvalidArgument.
Result<int> ParseSpeculate(const std::string& text);

/// Adds --temperature, --top-p, --top-k, --min-p, the three penalties and --logit-bias.
void AddSamplingFlags(CLI::App& command, SamplingParams* sampling);

/// Adds --speculate.
void AddSpeculateFlag(CLI::App& command, SpeculationOptions* speculation);

}  // namespace gptoss::cli

// One registration function per subcommand; each lives in its own file and holds flags and printing only.
// Machine output goes to stdout, everything for people to stderr. Exit codes: 0 success, 1 failed operation, 2 wrong
// usage.
#pragma once

#include <CLI/CLI.hpp>

#include "base/status.h"

namespace gptoss::cli {

/// Registers a subcommand on `app`; when it is chosen and done, `*exit_code` holds what main returns.
void RegisterBench(CLI::App& app, int* exit_code);
void RegisterCompletion(CLI::App& app, int* exit_code);
void RegisterConvert(CLI::App& app, int* exit_code);
void RegisterEval(CLI::App& app, int* exit_code);
void RegisterGenerate(CLI::App& app, int* exit_code);
void RegisterGrammar(CLI::App& app, int* exit_code);
void RegisterInfo(CLI::App& app, int* exit_code);
void RegisterInspect(CLI::App& app, int* exit_code);
void RegisterLogits(CLI::App& app, int* exit_code);
void RegisterParse(CLI::App& app, int* exit_code);
void RegisterPlan(CLI::App& app, int* exit_code);
void RegisterPull(CLI::App& app, int* exit_code);
void RegisterRender(CLI::App& app, int* exit_code);
void RegisterRun(CLI::App& app, int* exit_code);
void RegisterServe(CLI::App& app, int* exit_code);
void RegisterSynth(CLI::App& app, int* exit_code);
void RegisterTokenize(CLI::App& app, int* exit_code);
void RegisterTrain(CLI::App& app, int* exit_code);
void RegisterVerify(CLI::App& app, int* exit_code);

/// Prints "gptoss: MESSAGE" to stderr and returns 1 (2 for kInvalidArgument that concerns a flag: use UsageError).
int Fail(const Status& status);
/// Prints the error and a pointer to --help; returns 2.
int UsageError(const std::string& message);

}  // namespace gptoss::cli

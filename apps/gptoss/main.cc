#include <cstdio>
#include <exception>
#include <string>

#include "commands.h"

namespace gptoss::cli {

int Fail(const Status& status) {
  std::fprintf(stderr, "gptoss: %s\n", status.message().c_str());
  return 1;
}

int UsageError(const std::string& message) {
  std::fprintf(stderr, "gptoss: %s (see gptoss --help)\n", message.c_str());
  return 2;
}

}  // namespace gptoss::cli

namespace {

/// One line: what is wrong, and which --help to read.
std::string UsageLine(const CLI::App* app, const CLI::Error& error) {
  const auto chosen = app->get_subcommands();
  const std::string command = chosen.empty() ? "" : " " + chosen.front()->get_name();
  const auto unknown = app->remaining();
  const std::string what =
      chosen.empty() && !unknown.empty() ? "\"" + unknown.front() + "\" is not a command" : error.what();
  return "gptoss: " + what + " (see gptoss" + command + " --help)\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("gptoss: runs OpenAI's open-weight models gpt-oss-20b and gpt-oss-120b on your own machine");
  app.require_subcommand(1);
  app.failure_message(UsageLine);
  app.set_version_flag("--version", "gptoss " GPTOSS_VERSION);
  int exit_code = 0;
  gptoss::cli::RegisterBench(app, &exit_code);
  gptoss::cli::RegisterCompletion(app, &exit_code);
  gptoss::cli::RegisterConvert(app, &exit_code);
  gptoss::cli::RegisterEval(app, &exit_code);
  gptoss::cli::RegisterGenerate(app, &exit_code);
  gptoss::cli::RegisterGrammar(app, &exit_code);
  gptoss::cli::RegisterInfo(app, &exit_code);
  gptoss::cli::RegisterInspect(app, &exit_code);
  gptoss::cli::RegisterLogits(app, &exit_code);
  gptoss::cli::RegisterParse(app, &exit_code);
  gptoss::cli::RegisterPlan(app, &exit_code);
  gptoss::cli::RegisterPull(app, &exit_code);
  gptoss::cli::RegisterRender(app, &exit_code);
  gptoss::cli::RegisterRun(app, &exit_code);
  gptoss::cli::RegisterServe(app, &exit_code);
  gptoss::cli::RegisterSynth(app, &exit_code);
  gptoss::cli::RegisterTokenize(app, &exit_code);
  gptoss::cli::RegisterTrain(app, &exit_code);
  gptoss::cli::RegisterVerify(app, &exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);  // prints help, version or what is wrong
    return code == 0 ? 0 : 2;
  }
  return exit_code;
}

#include <cstdio>
#include <exception>

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

int main(int argc, char** argv) {
  CLI::App app("gptoss: runs OpenAI's open-weight models gpt-oss-20b and gpt-oss-120b on your own machine");
  app.require_subcommand(1);
  app.set_version_flag("--version", "gptoss " GPTOSS_VERSION);
  int exit_code = 0;
  gptoss::cli::RegisterBench(app, &exit_code);
  gptoss::cli::RegisterCompletion(app, &exit_code);
  gptoss::cli::RegisterConvert(app, &exit_code);
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

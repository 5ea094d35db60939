// gptoss pull: fetches a model from a Hugging Face compatible endpoint into the folder of pulled models.
#include "hub/pull.h"

#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "commands.h"
#include "json/json.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler stores to it");

/// The first Ctrl-C stops cleanly; the next one, should that take too long, ends the process as usual.
void StopOnInterrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { g_interrupted.store(true); };
  action.sa_flags = SA_RESETHAND;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

struct PullArguments {
  hub::PullOptions options;
  bool json = false;
  bool quiet = false;
};

Json SummaryJson(const hub::PullSummary& summary) {
  Json files = Json::array();
  for (const hub::RemoteFile& file : summary.files) {
    files.push_back({{"path", file.path}, {"size", file.size}, {"digest", file.digest.ToString()}});
  }
  return {{"repo", summary.repo},
          {"revision", summary.revision},
          {"commit", summary.commit},
          {"path", summary.path},
          {"already_complete", summary.already_complete},
          {"bytes_total", summary.bytes_total},
          {"bytes_received", summary.bytes_received},
          {"files", std::move(files)}};
}

int RunPull(PullArguments& arguments) {
  hub::PullOptions& options = arguments.options;
  options.token = FromEnvironment("HF_TOKEN");
  options.ca_file = FromEnvironment("CURL_CA_BUNDLE");
  if (options.ca_file.empty()) options.ca_file = FromEnvironment("SSL_CERT_FILE");
  options.cancel = &g_interrupted;
  StopOnInterrupt();

  auto bar = std::make_unique<ProgressBar>(options.name, 0, ProgressUnit::kBytes, arguments.quiet);
  hub::PullEvents events;
  events.note = [&](const std::string& line) { bar->Note(line); };
  events.progress = [&](const hub::PullProgress& progress) {
    bar->SetTotal(progress.bytes_total);
    std::string detail = std::to_string(progress.files_done) + "/" + std::to_string(progress.files_total) + " files";
    if (progress.files_verifying > 0) detail += ", verifying";
    bar->Update(progress.bytes_done, detail);
  };
  const auto summary = hub::Pull(options, events);
  bar.reset();
  if (!summary.ok()) {
    if (summary.status().code() == StatusCode::kCancelled) {
      return Fail(Cancelled("pull stopped; the same command resumes where it stopped"));
    }
    if (summary.status().code() == StatusCode::kInvalidArgument) return UsageError(summary.status().message());
    return Fail(summary.status());
  }
  if (arguments.json) {
    std::printf("%s\n", WriteJson(SummaryJson(*summary), 1).c_str());
  } else {
    std::printf("%s\n", summary->path.c_str());
  }
  if (!arguments.quiet) {
    std::fprintf(stderr, "%s %s, %s in %zu files; use it as --model %s\n", summary->repo.c_str(),
                 summary->already_complete ? "is already complete" : "is complete and verified",
                 FormatBytes(static_cast<double>(summary->bytes_total)).c_str(), summary->files.size(),
                 options.name.c_str());
  }
  return 0;
}

}  // namespace

void RegisterPull(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<PullArguments>();
  hub::PullOptions& options = arguments->options;
  CLI::App* command = app.add_subcommand("pull", "Download a model, resuming and verifying");
  command->footer(
      "Prints the model's folder. HF_TOKEN, if set, is sent to the endpoint only. Models are kept in\n"
      "$GPTOSS_HOME/models, $XDG_DATA_HOME/gptoss/models or ~/.local/share/gptoss/models.");
  command->add_option("name", options.name, "gpt-oss-20b, gpt-oss-120b or org/repo")->required();
  command->add_option("--endpoint", options.endpoint, "Hugging Face compatible endpoint")
      ->envname("HF_ENDPOINT")
      ->capture_default_str();
  command->add_option("--revision", options.revision, "Branch, tag or commit")->capture_default_str();
  command->add_option("--cache-dir", options.models_dir, "Folder of pulled models");
  auto* include = command->add_option("--include", options.selection.include,
                                      "Download what matches this pattern instead of the default files (repeatable)");
  include->allow_extra_args(false);
  command->add_flag("--original", options.selection.original, "OpenAI's own layout, original/*, instead of safetensors")
      ->excludes(include);
  command->add_option("--jobs", options.jobs, "Connections at a time, 1 to 32")->capture_default_str();
  command->add_option("--chunk-size", options.chunk_bytes, "Bytes a request, e.g. 64M")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("64M");
  command->add_option("--retries", options.retry.max_retries, "Attempts in a row without progress before giving up")
      ->capture_default_str();
  command->add_option("--retry-delay", options.retry.first_delay_s, "Seconds before the first retry; doubles each time")
      ->capture_default_str();
  command->add_flag("--insecure", options.allow_plain_http, "Allow plain http to hosts other than this machine");
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->add_flag("--quiet", arguments->quiet, "No progress");
  command->callback([arguments, exit_code] { *exit_code = RunPull(*arguments); });
}

}  // namespace gptoss::cli

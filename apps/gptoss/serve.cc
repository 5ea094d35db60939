// `gptoss serve`: puts the parts of the server together, and tells the system's signals to them.
#include "engine/engine.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <ctime>
#include <set>
#include <sstream>
#include <thread>

#include "base/mmap_file.h"
#include "commands.h"
#include "model_card.h"
#include "serve_flags.h"
#include "server/anthropic/messages.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/openai/chat_completions.h"
#include "server/openai/completions.h"
#include "server/openai/models.h"
#include "server/openai/responses.h"
#include "server/operation.h"
#include "server/turn_log.h"

namespace gptoss::cli {
namespace {

/// Keys, counters and the log, behind the HTTP server.
class Watch : public server::HttpObserver {
 public:
  Watch(server::Metrics& metrics, server::Log& log) : metrics_(metrics), log_(log) {}

  std::optional<server::ApiError> Admit(server::HttpRequest& request) override {
    // Whoever watches over the process needs no key to ask whether it lives.
    if (request.path == "/health" || request.path == "/ready") return std::nullopt;
    return access.Admit(request);
  }

  void OnFinished(const server::RequestRecord& record) override {
    if (record.admitted && !record.key_name.empty()) access.Release(record.key_name);
    metrics_.OnRequest(record);
    Json line = {
        {"event", "request"},      {"id", record.id},           {"method", record.method},        {"path", record.path},
        {"status", record.status}, {"seconds", record.seconds}, {"sent_bytes", record.sent_bytes}};
    if (!record.key_name.empty()) line["key"] = record.key_name;
    if (record.client_left) line["client_left"] = true;
    log_.Write(std::move(line));
  }

  server::AccessControl access;

 private:
  server::Metrics& metrics_;
  server::Log& log_;
};

sigset_t WatchedSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

/// Waits for signals on a thread of its own: SIGHUP reads the keys again, SIGTERM and SIGINT drain, and the second of
/// these stops at once.
class SignalThread {
 public:
  SignalThread(const ServeFlags& flags, Watch& watch, server::Log& log, Engine& engine, server::HttpServer& http,
               std::atomic<bool>& ready)
      : flags_(flags), watch_(watch), log_(log), engine_(engine), http_(http), ready_(ready), thread_([this] {
          Loop();
        }) {}
  ~SignalThread() {
    over_ = true;
    thread_.join();
    if (drain_.joinable()) drain_.join();
  }

 private:
  void Loop() {
    const sigset_t set = WatchedSignals();
    while (!over_) {
      const timespec wait = {0, 200'000'000};
      const int signal = sigtimedwait(&set, nullptr, &wait);
      if (signal == SIGHUP) ReloadKeys();
      if (signal == SIGTERM || signal == SIGINT) End();
    }
  }

  void ReloadKeys() {
    auto keys = ReadKeys(flags_);
    log_.Write({{"event", "keys"}, {"error", keys.ok() ? Json(nullptr) : Json(keys.status().message())}});
    // A file that cannot be read leaves the keys as they are: it must not open the server to everybody.
    if (keys.ok()) watch_.access.SetKeys(*std::move(keys));
  }

  void End() {
    if (!ready_.exchange(false)) return http_.Stop();
    log_.Write({{"event", "draining"}});
    drain_ = std::thread([this] {
      http_.Drain();
      engine_.Drain(std::chrono::steady_clock::now() + std::chrono::seconds(flags_.drain_seconds));
      // What was cancelled still has to reach its clients.
      for (int i = 0; i < 20 && http_.connections() > 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      http_.Stop();
    });
  }

  const ServeFlags& flags_;
  Watch& watch_;
  server::Log& log_;
  Engine& engine_;
  server::HttpServer& http_;
  std::atomic<bool>& ready_;
  std::atomic<bool> over_{false};
  std::thread drain_;
  std::thread thread_;
};

server::ApiOptions ApiOptionsOf(const ServeFlags& flags) {
  server::ApiOptions options;
  options.model = ModelNameOf(flags);
  options.created = static_cast<int64_t>(std::time(nullptr));
  options.version = GPTOSS_VERSION;
  options.effort = *ReasoningEffortFromName(flags.effort);
  options.withhold_reasoning = flags.withhold_reasoning;
  return options;
}

void AddRoutes(const server::ApiContext& api, server::ResponseStore& store, server::ReplayStore& replay,
               const server::ModelCard& card, const server::OperationHooks& hooks, server::Router* router) {
  AddChatCompletionsRoutes(*router, api, &replay);
  AddCompletionsRoutes(*router, api);
  AddModelRoutes(*router, api);
  AddResponsesRoutes(*router, api, store, replay);
  AddAnthropicRoutes(*router, api, replay);
  AddOllamaRoutes(*router, api, replay, card);
  AddOperationRoutes(*router, api, hooks);
}

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

int RunServe(ServeFlags flags) {
  // Before any thread, so that all of them inherit it and only SignalThread is told.
  const sigset_t set = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);

  const EngineOptions engine_options = EngineOptionsOf(&flags);
  auto keys = ReadKeys(flags);
  if (!keys.ok()) return Fail(keys.status());
  std::unique_ptr<std::FILE, FileCloser> log_file;
  if (!flags.log_file.empty()) {
    log_file.reset(std::fopen(flags.log_file.c_str(), "a"));
    if (log_file == nullptr) return Fail(IoError("--log-file " + flags.log_file + ": cannot be opened for writing"));
  }
  server::Log log(log_file != nullptr ? log_file.get() : flags.model.quiet ? nullptr : stderr);
  server::Metrics metrics;
  Watch watch(metrics, log);
  watch.access.SetKeys(*std::move(keys));

  auto store = server::ResponseStore::Open(flags.store, flags.store_limits, [&](const std::string& text) {
    log.Write({{"event", "store"}, {"message", text}});
  });
  if (!store.ok()) return Fail(store.status());
  server::ReplayStore replay(64u << 20, store->get());

  // The address is taken before the model is loaded, which can take long, only to find it in use.
  server::Router router;
  auto http = server::HttpServer::Create(flags.http, router, watch);
  if (!http.ok()) return Fail(http.status());
  auto session = ModelSession::Open(flags.model);
  if (!session.ok()) return Fail(session.status());
  WarnIfRandom(flags.model);
  auto tokenizer = OpenTokenizer(flags.model);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  auto engine = Engine::Create(*(*session)->runner, engine_options);
  if (!engine.ok()) return Fail(engine.status());
  server::TurnServiceOptions turn_options;
  turn_options.date = flags.date;
  auto turns = server::TurnService::Create(**engine, *tokenizer, turn_options);
  if (!turns.ok()) return Fail(turns.status());
  const auto counted = server::CountTurns(**turns, metrics);
  std::unique_ptr<server::TurnService> logged;
  if (flags.log_content) logged = server::LogTurns(*counted, log);

  std::atomic<bool> ready{true};
  server::ApiContext api = {logged != nullptr ? logged.get() : counted.get(), ApiOptionsOf(flags)};
  api.options.adapters = (*session)->adapter_names;
  const server::OperationHooks hooks = {[&] { return ready.load(); },
                                        [&] { return metrics.Text((*engine)->stats(), (*http)->connections()); }};
  AddRoutes(api, **store, replay, ModelCardOf(*(*session)->checkpoint), hooks, &router);

  SignalThread signals(flags, watch, log, **engine, **http, ready);
  std::printf("gptoss: serving %s at %s\n", api.options.model.c_str(), (*http)->address().c_str());
  std::fflush(stdout);
  (*http)->Run();
  return 0;
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\"");
  const size_t end = text.find_last_not_of(" \t\r\"");
  return begin == std::string::npos ? std::string() : text.substr(begin, end - begin + 1);
}

/// Sets the flags that a file names and the command line does not. On failure: kInvalidArgument naming the line.
Status ApplyConfig(const std::string& path, CLI::App* command) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  std::istringstream lines(text);
  std::set<const CLI::Option*> given;
  for (const CLI::Option* option : command->get_options()) {
    if (option->count() > 0) given.insert(option);
  }
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string where = path + " line " + std::to_string(++number);
    if (Trimmed(line).empty() || Trimmed(line).starts_with('#')) continue;
    const size_t equals = line.find('=');
    const std::string name = Trimmed(line.substr(0, equals));
    CLI::Option* option = command->get_option_no_throw("--" + name);
    if (equals == std::string::npos || option == nullptr || name == "config") {
      return InvalidArgument(where + ": expected NAME = VALUE with the name of a flag of serve");
    }
    if (given.contains(option)) continue;
    try {
      option->add_result(Trimmed(line.substr(equals + 1)));
      option->run_callback();
    } catch (const CLI::Error& e) {
      return InvalidArgument(where + ": " + e.what());
    }
  }
  return {};
}

}  // namespace

void RegisterServe(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "HTTP server that speaks OpenAI's APIs");
  AddServeFlags(*command, flags.get());
  auto config = std::make_shared<std::string>();
  command->add_option("--config", *config, "File of flags, one NAME = VALUE a line; flags given here win");
  command->footer(
      "Examples:\n  gptoss serve --model gpt-oss-20b\n  gptoss serve --model gpt-oss-20b --host 0.0.0.0 --port 8000 "
      "--api-key-file keys.txt --tls-cert chain.pem --tls-key key.pem");
  command->callback([flags, exit_code, config, command] {
    const Status status = config->empty() ? Status() : ApplyConfig(*config, command);
    *exit_code = status.ok() ? RunServe(*flags) : UsageError(status.message());
  });
}

}  // namespace gptoss::cli

#include "serve_flags.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/mmap_file.h"

namespace gptoss::cli {
namespace {

constexpr int kServeContext = 32768;

void AddListenFlags(CLI::App& command, ServeFlags* flags) {
  server::HttpServerOptions& http = flags->http;
  const std::string group = "Listening";
  command.add_option("--host", http.host, "Name or address to listen on")->group(group)->capture_default_str();
  command.add_option("--port", http.port, "Port; 0 picks a free one, which is printed")
      ->check(CLI::Range(0, 65535))
      ->group(group)
      ->capture_default_str();
  command.add_option("--unix-socket", http.unix_socket, "Listen on this path instead of host and port")->group(group);
  command.add_option("--tls-cert", http.tls_cert, "Certificate chain, PEM; with --tls-key: HTTPS")->group(group);
  command.add_option("--tls-key", http.tls_key, "Private key, PEM")->group(group);
  command
      .add_option("--cors-origin", http.allowed_origins,
                  "Origin of web pages that may use the server besides this machine's own; * for any; may be repeated")
      ->group(group);
  command.add_option("--max-connections", http.max_connections, "Most open connections")
      ->check(CLI::Range(1, 1 << 20))
      ->group(group)
      ->capture_default_str();
  command.add_option("--max-body-mib", flags->max_body_mib, "Largest request body, MiB")
      ->check(CLI::Range(1, 1024))
      ->group(group)
      ->capture_default_str();
}

void AddAccessFlags(CLI::App& command, ServeFlags* flags) {
  const std::string group = "Access and logs";
  command
      .add_option("--api-key-file", flags->key_file,
                  "File of keys, one a line: KEY, or NAME KEY [requests_per_minute=N] [concurrent=N]; read again on "
                  "SIGHUP. GPTOSS_API_KEYS in the environment holds more, separated by commas")
      ->group(group);
  command.add_flag("--withhold-reasoning", flags->withhold_reasoning, "The chain of thought is not given to clients")
      ->group(group);
  command.add_option("--log-file", flags->log_file, "Where the log goes (default: stderr; --quiet: nowhere)")
      ->group(group);
  command.add_flag("--log-content", flags->log_content, "The log also holds prompts and what the model says")
      ->group(group);
}

void AddStoreFlags(CLI::App& command, ServeFlags* flags) {
  const std::string group = "Stored responses";
  const auto limit = [&](const char* name, auto& value, int most, const char* help) {
    command.add_option(name, value, help)->check(CLI::Range(1, most))->group(group)->capture_default_str();
  };
  command.add_option("--store", flags->store, "SQLite file for stored responses (default: in memory)")->group(group);
  limit("--store-responses", flags->store_limits.max_responses, 1 << 30, "Most that are kept; the least used go first");
  limit("--store-mib", flags->store_mib, 1 << 30, "What they may take, MiB; in memory at most 128");
  limit("--store-turns-mib", flags->store_turns_mib, 1 << 30, "What the tokens kept for replay may take, MiB");
  limit("--store-days", flags->store_days, 36500, "Days after its last use that a response is kept");
}

void AddEngineFlags(CLI::App& command, ServeFlags* flags) {
  const std::string group = "Many requests";
  command.add_option("--parallel", flags->parallel, "Most requests that are computed together")
      ->check(CLI::Range(1, 1024))
      ->group(group)
      ->capture_default_str();
  command
      .add_option("--cache-tokens", flags->cache_tokens,
                  "Tokens of all requests together that the key-value cache holds (default: twice --context)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->group(group);
  command
      .add_option("--prompt-cache-mib", flags->prompt_cache_mib,
                  "Memory for the beginnings of earlier prompts, which later ones need not compute again, MiB; 0: off")
      ->check(CLI::Range(0, 1 << 24))
      ->group(group)
      ->capture_default_str();
  command.add_option("--cache-dir", flags->cache_dir, "Folder in which they outlast the process (default: none)")
      ->group(group);
  command.add_option("--cache-dir-mib", flags->cache_dir_mib, "Most that this folder may grow to, MiB")
      ->check(CLI::Range(1, 1 << 30))
      ->group(group)
      ->capture_default_str();
  command.add_option("--max-waiting", flags->max_waiting, "Most requests in the queue; more are told to come again")
      ->check(CLI::Range(0, 1 << 20))
      ->group(group)
      ->capture_default_str();
  command.add_option("--max-speculation", flags->max_speculation, "Tokens tried ahead for a request and step; 0: off")
      ->check(CLI::Range(0, 64))
      ->group(group)
      ->capture_default_str();
  command.add_option("--drain-seconds", flags->drain_seconds, "Time that answers under way get after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->group(group)
      ->capture_default_str();
}

}  // namespace

void AddServeFlags(CLI::App& command, ServeFlags* flags) {
  flags->model.context = kServeContext;
  flags->model.named_adapters = true;
  AddModelFlags(command, &flags->model);
  command.add_option("--tokenizer", flags->model.tokenizer,
                     "tokenizer.json or .tiktoken file (default: the model's, else the embedded vocabulary)");
  command.add_option("--model-name", flags->model_name, "Name of the model for clients (default: from --model)");
  command.add_option("--effort", flags->effort, "Reasoning effort of requests that name none")
      ->check(CLI::IsMember({"low", "medium", "high"}))
      ->capture_default_str();
  command.add_option("--date", flags->date, "Date that the model is told, YYYY-MM-DD (default: today's)");
  AddListenFlags(command, flags);
  AddAccessFlags(command, flags);
  AddStoreFlags(command, flags);
  AddEngineFlags(command, flags);
}

EngineOptions EngineOptionsOf(ServeFlags* flags) {
  flags->model.sequences = flags->parallel;
  flags->model.total_context = std::max<int64_t>(flags->cache_tokens, flags->model.context);
  if (flags->cache_tokens == 0) flags->model.total_context = int64_t{2} * flags->model.context;
  flags->model.cache_bytes = static_cast<uint64_t>(flags->prompt_cache_mib) << 20;
  flags->store_limits.max_bytes = int64_t{flags->store_mib} << 20;
  flags->store_limits.max_turn_bytes = int64_t{flags->store_turns_mib} << 20;
  flags->store_limits.max_age_s = int64_t{flags->store_days} * 86400;
  flags->http.limits.max_body_bytes = static_cast<size_t>(flags->max_body_mib) << 20;
  EngineOptions options;
  options.max_running = flags->parallel;
  options.max_waiting = flags->max_waiting;
  options.max_speculation = flags->max_speculation;
  options.cache_bytes = flags->model.cache_bytes;
  options.cache_dir = flags->cache_dir;
  options.cache_dir_bytes = static_cast<uint64_t>(flags->cache_dir_mib) << 20;
  return options;
}

Result<std::vector<server::AccessKey>> ReadKeys(const ServeFlags& flags) {
  std::string text;
  if (!flags.key_file.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(text, ReadTextFile(flags.key_file));
    text += "\n";
  }
  if (const char* more = std::getenv("GPTOSS_API_KEYS"); more != nullptr) {
    std::string lines = more;
    std::replace(lines.begin(), lines.end(), ',', '\n');
    text += lines;
  }
  auto keys = server::ParseAccessKeys(text);
  if (!keys.ok()) return keys.status().WithContext(flags.key_file.empty() ? "GPTOSS_API_KEYS" : flags.key_file);
  if (keys->empty() && !flags.key_file.empty()) return InvalidArgument(flags.key_file + ": holds no key");
  return keys;
}

std::string ModelNameOf(const ServeFlags& flags) {
  if (!flags.model_name.empty()) return flags.model_name;
  std::string path = flags.model.model;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::string name = std::filesystem::path(path).filename().string();
  for (const char* suffix : {".gguf", ".gptoss"}) {
    if (name.ends_with(suffix)) name.resize(name.size() - std::string_view(suffix).size());
  }
  return name;
}

}  // namespace gptoss::cli

// Flags of `gptoss serve`.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "model_session.h"
#include "server/access_keys.h"
#include "server/api_context.h"
#include "server/http_server.h"
#include "server/response_store.h"

namespace gptoss::cli {

struct ServeFlags {
  ModelFlags model;
  server::HttpServerOptions http;
  std::string model_name, effort = "medium", date;
  std::string key_file, store, log_file;
  int parallel = 16, max_waiting = 2048, max_speculation = 0;
  int64_t cache_tokens = 0;
  int prompt_cache_mib = 512;
  std::string cache_dir;
  int cache_dir_mib = 8192;
  int max_body_mib = 64;
  server::StoreLimits store_limits;
  int store_days = 30, store_mib = 2048, store_turns_mib = 1024;
  int drain_seconds = 30;
  bool withhold_reasoning = false, log_content = false;
};

void AddServeFlags(CLI::App& command, ServeFlags* flags);

/// What the flags mean for the engine, the cache, the store, and the HTTP server; completes `flags`.
EngineOptions EngineOptionsOf(ServeFlags* flags);

/// The keys of --api-key-file and of the environment's GPTOSS_API_KEYS (separated by commas). On failure: kIo or
/// kInvalidArgument naming the file and the line.
Result<std::vector<server::AccessKey>> ReadKeys(const ServeFlags& flags);

/// The name by which clients see the model: --model-name, or what is left of --model without folders and suffix.
std::string ModelNameOf(const ServeFlags& flags);

}  // namespace gptoss::cli

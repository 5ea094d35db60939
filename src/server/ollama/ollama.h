// Ollama's /api/chat, /api/generate, /api/tags, /api/show, /api/ps and /api/version.
#pragma once

#include <cstdint>
#include <string>

#include "server/api_context.h"
#include "server/http.h"
#include "server/replay/replay_store.h"

namespace gptoss::server {

/// What Ollama's clients ask about a model.
struct ModelCard {
  uint64_t bytes = 0;       // of the weights
  uint64_t parameters = 0;  // 20'914'757'184
  int layers = 0, experts = 0, active_experts = 0, hidden = 0, heads = 0, kv_heads = 0;
  int context = 0;           // tokens
  int vocabulary = 0;        // rows
  std::string format;        // "safetensors", "gguf"
  std::string quantization;  // "MXFP4"
};

/// The version of Ollama whose API this is: clients ask for it to know what they may use.
inline constexpr char kOllamaApiVersion[] = "0.14.0";

/// All but `card` must outlive the router.
void AddOllamaRoutes(Router& router, const ApiContext& api, ReplayStore& replay, const ModelCard& card);

}  // namespace gptoss::server

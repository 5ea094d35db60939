#include "server/openai/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <climits>

#include "server/api/ids.h"
#include "server/api/limits.h"

namespace gptoss::server {
namespace {

constexpr size_t kMaxBiases = 4096;
// What JSON can write as a number and no double can hold: far more than any model has tokens.
constexpr int64_t kMostTokens = int64_t{1} << 53;

void ReadStops(FieldReader& body, std::vector<std::string>* stops) {
  const Json* stop = body.Find("stop");
  if (stop == nullptr) return;
  const Json list = stop->is_array() ? *stop : Json::array({*stop});
  if (list.size() > kMaxStops) return body.Fail("stop", "may have at most " + std::to_string(kMaxStops) + " strings");
  for (const Json& text : list) {
    if (!text.is_string()) return body.Fail("stop", "must be a string or an array of strings");
    if (text != "") stops->push_back(text.get<std::string>());
  }
}

void ReadBias(FieldReader& body, SamplingParams* sampling) {
  const Json* bias = body.Object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMaxBiases) return body.Fail("logit_bias", "has too many tokens");
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      return body.Fail("logit_bias", "must map token ids to numbers");
    }
    if (!value.is_number() || value.get<double>() < -100 || value.get<double>() > 100) {
      return body.Fail("logit_bias", "has values from -100 to 100");
    }
    sampling->logit_bias.emplace_back(id, value.get<float>());
  }
}

/// False when `name` is no effort.
bool SetEffort(const std::string& name, TurnRequest* turn) {
  turn->no_reasoning = false;
  if (name == "none" || name == "off") {
    turn->no_reasoning = true;
  } else if (name == "minimal") {
    turn->effort = ReasoningEffort::kLow;
  } else if (name == "xhigh" || name == "max") {
    turn->effort = ReasoningEffort::kHigh;
  } else if (const auto known = ReasoningEffortFromName(name)) {
    turn->effort = *known;
  } else {
    return false;
  }
  return true;
}

/// A string names an effort; false is "none", true leaves the default.
bool ReadEffort(FieldReader& fields, std::string_view key, TurnRequest* turn) {
  const Json* value = fields.Find(key);
  if (value == nullptr) return false;
  if (value->is_boolean()) {
    turn->no_reasoning = !value->get<bool>();
    return true;
  }
  if (!value->is_string() || !SetEffort(value->get<std::string>(), turn)) {
    fields.Fail(key, "must be 'none', 'minimal', 'low', 'medium', 'high' or 'xhigh'");
  }
  return true;
}

}  // namespace

Status ReadSamplingFields(FieldReader& body, TurnRequest* turn) {
  SamplingParams& sampling = turn->sampling;
  sampling.temperature = body.Number("temperature", 0, 2).value_or(1.0);
  sampling.top_p = body.Number("top_p", 0, 1).value_or(1.0);
  if (sampling.top_p == 0) sampling.top_p = 1, sampling.top_k = 1;  // nothing but the likeliest
  if (const auto k = body.Int("top_k", -1, INT_MAX)) sampling.top_k = std::max(0, static_cast<int>(*k));
  sampling.min_p = body.Number("min_p", 0, 1).value_or(0.0);
  sampling.repetition_penalty = body.Number("repetition_penalty", 0.01, 10).value_or(1.0);
  sampling.frequency_penalty = body.Number("frequency_penalty", -2, 2).value_or(0.0);
  sampling.presence_penalty = body.Number("presence_penalty", -2, 2).value_or(0.0);
  ReadBias(body, &sampling);
  const auto seed = body.Int("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : NewSeed();
  ReadStops(body, &turn->stops);
  for (const char* key : {"max_tokens", "max_completion_tokens"}) {
    const auto most = body.Int(key, -1, kMostTokens);
    if (!most) continue;
    if (*most == 0) body.Fail(key, "must be at least 1");
    turn->max_tokens.reset();
    if (*most > 0) turn->max_tokens = static_cast<int>(std::min<int64_t>(*most, INT_MAX));
  }
  return body.status();
}

Status ReadReasoningFields(FieldReader& body, ReasoningEffort otherwise, TurnRequest* turn) {
  turn->effort = otherwise;
  bool named = ReadEffort(body, "reasoning_effort", turn);
  const auto budget = [&](FieldReader& fields, const char* key) {
    const auto tokens = fields.Int(key, -1, kMostTokens);
    if (tokens && *tokens >= 0) turn->reasoning_budget = static_cast<int>(std::min<int64_t>(*tokens, INT_MAX));
  };
  budget(body, "thinking_token_budget");
  budget(body, "reasoning_budget");
  if (const Json* reasoning = body.Object("reasoning")) {
    FieldReader fields(*reasoning, "reasoning");
    named = named || ReadEffort(fields, "effort", turn) || ReadEffort(fields, "enabled", turn);
    budget(fields, "max_tokens");
    GPTOSS_RETURN_IF_ERROR(fields.status());
  }
  if (const Json* kwargs = body.Object("chat_template_kwargs")) {
    FieldReader fields(*kwargs, "chat_template_kwargs");
    named = named || ReadEffort(fields, "reasoning_effort", turn) || ReadEffort(fields, "enable_thinking", turn);
    GPTOSS_RETURN_IF_ERROR(fields.status());
  }
  if (!named) ReadEffort(body, "think", turn);
  return body.status();
}

std::string EffortName(const TurnRequest& turn) {
  return turn.no_reasoning ? "none" : std::string(ReasoningEffortName(turn.effort));
}

Json UsageJson(const EngineUsage& usage, int reasoning_tokens) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.output_tokens},
          {"total_tokens", usage.prompt_tokens + usage.output_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", reasoning_tokens}}}};
}

void AddUsage(const EngineUsage& usage, EngineUsage* sum) {
  sum->prompt_tokens = usage.prompt_tokens;  // one prompt, however many choices
  sum->cached_tokens = std::max(sum->cached_tokens, usage.cached_tokens);
  sum->output_tokens += usage.output_tokens;
}

}  // namespace gptoss::server

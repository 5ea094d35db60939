// Fields that /v1/chat/completions and /v1/completions share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/api/fields.h"
#include "server/turn.h"

namespace gptoss::server {

inline constexpr int kMaxChoices = 128;

/// temperature, top_p, top_k, min_p, penalties, logit_bias, seed (random when absent), stop, max_tokens and
/// max_completion_tokens (the latter wins; less than 0 is no limit). On
/// failure: kInvalidArgument, "path: what is wrong".
Status ReadSamplingFields(FieldReader& body, TurnRequest* turn);

/// reasoning_effort, reasoning.effort, reasoning.enabled, chat_template_kwargs.{reasoning_effort,enable_thinking} and
/// think, in that order; reasoning_budget, reasoning.max_tokens and thinking_token_budget. On failure: as above.
Status ReadReasoningFields(FieldReader& body, ReasoningEffort otherwise, TurnRequest* turn);

/// "none" or the effort's name: what the answer echoes.
std::string EffortName(const TurnRequest& turn);

/// {"prompt_tokens", "completion_tokens", "total_tokens", and both details}.
Json UsageJson(const EngineUsage& usage, int reasoning_tokens);
void AddUsage(const EngineUsage& usage, EngineUsage* sum);

}  // namespace gptoss::server

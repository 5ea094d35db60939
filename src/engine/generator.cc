#include "engine/generator.h"

#include <algorithm>
#include <chrono>

namespace gptoss {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::string_view StopReasonName(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken:
      return "stop_token";
    case StopReason::kMaxTokens:
      return "max_tokens";
    case StopReason::kContextFull:
      return "context_full";
    case StopReason::kCallback:
      return "cancelled";
  }
  return "?";
}

Result<GenerateResult> Generate(ModelRunner& runner, Sequence& sequence, const GenerateRequest& request,
                                const TokenCallback& callback) {
  GPTOSS_RETURN_IF_ERROR(ValidateSampling(request.sampling, runner.model().config().vocab_size));
  GenerateResult result;
  const auto prompt_end = static_cast<int>(sequence.tokens().size());
  if (sequence.computed() >= prompt_end) return InvalidArgument("the prompt is empty");
  Sampler sampler(request.sampling);
  sampler.SetPrompt(sequence.tokens());
  result.timings.prompt_tokens = prompt_end - sequence.computed();

  const auto prefill_start = Clock::now();
  std::vector<float> logits(runner.model().config().vocab_size);
  const Status prefilled = runner.Compute(
      sequence, prompt_end - 1,
      [&](int, std::span<float> row) {
        std::copy(row.begin(), row.end(), logits.begin());
        return Status();
      },
      nullptr, [&] { return callback == nullptr || callback(nullptr); });
  result.timings.prefill_s = SecondsSince(prefill_start);
  if (prefilled.code() == StatusCode::kCancelled) {
    result.reason = StopReason::kCallback;
    return result;
  }
  GPTOSS_RETURN_IF_ERROR(prefilled);

  const auto decode_start = Clock::now();
  Sequence* const sequences[] = {&sequence};
  for (;;) {
    if (result.timings.output_tokens >= request.max_tokens) break;
    const SampledToken token = sampler.Sample(logits, static_cast<uint64_t>(result.timings.output_tokens));
    if (!token.finite) {
      return CorruptData("the model gave no finite logit after " + std::to_string(sequence.tokens().size()) +
                         " tokens: its weights are damaged (gptoss verify, or fetch them again)");
    }
    sampler.Accept(token.id);
    sequence.Append(token.id);
    result.tokens.push_back(token.id);
    ++result.timings.output_tokens;
    result.timings.decode_s = SecondsSince(decode_start);
    const bool go_on = callback == nullptr || callback(&token);
    if (std::ranges::find(request.stop_tokens, token.id) != request.stop_tokens.end()) {
      result.reason = StopReason::kStopToken;
      break;
    }
    if (!go_on) {
      result.reason = StopReason::kCallback;
      break;
    }
    if (result.timings.output_tokens >= request.max_tokens) break;
    if (static_cast<int>(sequence.tokens().size()) > runner.options().max_context) {
      result.reason = StopReason::kContextFull;
      break;
    }
    GPTOSS_RETURN_IF_ERROR(runner.Step(sequences, logits));
  }
  return result;
}

}  // namespace gptoss

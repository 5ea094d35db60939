#include "eval_runner.h"

#include <algorithm>
#include <utility>

#include "base/rng.h"
#include "chat_answer.h"
#include "engine/generator.h"

namespace gptoss::cli {
namespace {

/// The answer is only judged when it is whole.
class NoListener : public AnswerListener {
 public:
  void OnPart(AnswerPart, std::string_view) override {}
  void OnText(std::string_view) override {}
};

Message ResultOf(const ExpectedCall& call, const Message& made) {
  Message message = TextMessage(Role::kTool, call.result);
  message.author.name = call.recipient;
  message.recipient = "assistant";
  message.channel = made.channel;
  return message;
}

}  // namespace

void EvalScore::Add(const EvalItem& item, const EvalVerdict& verdict) {
  ++items;
  right += verdict.right ? 1 : 0;
  calls += verdict.calls;
  valid_calls += verdict.valid_calls;
  tokens += verdict.tokens;
  hard = hard || item.hard;
}

Result<std::unique_ptr<EvalRunner>> EvalRunner::Create(ModelSession& model, std::shared_ptr<const Tokenizer> tokenizer,
                                                       EvalOptions options) {
  GPTOSS_ASSIGN_OR_RETURN(Renderer renderer, Renderer::Create(tokenizer));
  return std::unique_ptr<EvalRunner>(
      new EvalRunner(model, std::move(renderer), std::move(tokenizer), std::move(options)));
}

Result<EvalVerdict> EvalRunner::Ask(const EvalItem& item, ReasoningEffort effort, uint64_t number) {
  EvalVerdict verdict;
  Conversation conversation = PromptOf(item, effort, options_.date);
  // One message of the model more than there are calls: the answer.
  for (size_t made = 0; made <= item.calls.size(); ++made) {
    const uint64_t seed = Mix64(options_.sampling.seed + (number * 16 + made) * kGoldenGamma);
    GPTOSS_ASSIGN_OR_RETURN(std::vector<Message> messages, Continue(conversation, seed, &verdict));
    if (messages.empty()) return verdict;
    conversation.messages.insert(conversation.messages.end(), messages.begin(), messages.end());
    const Message& last = messages.back();
    verdict.said = (last.recipient ? "to " + *last.recipient + ": " : "") + TextOf(last);
    if (!last.recipient) {
      verdict.right = made == item.calls.size() && last.channel == "final" && IsRight(item, TextOf(last));
      return verdict;
    }
    ++verdict.calls;
    verdict.valid_calls += IsValidCall(item, last) ? 1 : 0;
    if (made == item.calls.size() || !IsRight(item.calls[made], last)) return verdict;
    conversation.messages.push_back(ResultOf(item.calls[made], last));
  }
  return verdict;
}

Result<std::vector<Message>> EvalRunner::Continue(const Conversation& conversation, uint64_t seed,
                                                  EvalVerdict* verdict) {
  RenderOptions render;
  render.next_role = Role::kAssistant;
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, renderer_.RenderConversation(conversation, render));
  if (sequence_ == nullptr) sequence_ = model_.runner->NewSequence();
  const std::vector<TokenId>& held = sequence_->tokens();
  const auto shared = static_cast<size_t>(std::ranges::mismatch(held, prompt).in1 - held.begin());
  const size_t kept = std::min(shared, prompt.size() - 1);  // the last token is computed again, for its logits
  model_.runner->Truncate(*sequence_, static_cast<int>(kept));
  sequence_->Append(std::span(prompt).subspan(kept));

  NoListener listener;
  GPTOSS_ASSIGN_OR_RETURN(StopSequences stops, StopSequences::Make({}));
  GPTOSS_ASSIGN_OR_RETURN(AnswerReader reader, AnswerReader::Create(tokenizer_, std::move(stops), &listener));
  GenerateRequest request;
  request.sampling = options_.sampling;
  request.sampling.seed = seed;
  request.max_tokens = options_.max_tokens;
  const FormatTokenIds& format = renderer_.format();
  request.stop_tokens = {format.return_, format.call};
  if (format.end_of_text >= 0) request.stop_tokens.push_back(format.end_of_text);
  const auto on_token = [&](const SampledToken* token) { return token == nullptr || reader.Add(token->id); };
  const auto result = Generate(*model_.runner, *sequence_, request, on_token);
  if (!result.ok()) {
    sequence_.reset();  // a failed step may have left it half done
    return result.status();
  }
  verdict->tokens += static_cast<int>(result->tokens.size());
  reader.Finish(/*keep_header=*/false);
  return reader.TakeMessages();
}

}  // namespace gptoss::cli

#include "chat_session.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/rng.h"
#include "tool_flags.h"

namespace gptoss::cli {

std::string DescribeTurn(const ChatTurn& turn) {
  const GenerateTimings& t = turn.timings;
  const auto rate = [](int n, double s) { return n > 0 && s > 0 ? fmt::format("{:.1f} tokens/s", n / s) : "-"; };
  // The first token comes out of the prompt's last pass; the time that is measured is that of those after it.
  std::string text =
      fmt::format("prompt: {} tokens, {} of them new, {:.2f} s ({}); answer: {} tokens, {:.2f} s ({})",
                  turn.conversation_tokens, t.prompt_tokens, t.prefill_s, rate(t.prompt_tokens, t.prefill_s),
                  t.output_tokens, t.decode_s, rate(t.output_tokens - 1, t.decode_s));
  if (t.proposed_tokens > 0)
    text += fmt::format("; {} of {} proposed tokens held", t.accepted_tokens, t.proposed_tokens);
  return text;
}

Result<std::unique_ptr<ChatSession>> ChatSession::Create(ModelSession& model,
                                                         std::shared_ptr<const Tokenizer> tokenizer, ChatSetup setup,
                                                         ChatOptions options) {
  GPTOSS_ASSIGN_OR_RETURN(StopSequences stops, StopSequences::Make(options.stops));
  GPTOSS_ASSIGN_OR_RETURN(Renderer renderer, Renderer::Create(tokenizer));
  return std::unique_ptr<ChatSession>(new ChatSession(model, std::move(renderer), std::move(stops),
                                                      std::move(tokenizer), std::move(setup), std::move(options)));
}

ChatSession::ChatSession(ModelSession& model, Renderer renderer, StopSequences stops,
                         std::shared_ptr<const Tokenizer> tokenizer, ChatSetup setup, ChatOptions options)
    : model_(model),
      renderer_(std::move(renderer)),
      stops_(std::move(stops)),
      tokenizer_(std::move(tokenizer)),
      history_(std::move(setup)),
      options_(std::move(options)) {}

Result<ChatTurn> ChatSession::Ask(const std::string& question, AnswerListener* listener,
                                  const std::function<bool(int tokens)>& on_token) {
  const size_t before = history_.conversation().messages.size();
  history_.Add(TextMessage(Role::kUser, question));
  auto turn = Answer(listener, on_token);
  if (!turn.ok()) {
    history_.Truncate(before);
    sequence_.reset();  // a failed step may have left it half done
  }
  return turn;
}

Result<ChatTurn> ChatSession::Answer(AnswerListener* listener, const std::function<bool(int tokens)>& on_token) {
  RenderOptions render;
  render.next_role = Role::kAssistant;
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt,
                          renderer_.RenderConversation(history_.conversation(), render));
  const int context = model_.runner->options().max_context;
  if (static_cast<int>(prompt.size()) >= context) {
    return ResourceExhausted(
        fmt::format("the conversation takes {} tokens, and the context holds {}: begin a new "
                    "conversation, or start with a larger --context",
                    prompt.size(), context));
  }
  Rewind(prompt);
  GPTOSS_ASSIGN_OR_RETURN(AnswerReader reader, AnswerReader::Create(tokenizer_, stops_, listener));

  GenerateRequest request;
  request.sampling = options_.sampling;
  // Every turn draws other numbers; the first draws those of the seed itself.
  if (turns_ > 0) request.sampling.seed = Mix64(request.sampling.seed + turns_ * kGoldenGamma);
  ++turns_;
  request.max_tokens = options_.max_tokens;
  request.speculation = options_.speculation;
  GenerateProfile profile;
  if (options_.profile) request.profile = &profile;
  const FormatTokenIds& format = renderer_.format();
  request.stop_tokens = {format.return_, format.call};
  if (format.end_of_text >= 0) request.stop_tokens.push_back(format.end_of_text);

  GPTOSS_ASSIGN_OR_RETURN(const std::unique_ptr<TokenConstraint> constraint, ConstraintOf(prompt.size()));
  request.constraint = constraint.get();
  request.detect_repetition = options_.detect_repetition;

  ChatTurn turn;
  turn.conversation_tokens = static_cast<int>(prompt.size());
  int tokens = 0;
  bool over = false;
  const auto on_sampled = [&](const SampledToken* token) {
    if (token != nullptr) {
      ++tokens;
      over = !reader.Add(token->id);
    }
    turn.interrupted = !on_token(tokens);
    return !over && !turn.interrupted;
  };
  GPTOSS_ASSIGN_OR_RETURN(const GenerateResult result, Generate(*model_.runner, *sequence_, request, on_sampled));
  turn.reason = over && result.reason == StopReason::kCallback ? StopReason::kStopToken : result.reason;
  turn.interrupted = turn.interrupted && turn.reason == StopReason::kCallback;
  turn.timings = result.timings;
  if (options_.profile) {
    const DType kv_dtype = model_.runner->options().kv_dtype;
    turn.profile = {ReportStages(profile.prefill, model_.weights, kv_dtype, result.timings.prefill_s),
                    ReportStages(profile.decode, model_.weights, kv_dtype, result.timings.decode_s)};
  }
  reader.Finish(/*keep_header=*/!turn.interrupted);
  turn.answered = reader.answered();
  turn.cut_short = turn.reason == StopReason::kMaxTokens && constraint != nullptr && constraint->Ended();
  if (turn.reason == StopReason::kStopToken || turn.cut_short) turn.call = reader.call();
  for (Message& message : reader.TakeMessages()) history_.Add(std::move(message));
  return turn;
}

Result<std::unique_ptr<TokenConstraint>> ChatSession::ConstraintOf(size_t prompt_tokens) const {
  const int vocab = model_.runner->model().config().vocab_size;
  const FormatTokenIds& format = renderer_.format();
  if (std::max({format.call, format.return_, format.channel, format.message}) >= vocab) {
    if (options_.turn.tools.empty() && options_.turn.final_answer == nullptr) return std::unique_ptr<TokenConstraint>();
    return Unsupported(
        fmt::format("the model's vocabulary of {} tokens lacks the markers of the chat format, which "
                    "tools and grammars need",
                    vocab));
  }
  const auto room = static_cast<size_t>(model_.runner->options().max_context) - prompt_tokens;
  const size_t max_tokens = std::min(static_cast<size_t>(options_.max_tokens), room);
  GPTOSS_ASSIGN_OR_RETURN(auto grammar, TurnGrammar::Create(options_.tokens, WithLimit(options_.turn, max_tokens)));
  return std::unique_ptr<TokenConstraint>(new TurnConstraint(options_.tokens, std::move(grammar)));
}

void ChatSession::SetEffort(const std::string& name) {
  options_.turn.allow_analysis = name != "none";
  history_.SetEffort(ReasoningEffortFromName(name).value_or(ReasoningEffort::kLow));
}

std::string ChatSession::EffortName() const {
  return options_.turn.allow_analysis ? std::string(ReasoningEffortName(history_.effort())) : "none";
}

void ChatSession::Rewind(const std::vector<TokenId>& prompt) {
  if (sequence_ == nullptr) sequence_ = model_.runner->NewSequence();
  const std::vector<TokenId>& held = sequence_->tokens();
  const auto shared = static_cast<size_t>(std::ranges::mismatch(held, prompt).in1 - held.begin());
  // The last token is computed again even if it is there, for its logits.
  const size_t kept = std::min(shared, prompt.size() - 1);
  model_.runner->Truncate(*sequence_, static_cast<int>(kept));
  sequence_->Append(std::span(prompt).subspan(kept));
}

}  // namespace gptoss::cli

#include "training/dataset.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "base/mmap_file.h"
#include "base/rng.h"
#include "checkpoint/xxh64.h"
#include "harmony/message_json.h"
#include "training/openai_chat.h"

namespace gptoss {
namespace {

/// A JSONL file of training data may be large, but it is held in memory.
constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

bool IsCall(const Message& message) { return message.author.role == Role::kAssistant && message.recipient.has_value(); }

/// Calls and results must alternate as they do when the model runs.
Status CheckCalls(const std::vector<Message>& messages) {
  bool open_call = false, after_call = false;  // a result must follow; results may follow
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const bool is_result = message.author.role == Role::kTool;
    const std::string where = "messages[" + std::to_string(i) + "]";
    if (open_call && !is_result) {
      return InvalidArgument("messages[" + std::to_string(i - 1) +
                             "]: this tool call has no result; a message of role tool must follow it");
    }
    if (is_result && !after_call) return InvalidArgument(where + ": a tool's result without a call before it");
    open_call = IsCall(message);
    after_call = open_call || (is_result && after_call);
  }
  return Status();  // a call may end the conversation: then it is what is learnt
}

float WeightOf(const Message& message, const DatasetOptions& options) {
  if (message.author.role != Role::kAssistant) return 0.0f;
  if (message.channel == "analysis") return options.analysis_weight;
  if (message.channel == "commentary") return options.commentary_weight;
  return options.final_weight;
}

bool IsFinal(const Message& message) { return message.author.role == Role::kAssistant && message.channel == "final"; }

/// The messages that the model saw when it wrote the last turn, and that turn: a final that ends the conversation keeps
/// the analysis that led to it, while that of earlier turns is dropped as it is when the model runs.
std::vector<size_t> TrainedMessages(std::span<const Message> messages) {
  const bool ends_in_final = !messages.empty() && IsFinal(messages.back());
  std::vector<size_t> kept = KeptMessages(messages.first(messages.size() - (ends_in_final ? 1 : 0)), {});
  if (ends_in_final) kept.push_back(messages.size() - 1);
  return kept;
}

/// [messages] true where an assistant's message came of analysis that is no longer there. To learn from it would be to
/// learn to answer without thinking.
std::vector<bool> WithoutTheirReasons(std::span<const Message> messages, std::span<const size_t> kept) {
  std::vector<bool> dropped(messages.size(), true), lost(messages.size(), false);
  for (const size_t i : kept) dropped[i] = false;
  bool in_this_turn = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].author.role == Role::kUser) in_this_turn = false;
    in_this_turn = in_this_turn || dropped[i];
    lost[i] = in_this_turn;
  }
  return lost;
}

Result<Example> ExampleOfLine(const Renderer& renderer, std::string_view line, const DatasetOptions& options) {
  GPTOSS_ASSIGN_OR_RETURN(const Json json, ParseJson(line));
  if (IsOpenAiChat(json)) {
    GPTOSS_ASSIGN_OR_RETURN(const OpenAiConversation chat, ConversationFromOpenAiChat(json));
    return MakeExample(renderer, chat.conversation, options, chat.weights);
  }
  const Json* inner = FindField(json, "conversation");
  GPTOSS_ASSIGN_OR_RETURN(const Conversation conversation, ConversationFromJson(inner != nullptr ? *inner : json));
  return MakeExample(renderer, conversation, options);
}

}  // namespace

Result<Example> MakeExample(const Renderer& renderer, const Conversation& conversation, const DatasetOptions& options,
                            std::span<const float> message_weights) {
  const std::vector<Message>& messages = conversation.messages;
  GPTOSS_RETURN_IF_ERROR(CheckCalls(messages));
  const std::vector<size_t> kept = TrainedMessages(messages);
  const std::vector<bool> lost = WithoutTheirReasons(messages, kept);
  RenderOptions render;
  render.training = true;
  render.auto_drop_analysis = false;  // what is dropped is gone already
  Conversation seen;
  for (const size_t i : kept) seen.messages.push_back(messages[i]);
  Example example;
  GPTOSS_ASSIGN_OR_RETURN(example.tokens, renderer.RenderConversation(seen, render));

  // Message by message once more: only so are their borders known.
  const bool has_tools = HasFunctionTools(messages);
  const size_t opening = 1 + renderer.tokenizer().Encode(RoleName(Role::kAssistant)).size();
  std::vector<TokenId> ids;
  bool goes_on = false;  // the message before was an assistant's, and no call
  for (const size_t i : kept) {
    const size_t first = ids.size();
    GPTOSS_RETURN_IF_ERROR(renderer.RenderMessage(messages[i], render.official, has_tools, &ids));
    const float factor = message_weights.empty() ? 1.0f : message_weights[i];
    example.weights.resize(ids.size(), lost[i] ? 0.0f : factor * WeightOf(messages[i], options));
    const bool by_model = messages[i].author.role == Role::kAssistant;
    if (by_model && !goes_on) std::fill_n(example.weights.begin() + static_cast<int64_t>(first), opening, 0.0f);
    goes_on = by_model && !IsCall(messages[i]);
  }
  GPTOSS_CHECK(ids.size() == example.tokens.size());  // the conversation is its messages, one after the other
  if (std::all_of(example.weights.begin(), example.weights.end(), [](float w) { return w == 0.0f; })) {
    return InvalidArgument("no message of an assistant has a weight: there is nothing to learn from");
  }
  if (example.tokens.size() > static_cast<size_t>(options.max_tokens)) {
    return InvalidArgument("the conversation has " + std::to_string(example.tokens.size()) + " tokens, more than the " +
                           std::to_string(options.max_tokens) +
                           " of one training sequence; shorten it or raise the limit");
  }
  for (const TokenId id : example.tokens) {
    if (id < 0 || id >= options.vocab_size) {
      return InvalidArgument("token " + std::to_string(id) + " is outside the model's vocabulary of " +
                             std::to_string(options.vocab_size) + "; the tokenizer does not belong to the model");
    }
  }
  return example;
}

Dataset ReadDataset(const Renderer& renderer, std::string_view text, const DatasetOptions& options) {
  Dataset dataset;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Result<Example> example = ExampleOfLine(renderer, line, options);
    if (!example.ok()) {
      dataset.bad_lines.push_back({number, example.status().message()});
      continue;
    }
    example->line = number;
    dataset.examples.push_back(*std::move(example));
  }
  return dataset;
}

Result<Dataset> ReadDatasetFile(const Renderer& renderer, const std::string& path, const DatasetOptions& options) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxFileBytes));
  return ReadDataset(renderer, text, options);
}

Dataset SplitOff(Dataset* dataset, double share, uint64_t seed) {
  const auto stays = [&](const Example& example) {
    return RandomStream(seed, Xxh64(std::as_bytes(std::span(example.tokens)))).Uniform(0) >= share;
  };
  std::vector<Example>& all = dataset->examples;
  const auto first = std::stable_partition(all.begin(), all.end(), stays);
  Dataset out;
  out.examples.assign(std::make_move_iterator(first), std::make_move_iterator(all.end()));
  all.erase(first, all.end());
  return out;
}

uint64_t Dataset::Fingerprint() const {
  std::vector<uint64_t> parts;
  for (const Example& example : examples) {
    parts.push_back(Xxh64(std::as_bytes(std::span(example.tokens))));
    parts.push_back(Xxh64(std::as_bytes(std::span(example.weights))));
  }
  return Xxh64(std::as_bytes(std::span(parts)));
}

int64_t Dataset::TotalTokens() const {
  int64_t total = 0;
  for (const Example& example : examples) total += static_cast<int64_t>(example.tokens.size());
  return total;
}

int64_t Dataset::TrainedTokens() const {
  int64_t total = 0;
  for (const Example& example : examples) {
    total += std::count_if(example.weights.begin(), example.weights.end(), [](float w) { return w != 0.0f; });
  }
  return total;
}

}  // namespace gptoss

#include "random_outputs.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/rng.h"
#include "grammar/json_schema.h"
#include "harmony/stream_parser.h"
#include "sampling/sampler.h"

namespace gptoss {
namespace {

constexpr double kTwoPi = 6.283185307179586;

double Normal(const RandomStream& random, uint64_t i) {
  const double u = 1 - random.Uniform(2 * i), v = random.Uniform(2 * i + 1);
  return std::sqrt(-2 * std::log(u)) * std::cos(kTwoPi * v);
}

/// Dice with a memory of how often they were thrown.
class Dice {
 public:
  Dice(uint64_t seed, std::string_view name) : random_(seed, name) {}
  size_t Below(size_t n) { return random_.Word(at_++) % n; }
  bool Coin() { return Below(2) == 0; }

 private:
  RandomStream random_;
  uint64_t at_ = 0;
};

constexpr const char* kNames[] = {"get_weather", "get", "search", "send-email", "f", "get_weather_forecast", "SQL2"};
constexpr const char* kLark = "start: \"select \" NAME (\", \" NAME)~0..3 \" from \" NAME\nNAME: /[a-z]{1,8}/\n";
constexpr const char* kRegex = "[0-9]{4}-[0-9]{2}(-[a-f]{1,9})?";

ToolSpec RandomTool(const char* name, const std::vector<Json>& schemas, Dice& dice) {
  ToolSpec tool;
  tool.name = name;
  constexpr ToolSpec::Input kInputs[] = {ToolSpec::Input::kJson, ToolSpec::Input::kJson,  ToolSpec::Input::kJson,
                                         ToolSpec::Input::kText, ToolSpec::Input::kRegex, ToolSpec::Input::kLark};
  tool.input = kInputs[dice.Below(std::size(kInputs))];
  if (tool.input == ToolSpec::Input::kRegex) tool.definition = kRegex;
  if (tool.input == ToolSpec::Input::kLark) tool.definition = kLark;
  if (tool.input != ToolSpec::Input::kJson) return tool;
  tool.strict = dice.Below(3) > 0;
  if (dice.Below(8) > 0) tool.parameters = schemas[dice.Below(schemas.size())];
  return tool;
}

/// Compiled grammars are shared by the turns that use them, as a server would.
TurnTool CachedTool(const ToolSpec& spec, const std::shared_ptr<const TokenIndex>& tokens) {
  static std::map<std::string, TurnTool> cache;
  const auto [it, added] = cache.try_emplace(InputKey(spec));
  if (added) it->second = *CompileTool(spec, tokens);
  TurnTool tool = it->second;
  tool.recipient = spec.Recipient();
  return tool;
}

std::shared_ptr<Machine> CachedSchema(const Json& schema, const std::shared_ptr<const TokenIndex>& tokens) {
  return CachedTool({.name = "x", .description = "", .parameters = schema, .strict = true, .definition = ""}, tokens)
      .arguments;
}

}  // namespace

RandomLogits::RandomLogits(const Tokenizer& tokenizer, uint64_t seed)
    : size_(static_cast<size_t>(tokenizer.size())), seed_(seed) {
  constexpr size_t kPool = 4;
  constexpr double kSpread = 2.5;
  for (size_t p = 0; p < kPool; ++p) {
    const RandomStream random(seed + p, "logits");
    std::vector<float>& values = pool_.emplace_back(size_);
    for (size_t i = 0; i < size_; ++i) values[i] = static_cast<float>(kSpread * Normal(random, i));
  }
  for (const char* marker : {"<|end|>", "<|return|>", "<|call|>", "<|channel|>"}) {
    markers_.push_back(tokenizer.SpecialId(marker));
  }
  for (const char* text : {"\"", "\",", "\":", "}", "]", "},", "\"}", "],", ",", "\"]", "}]", ":"}) {
    const std::vector<TokenId> ids = tokenizer.Encode(text);
    if (ids.size() == 1) punctuation_.push_back(ids[0]);
  }
}

void RandomLogits::Fill(uint64_t step, bool raise_punctuation, std::span<float> logits) const {
  const RandomStream random(seed_, "steps");
  const std::vector<float>& values = pool_[random.Word(2 * step) % pool_.size()];
  const auto turn = static_cast<ptrdiff_t>(random.Word(2 * step + 1) % size_);
  std::rotate_copy(values.begin(), values.begin() + turn, values.end(), logits.begin());
  // The others weigh exp(15.3) together: about one in twenty each.
  constexpr float kRaise = 12.3f;
  for (const TokenId id : markers_) logits[static_cast<size_t>(id)] = kRaise;
  if (!raise_punctuation) return;
  for (const TokenId id : punctuation_) logits[static_cast<size_t>(id)] += kRaise;
}

TurnCase RandomTurn(const std::vector<Json>& schemas, uint64_t seed, const std::shared_ptr<const TokenIndex>& tokens) {
  Dice dice(seed, "turn");
  TurnCase turn;
  TurnOptions& o = turn.options;
  const size_t tools = dice.Below(4);
  const size_t first = dice.Below(std::size(kNames));
  for (size_t i = 0; i < tools; ++i) {
    turn.tools.push_back(RandomTool(kNames[(first + i) % std::size(kNames)], schemas, dice));
    o.tools.push_back(CachedTool(turn.tools.back(), tokens));
  }
  if (tools > 0) o.choice = static_cast<ToolChoice>(dice.Below(3));
  for (const TurnTool& tool : o.tools) {
    if (dice.Below(4) == 0) o.allowed.push_back(tool.recipient);
  }
  if (dice.Coin()) {
    turn.answer = schemas[dice.Below(schemas.size())];
    o.final_answer = CachedSchema(*turn.answer, tokens);
  }
  o.allow_analysis = dice.Below(4) > 0;
  o.allow_preamble = dice.Coin();
  if (dice.Coin()) o.reasoning_budget = dice.Below(40);
  if (dice.Below(8) > 0) {
    o.max_tokens = 2 + dice.Below(120);
    o.answer_reserve = dice.Below(std::min<size_t>(o.max_tokens, 64));
  }
  return turn;
}

RandomOutput DrawTurn(const std::shared_ptr<const TurnGrammar>& grammar, const RandomLogits& random, uint64_t seed,
                      size_t most, bool raise_punctuation) {
  RandomOutput out;
  TurnMatcher matcher(grammar);
  SamplingParams params;
  params.seed = seed;
  Sampler sampler(params);
  std::vector<float> logits(random.size());
  std::vector<uint64_t> mask((random.size() + 63) / 64);
  const RandomStream dice(seed, "speculation");
  while (!matcher.IsComplete() && out.ids.size() < most) {
    if (const Status status = matcher.FillMask(mask); !status.ok()) {
      out.error = status.message();
      return out;
    }
    if (std::ranges::none_of(mask, [](uint64_t word) { return word != 0; })) {
      out.error = "a dead end";
      return out;
    }
    const size_t position = out.ids.size();
    random.Fill(Mix64(seed) + position, raise_punctuation, logits);
    const TokenId token = sampler.Sample(logits, position, mask).id;
    const Result<TokenId> forced = matcher.ForcedToken();
    Result<bool> accepted = matcher.Accept(token);
    if (accepted.ok() && *accepted && dice.Word(position) % 4 == 0) {
      matcher.Rollback(1);
      accepted = matcher.Accept(token);
    }
    if (!accepted.ok() || !*accepted) out.error = "the mask allows a token that cannot follow";
    if (forced.ok() && *forced >= 0 && *forced != token) out.error = "the forced token is not the only one";
    out.ids.push_back(token);
    if (!out.error.empty()) return out;
  }
  out.finished = matcher.IsComplete();
  return out;
}

namespace {

std::string CheckCall(const TurnCase& turn, const ParsedMessage& call, std::vector<Document>* documents) {
  const auto tool = std::ranges::find(turn.tools, *call.recipient, &ToolSpec::Recipient);
  if (tool == turn.tools.end()) return "a call to " + *call.recipient + ", which is not declared";
  const TurnOptions& o = turn.options;
  if (o.choice == ToolChoice::kNone) return "a call although none was allowed";
  if (!o.allowed.empty() && std::ranges::find(o.allowed, *call.recipient) == o.allowed.end()) {
    return "a call to " + *call.recipient + ", which is not allowed";
  }
  if (call.channel != "commentary") return "a call on another channel than commentary";
  if (call.end != EndReason::kCall) return "a call that does not end in <|call|>";
  if (tool->input == ToolSpec::Input::kText) return "";
  if (tool->input != ToolSpec::Input::kJson) {
    const TurnTool compiled = *CompileTool(*tool, nullptr);
    const auto end = compiled.arguments->Step(compiled.arguments->start(), call.text);
    return end.ok() && compiled.arguments->Accepts(*end) ? "" : "input that its grammar does not have: " + call.text;
  }
  if (call.content_type != "<|constrain|>json") return "arguments that are not marked as JSON";
  const Result<Json> json = ParseJson(call.text);
  if (!json.ok() || !json->is_object()) return "arguments that are no JSON object: " + call.text;
  if (!tool->parameters && !json->empty()) return "arguments of a function that takes none: " + call.text;
  if (tool->strict && tool->parameters) documents->push_back({*tool->parameters, call.text});
  return "";
}

}  // namespace

namespace {

/// Whether the limit leaves room for any answer or call that the turn may end in.
bool HasRoom(const TurnOptions& o) {
  if (o.max_tokens == 0 || o.answer_reserve == 0) return false;
  constexpr size_t kHeaders = 48;
  size_t need = 1;
  const auto consider = [&](const std::shared_ptr<Machine>& machine) {
    if (machine != nullptr) need = std::max<size_t>(need, machine->Need(machine->start()));
  };
  consider(o.final_answer);
  for (const TurnTool& tool : o.tools) consider(tool.arguments);
  return o.max_tokens > kHeaders + need;
}

/// What was cut off must not have been content with a grammar, unless there was no room for it.
std::string CheckCut(const TurnCase& turn, const ParsedMessage* last, bool in_content) {
  const TurnOptions& o = turn.options;
  if (!HasRoom(o)) return "";
  if (last == nullptr || !in_content) return "cut in a header although there was room";
  if (last->channel == "final") return turn.answer ? "a cut answer: " + last->text : "";
  if (!last->recipient) return "cut in the reasoning although there was room";
  const auto tool = std::ranges::find(turn.tools, *last->recipient, &ToolSpec::Recipient);
  return tool != turn.tools.end() && tool->input == ToolSpec::Input::kText ? "" : "a cut call: " + last->text;
}

}  // namespace

std::string WhatIsWrong(const TurnCase& turn, const RandomOutput& output, std::shared_ptr<const Tokenizer> tokenizer,
                        std::vector<Document>* documents) {
  if (!output.error.empty()) return output.error;
  const TurnOptions& o = turn.options;
  if (o.max_tokens > 0 && output.ids.size() > o.max_tokens) return "more tokens than max_tokens";
  ParserOptions strict;
  strict.role = Role::kAssistant;
  strict.strict = true;
  Result<StreamParser> parser = StreamParser::Create(tokenizer, strict);
  for (const TokenId id : output.ids) {
    if (const Status status = parser->Add(id); !status.ok()) return status.message();
  }
  if (!output.finished) {
    return CheckCut(turn, parser->messages().empty() ? nullptr : &parser->messages().back(), parser->in_content());
  }
  if (const Status status = parser->Finish(); !status.ok()) return status.message();
  const std::vector<ParsedMessage>& messages = parser->messages();
  size_t preambles = 0;
  for (size_t i = 0; i + 1 < messages.size(); ++i) {
    const ParsedMessage& m = messages[i];
    if (m.recipient || m.end != EndReason::kEnd) return "a call or an answer before the end of the turn";
    if (m.channel != "analysis" && m.channel != "commentary") return "an unknown channel";
    if (m.channel == "analysis" && !o.allow_analysis) return "analysis although it was closed";
    preambles += m.channel == "commentary" ? 1 : 0;
  }
  if (preambles > (o.allow_preamble ? 1 : 0)) return "too many preambles";
  const ParsedMessage& last = messages.back();
  if (last.recipient) return CheckCall(turn, last, documents);
  if (o.choice == ToolChoice::kRequired) return "no call although one was required";
  if (last.channel != "final" || last.end != EndReason::kReturn) return "an end without a final answer";
  if (!turn.answer) return "";
  const Result<Json> json = ParseJson(last.text);
  if (!json.ok()) return "an answer that is no JSON: " + last.text;
  documents->push_back({*turn.answer, last.text});
  return "";
}

}  // namespace gptoss

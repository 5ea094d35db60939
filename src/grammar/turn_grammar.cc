#include "grammar/turn_grammar.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

namespace gptoss {
namespace {

bool IsToolName(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-' ||
           c == '.';
  });
}

bool Names(const std::vector<std::string>& list, const std::string& name) {
  return std::ranges::find(list, name) != list.end();
}

}  // namespace

Result<TurnTokens> TurnTokens::Of(const Tokenizer& tokenizer) {
  TurnTokens out;
  const std::array<std::pair<const char*, TokenId*>, 7> markers = {{{"<|start|>", &out.start},
                                                                    {"<|end|>", &out.end},
                                                                    {"<|message|>", &out.message},
                                                                    {"<|channel|>", &out.channel},
                                                                    {"<|constrain|>", &out.constrain},
                                                                    {"<|return|>", &out.return_},
                                                                    {"<|call|>", &out.call}}};
  for (const auto& [spelling, id] : markers) {
    *id = tokenizer.SpecialId(spelling);
    if (*id < 0) return Unsupported(std::string("the vocabulary has no token ") + spelling);
  }
  return out;
}

Status TurnGrammar::CheckOptions() const {
  const TurnOptions& o = options_;
  std::set<std::string> names;
  for (const TurnTool& tool : o.tools) {
    if (!IsToolName(tool.recipient)) {
      return InvalidArgument("tool '" + tool.recipient + "': a name has letters, digits, '_', '-' and '.' only");
    }
    if (!names.insert(tool.recipient).second) return InvalidArgument("tool '" + tool.recipient + "' is declared twice");
  }
  for (const std::string& name : o.allowed) {
    if (!names.contains(name)) return InvalidArgument("tool_choice names '" + name + "', which is not declared");
  }
  if (o.choice == ToolChoice::kRequired && o.tools.empty()) {
    return InvalidArgument("tool_choice requires a call, but no tool is declared");
  }
  if (o.max_tokens > 0 && o.answer_reserve >= o.max_tokens) {
    return InvalidArgument("the reserve for the answer must be smaller than the number of tokens of the turn");
  }
  return {};
}

void TurnGrammar::AddHeader(const Header& header, const std::vector<TokenId>& tokens) {
  const auto id = static_cast<uint32_t>(headers_.size());
  headers_.push_back(header);
  longest_header_ = std::max(longest_header_, tokens.size());
  uint32_t at = 0;
  places_[at].headers.push_back(id);
  for (const TokenId token : tokens) {
    const auto& next = places_[at].next;
    const auto known = std::ranges::find(next, token, &std::pair<TokenId, uint32_t>::first);
    if (known != next.end()) {
      at = known->second;
    } else {
      const auto added = static_cast<uint32_t>(places_.size());
      places_[at].next.emplace_back(token, added);
      places_.emplace_back();
      at = added;
    }
    places_[at].headers.push_back(id);
  }
}

void TurnGrammar::AddCallHeaders(size_t index) {
  const TurnTool& tool = options_.tools[index];
  const Tokenizer& tokenizer = tokens_->tokenizer();
  const std::vector<TokenId> to = tokenizer.Encode(" to=" + tool.recipient);
  std::vector<TokenId> channel = {markers_.channel}, type;
  tokenizer.Encode(tool.in_analysis ? "analysis" : "commentary", &channel);
  if (tool.json) {
    tokenizer.Encode(" ", &type);
    type.push_back(markers_.constrain);
    tokenizer.Encode("json", &type);
  } else {
    tokenizer.Encode(" code", &type);
  }
  type.push_back(markers_.message);
  for (const bool to_first : {true, false}) {
    std::vector<TokenId> tokens = to_first ? to : channel;
    const std::vector<TokenId>& second = to_first ? channel : to;
    tokens.insert(tokens.end(), second.begin(), second.end());
    tokens.insert(tokens.end(), type.begin(), type.end());
    AddHeader({static_cast<int>(index), Kind::kCall}, tokens);
  }
}

size_t TurnGrammar::LongestAnswer() const {
  size_t content = 1;
  const auto consider = [&](const std::shared_ptr<Machine>& machine) {
    // Every byte is a token, so that bytes bound tokens.
    if (machine != nullptr) content = std::max<size_t>(content, machine->Need(machine->start()));
  };
  for (const Header& header : headers_) {
    if (header.kind == Kind::kFinal) consider(options_.final_answer);
    if (header.kind == Kind::kCall) consider(options_.tools[static_cast<size_t>(header.tool)].arguments);
  }
  return 1 + between_.size() + longest_header_ + content + 1;
}

Result<std::shared_ptr<const TurnGrammar>> TurnGrammar::Create(std::shared_ptr<const TokenIndex> tokens,
                                                               TurnOptions options) {
  std::shared_ptr<TurnGrammar> out(new TurnGrammar());
  GPTOSS_ASSIGN_OR_RETURN(out->markers_, TurnTokens::Of(tokens->tokenizer()));
  out->tokens_ = std::move(tokens);
  out->options_ = std::move(options);
  GPTOSS_RETURN_IF_ERROR(out->CheckOptions());
  const TurnOptions& o = out->options_;
  const Tokenizer& tokenizer = out->tokens_->tokenizer();
  out->between_ = {out->markers_.start};
  tokenizer.Encode("assistant", &out->between_);
  out->places_.resize(1);
  const auto plain = [&](const char* channel, Kind kind) {
    std::vector<TokenId> ids = {out->markers_.channel};
    tokenizer.Encode(channel, &ids);
    ids.push_back(out->markers_.message);
    out->AddHeader({-1, kind}, ids);
  };
  if (o.allow_analysis) plain("analysis", Kind::kAnalysis);
  if (o.allow_preamble) plain("commentary", Kind::kPreamble);
  if (o.choice != ToolChoice::kRequired) plain("final", Kind::kFinal);
  for (size_t i = 0; i < o.tools.size() && o.choice != ToolChoice::kNone; ++i) {
    if (o.allowed.empty() || Names(o.allowed, o.tools[i].recipient)) out->AddCallHeaders(i);
  }
  if (o.answer_reserve > 0) out->reserve_ = std::max(o.answer_reserve, out->LongestAnswer());
  return std::shared_ptr<const TurnGrammar>(std::move(out));
}

TurnMatcher::TurnMatcher(std::shared_ptr<const TurnGrammar> grammar) : grammar_(std::move(grammar)), states_(1) {
  states_[0].closing = ReasoningOver(states_[0]);
}

bool TurnMatcher::ReasoningOver(const State& state) const {
  const TurnOptions& o = grammar_->options_;
  if (o.reasoning_budget && state.reasoning >= *o.reasoning_budget) return true;
  return o.max_tokens > 0 && grammar_->reserve_ > 0 && state.tokens + grammar_->reserve_ >= o.max_tokens;
}

bool TurnMatcher::HeaderAllowed(const State& state, const TurnGrammar::Header& header) const {
  switch (header.kind) {
    case TurnGrammar::Kind::kAnalysis:
      return !state.closing;
    case TurnGrammar::Kind::kPreamble:
      return !state.preamble && !state.closing;
    case TurnGrammar::Kind::kFinal:
      return true;
    // Past the budget the way out is the final answer, unless a call is what the turn must end in.
    case TurnGrammar::Kind::kCall:
      return !state.closing || grammar_->options_.choice == ToolChoice::kRequired;
  }
  return false;
}

bool TurnMatcher::PlaceAllowed(const State& state, uint32_t place) const {
  return std::ranges::any_of(grammar_->places_[place].headers,
                             [&](uint32_t h) { return HeaderAllowed(state, grammar_->headers_[h]); });
}

TokenId TurnMatcher::EndOf(Part part) const {
  if (part == Part::kArguments) return grammar_->markers_.call;
  return part == Part::kFinal ? grammar_->markers_.return_ : grammar_->markers_.end;
}

Machine* TurnMatcher::ContentOf(const State& state) const {
  const TurnOptions& o = grammar_->options_;
  if (state.part == Part::kFinal) return o.final_answer.get();
  return state.part == Part::kArguments ? o.tools[static_cast<size_t>(state.tool)].arguments.get() : nullptr;
}

/// Bytes that the content may need after its next token so that it can still end in time, -1: there is time for its
/// end only; kUnbounded where the limit is far away, or too near for any end.
int64_t TurnMatcher::MostNeed(const State& state) const {
  const TurnOptions& o = grammar_->options_;
  if (o.max_tokens == 0 || !o.close_at_limit) return kUnbounded;
  Machine* content = ContentOf(state);
  const int64_t need = content->Need(state.content);
  const auto left = static_cast<int64_t>(o.max_tokens) - static_cast<int64_t>(state.tokens);  // its end among them
  if (left < need + 1 || left >= need + 2 + content->NeedStep()) return kUnbounded;
  return left - 2;
}

bool TurnMatcher::NextInHeader(const State& state, TokenId token, State* out) const {
  const auto& next = grammar_->places_[state.place].next;
  const auto found = std::ranges::find(next, token, &std::pair<TokenId, uint32_t>::first);
  if (found == next.end() || !PlaceAllowed(state, found->second)) return false;
  out->place = found->second;
  const TurnGrammar::Place& place = grammar_->places_[found->second];
  if (!place.next.empty()) return true;
  const TurnGrammar::Header& header = grammar_->headers_[place.headers[0]];
  constexpr std::array<Part, 4> kParts = {Part::kAnalysis, Part::kPreamble, Part::kFinal, Part::kArguments};
  out->part = kParts[static_cast<size_t>(header.kind)];
  out->tool = header.tool;
  out->preamble = out->preamble || out->part == Part::kPreamble;
  out->place = 0;
  if (const Machine* content = ContentOf(*out)) out->content = content->start();
  return true;
}

Result<bool> TurnMatcher::NextInContent(const State& state, TokenId token, State* out) const {
  const Tokenizer& tokenizer = grammar_->tokens_->tokenizer();
  Machine* content = ContentOf(state);
  const bool thinking = IsThinking(state);
  out->reasoning += thinking ? 1 : 0;  // ends too, so that empty messages cannot go on for ever
  if (token == EndOf(state.part)) {
    if (content != nullptr && !content->Accepts(state.content)) return false;
    out->part = thinking ? Part::kBetween : Part::kDone;
    out->place = 0;
    return true;
  }
  if (token < 0 || tokenizer.IsSpecial(token) || tokenizer.TokenBytes(token).empty()) return false;
  if (thinking && ReasoningOver(state)) return false;
  if (content == nullptr) return true;
  const int64_t most = MostNeed(state);
  if (most < 0) return false;
  GPTOSS_ASSIGN_OR_RETURN(out->content, content->Step(state.content, tokenizer.TokenBytes(token)));
  if (out->content == Machine::kDead) return false;
  return most == kUnbounded || content->Need(out->content) <= most;
}

Result<bool> TurnMatcher::Next(const State& state, TokenId token, State* out) const {
  *out = state;
  out->cut_short = state.cut_short || state.narrowed;
  out->narrowed = false;
  ++out->tokens;
  switch (state.part) {
    case Part::kDone:
      return false;
    case Part::kHeader:
      return NextInHeader(state, token, out);
    case Part::kBetween: {
      if (token != grammar_->between_[state.place]) return false;
      if (++out->place < grammar_->between_.size()) return true;
      out->place = 0;
      out->part = Part::kHeader;
      out->closing = ReasoningOver(*out);
      return true;
    }
    default:
      return NextInContent(state, token, out);
  }
}

Result<bool> TurnMatcher::Accept(TokenId token) {
  State next;
  GPTOSS_ASSIGN_OR_RETURN(const bool ok, Next(states_.back(), token, &next));
  if (ok) states_.push_back(next);
  return ok;
}

void TurnMatcher::Rollback(size_t n) {
  GPTOSS_CHECK(n <= steps());
  states_.resize(states_.size() - n);
}

Status TurnMatcher::FillMask(std::span<uint64_t> mask) const {
  const State& state = states_.back();
  std::fill(mask.begin(), mask.end(), 0);
  switch (state.part) {
    case Part::kDone:
      return {};
    case Part::kBetween:
      SetBit(mask, grammar_->between_[state.place]);
      return {};
    case Part::kHeader:
      for (const auto& [token, place] : grammar_->places_[state.place].next) {
        if (PlaceAllowed(state, place)) SetBit(mask, token);
      }
      return {};
    default:
      break;
  }
  Machine* content = ContentOf(state);
  if (content != nullptr) {
    const int64_t most = MostNeed(state);
    state.narrowed = most < 0 && content->CanContinue(state.content);
    if (most >= 0) {
      GPTOSS_RETURN_IF_ERROR(
          content->FillMaskWithin(state.content, mask, static_cast<uint32_t>(most), &state.narrowed));
    }
  } else if (!IsThinking(state) || !ReasoningOver(state)) {
    std::ranges::copy(grammar_->tokens_->ordinary(), mask.begin());
  }
  if (content == nullptr || content->Accepts(state.content)) SetBit(mask, EndOf(state.part));
  return {};
}

Result<TokenId> TurnMatcher::ForcedToken() const {
  const State& state = states_.back();
  if (state.part == Part::kBetween) return grammar_->between_[state.place];
  if (IsThinking(state) && ReasoningOver(state)) return grammar_->markers_.end;
  if (state.part != Part::kHeader) return TokenId{-1};
  TokenId only = -1;
  for (const auto& [token, place] : grammar_->places_[state.place].next) {
    if (!PlaceAllowed(state, place)) continue;
    if (only >= 0) return TokenId{-1};
    only = token;
  }
  return only;
}

}  // namespace gptoss

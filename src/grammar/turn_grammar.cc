#include "grammar/turn_grammar.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

namespace gptoss {
namespace {

// Markers inside header texts: bytes that UTF-8 does not use, so that no text can spell one.
constexpr char kChannel = '\xF8', kConstrain = '\xF9', kMessage = '\xFA';

enum HeaderKind : uint8_t { kAnalysisHeader, kPreambleHeader, kFinalHeader, kCallHeader };

void SetBit(std::span<uint64_t> mask, TokenId token) {
  mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
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

Result<std::shared_ptr<const TurnGrammar>> TurnGrammar::Create(std::shared_ptr<const TokenIndex> tokens,
                                                               TurnOptions options) {
  std::shared_ptr<TurnGrammar> out(new TurnGrammar());
  GPTOSS_ASSIGN_OR_RETURN(out->markers_, TurnTokens::Of(tokens->tokenizer()));
  std::set<std::string> names;
  for (const TurnTool& tool : options.tools) {
    const bool plain = !tool.recipient.empty() && std::all_of(tool.recipient.begin(), tool.recipient.end(), [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-' ||
             c == '.';
    });
    if (!plain)
      return InvalidArgument("tool '" + tool.recipient + "': a name has letters, digits, '_', '-' and '.' only");
    if (!names.insert(tool.recipient).second) return InvalidArgument("tool '" + tool.recipient + "' is declared twice");
  }
  for (const std::string& name : options.allowed) {
    if (!names.contains(name)) return InvalidArgument("tool_choice names '" + name + "', which is not declared");
  }
  if (options.choice == ToolChoice::kRequired && options.tools.empty()) {
    return InvalidArgument("tool_choice requires a call, but no tool is declared");
  }
  if (options.max_tokens > 0 && options.answer_reserve >= options.max_tokens) {
    return InvalidArgument("the reserve for the answer must be smaller than the number of tokens of the turn");
  }
  const std::string channel(1, kChannel), message(1, kMessage), constrain(1, kConstrain);
  out->headers_ = {{channel + "analysis" + message, -1, kAnalysisHeader},
                   {channel + "commentary" + message, -1, kPreambleHeader},
                   {channel + "final" + message, -1, kFinalHeader}};
  for (size_t i = 0; i < options.tools.size(); ++i) {
    const TurnTool& tool = options.tools[i];
    const bool allowed = options.allowed.empty() || std::find(options.allowed.begin(), options.allowed.end(),
                                                              tool.recipient) != options.allowed.end();
    if (!allowed || options.choice == ToolChoice::kNone) continue;
    const std::string to = " to=" + tool.recipient, name = channel + (tool.in_analysis ? "analysis" : "commentary");
    const std::string type = tool.json ? " " + constrain + "json" : " code";
    for (const std::string& start : {to + name, name + to}) {
      out->headers_.push_back({start + type + message, static_cast<int>(i), kCallHeader});
    }
  }
  out->tokens_ = std::move(tokens);
  out->options_ = std::move(options);
  return std::shared_ptr<const TurnGrammar>(std::move(out));
}

TurnMatcher::TurnMatcher(std::shared_ptr<const TurnGrammar> grammar) : grammar_(std::move(grammar)), states_(1) {
  states_[0].closing = ReasoningOver(states_[0]);
}

bool TurnMatcher::ReasoningOver(const State& state) const {
  const TurnOptions& o = grammar_->options_;
  if (o.reasoning_budget && state.reasoning >= *o.reasoning_budget) return true;
  return o.max_tokens > 0 && o.answer_reserve > 0 && state.tokens + o.answer_reserve >= o.max_tokens;
}

bool TurnMatcher::HeaderAllowed(const State& state, size_t header) const {
  const TurnOptions& o = grammar_->options_;
  const auto& h = grammar_->headers_[header];
  const bool over = state.closing;
  switch (h.kind) {
    case kAnalysisHeader:
      return o.allow_analysis && !over;
    case kPreambleHeader:
      return o.allow_preamble && !state.preamble && !over;
    case kFinalHeader:
      return o.choice != ToolChoice::kRequired;
    // Past the budget the way out is the final answer, unless a call is what the turn must end in.
    case kCallHeader:
      return !over || o.choice == ToolChoice::kRequired;
    default:
      return false;
  }
}

std::vector<std::string> TurnMatcher::HeaderRests(const State& state) const {
  std::vector<std::string> rests;
  for (size_t h = 0; h < grammar_->headers_.size(); ++h) {
    const std::string& text = grammar_->headers_[h].text;
    if (text.starts_with(state.header) && HeaderAllowed(state, h)) rests.push_back(text.substr(state.header.size()));
  }
  return rests;
}

TokenId TurnMatcher::EndOf(Part part) const {
  if (part == Part::kArguments) return grammar_->markers_.call;
  return part == Part::kFinal ? grammar_->markers_.return_ : grammar_->markers_.end;
}

const std::shared_ptr<Machine>* TurnMatcher::ContentOf(const State& state) const {
  const TurnOptions& o = grammar_->options_;
  if (state.part == Part::kFinal && o.final_answer != nullptr) return &o.final_answer;
  if (state.part != Part::kArguments) return nullptr;
  const std::shared_ptr<Machine>& arguments = o.tools[static_cast<size_t>(state.tool)].arguments;
  return arguments != nullptr ? &arguments : nullptr;
}

Result<bool> TurnMatcher::NextInHeader(const State& state, TokenId token, State* out) const {
  const TurnTokens& m = grammar_->markers_;
  const Tokenizer& tokenizer = grammar_->tokens_->tokenizer();
  std::string piece;
  if (token == m.channel) {
    piece = kChannel;
  } else if (token == m.constrain) {
    piece = kConstrain;
  } else if (token == m.message) {
    piece = kMessage;
  } else if (!tokenizer.IsSpecial(token)) {
    piece = tokenizer.TokenBytes(token);
    // No text may stand for a marker.
    if (piece.find_first_of(std::string{kChannel, kConstrain, kMessage}) != std::string::npos) return false;
  }
  if (piece.empty()) return false;
  const std::vector<std::string> rests = HeaderRests(state);
  if (std::none_of(rests.begin(), rests.end(), [&](const std::string& r) { return r.starts_with(piece); }))
    return false;
  out->header += piece;
  if (piece[0] != kMessage) return true;
  const auto header = std::find_if(grammar_->headers_.begin(), grammar_->headers_.end(),
                                   [&](const auto& h) { return h.text == out->header; });
  constexpr std::array<Part, 4> kParts = {Part::kAnalysis, Part::kPreamble, Part::kFinal, Part::kArguments};
  out->part = kParts[header->kind];
  out->tool = header->tool;
  out->preamble = out->preamble || header->kind == kPreambleHeader;
  out->header.clear();
  if (const std::shared_ptr<Machine>* content = ContentOf(*out)) out->content = (*content)->start();
  return true;
}

Result<bool> TurnMatcher::NextInContent(const State& state, TokenId token, State* out) const {
  const Tokenizer& tokenizer = grammar_->tokens_->tokenizer();
  const std::shared_ptr<Machine>* content = ContentOf(state);
  const bool thinking = state.part == Part::kAnalysis || state.part == Part::kPreamble;
  if (token == EndOf(state.part)) {
    if (content != nullptr && !(*content)->Accepts(state.content)) return false;
    out->part = thinking ? Part::kBetween : Part::kDone;
    out->reasoning += thinking ? 1 : 0;  // so that empty messages cannot go on for ever
    return true;
  }
  if (token < 0 || tokenizer.IsSpecial(token) || tokenizer.TokenBytes(token).empty()) return false;
  if (thinking && ReasoningOver(state)) return false;
  out->reasoning += thinking ? 1 : 0;
  if (content == nullptr) return true;
  GPTOSS_ASSIGN_OR_RETURN(out->content, (*content)->Step(state.content, tokenizer.TokenBytes(token)));
  return out->content != Machine::kDead;
}

Result<bool> TurnMatcher::Next(const State& state, TokenId token, State* out) const {
  *out = state;
  ++out->tokens;
  switch (state.part) {
    case Part::kDone:
      return false;
    case Part::kHeader:
      return NextInHeader(state, token, out);
    case Part::kBetween: {
      // "<|start|>" and then "assistant", which is one token or several.
      const Tokenizer& tokenizer = grammar_->tokens_->tokenizer();
      if (state.header.empty()) {
        out->header = "<";
        return token == grammar_->markers_.start;
      }
      if (tokenizer.IsSpecial(token) || tokenizer.TokenBytes(token).empty()) return false;
      out->header += tokenizer.TokenBytes(token);
      if (!std::string_view("<assistant").starts_with(out->header)) return false;
      if (out->header == "<assistant") {
        out->header.clear();
        out->part = Part::kHeader;
        out->closing = ReasoningOver(*out);
      }
      return true;
    }
    default:
      return NextInContent(state, token, out);
  }
}

Result<bool> TurnMatcher::Accept(TokenId token) {
  State next;
  GPTOSS_ASSIGN_OR_RETURN(const bool ok, Next(states_.back(), token, &next));
  if (ok) states_.push_back(std::move(next));
  return ok;
}

void TurnMatcher::Rollback(size_t n) {
  GPTOSS_CHECK(n <= steps());
  states_.resize(states_.size() - n);
}

Status TurnMatcher::FillMask(std::span<uint64_t> mask) const {
  std::fill(mask.begin(), mask.end(), 0);
  const State& state = states_.back();
  const TokenIndex& index = *grammar_->tokens_;
  const TurnTokens& m = grammar_->markers_;
  if (state.part == Part::kDone) return {};
  if (state.part != Part::kHeader && state.part != Part::kBetween) {
    const std::shared_ptr<Machine>* content = ContentOf(state);
    const bool thinking = state.part == Part::kAnalysis || state.part == Part::kPreamble;
    if (content != nullptr) {
      GPTOSS_RETURN_IF_ERROR((*content)->FillMask(state.content, mask));
    } else if (!thinking || !ReasoningOver(state)) {
      for (size_t w = 0; w < mask.size(); ++w) mask[w] = index.ordinary()[w];
    }
    if (content == nullptr || (*content)->Accepts(state.content)) SetBit(mask, EndOf(state.part));
    return {};
  }
  if (state.part == Part::kBetween && state.header.empty()) {
    SetBit(mask, m.start);
    return {};
  }
  const std::vector<std::string> rests =
      state.part == Part::kBetween ? std::vector<std::string>{std::string("<assistant").substr(state.header.size())}
                                   : HeaderRests(state);
  for (const std::string& rest : rests) {
    if (rest[0] == kChannel) SetBit(mask, m.channel);
    if (rest[0] == kConstrain) SetBit(mask, m.constrain);
    if (rest[0] == kMessage) SetBit(mask, m.message);
    index.ForEachPrefix(rest.substr(0, rest.find_first_of(std::string{kChannel, kConstrain, kMessage})),
                        [&](TokenId token) { SetBit(mask, token); });
  }
  return {};
}

Result<TokenId> TurnMatcher::ForcedToken() const {
  const State& state = states_.back();
  if (state.part != Part::kHeader && state.part != Part::kBetween &&
      !(ReasoningOver(state) && (state.part == Part::kAnalysis || state.part == Part::kPreamble))) {
    return TokenId{-1};
  }
  std::vector<uint64_t> mask(grammar_->tokens_->mask_words());
  GPTOSS_RETURN_IF_ERROR(FillMask(mask));
  TokenId only = -1;
  for (size_t w = 0; w < mask.size(); ++w) {
    for (uint64_t bits = mask[w]; bits != 0; bits &= bits - 1) {
      if (only >= 0) return TokenId{-1};
      only = static_cast<TokenId>(w * 64 + static_cast<size_t>(__builtin_ctzll(bits)));
    }
  }
  return only;
}

}  // namespace gptoss

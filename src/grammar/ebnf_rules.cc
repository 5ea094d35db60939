#include "grammar/ebnf_rules.h"

#include <map>
#include <optional>
#include <set>
#include <utility>

namespace gptoss {
namespace {

using ExprKind = EbnfExpr::Kind;

Ebnf Make(ExprKind kind, std::vector<Ebnf> parts) {
  auto expr = std::make_shared<EbnfExpr>();
  expr->kind = kind;
  expr->parts = std::move(parts);
  return expr;
}

/// A = A x | b  becomes  A = b x*.
Ebnf WithoutLeftRecursion(const std::string& name, const Ebnf& body) {
  const std::vector<Ebnf> alternatives = body->kind == ExprKind::kAlternatives ? body->parts : std::vector<Ebnf>{body};
  std::vector<Ebnf> tails, heads;
  for (const Ebnf& a : alternatives) {
    const bool alone = a->kind == ExprKind::kRule && a->rule == name;
    if (alone) continue;  // A = A says nothing
    const bool left = a->kind == ExprKind::kSequence && !a->parts.empty() && a->parts[0]->kind == ExprKind::kRule &&
                      a->parts[0]->rule == name;
    if (left) {
      tails.push_back(SequenceEbnf({a->parts.begin() + 1, a->parts.end()}));
    } else {
      heads.push_back(a);
    }
  }
  if (tails.empty() || heads.empty()) return body;
  return SequenceEbnf(
      {AlternativesEbnf(std::move(heads)), RepeatEbnf(AlternativesEbnf(std::move(tails)), 0, kUnbounded)});
}

class EbnfCompiler {
 public:
  EbnfCompiler(const EbnfGrammar& grammar, const EbnfOptions& options) : grammar_(grammar), builder_(options.limits) {}

  Result<Automaton> Compile() {
    for (const EbnfRule& rule : grammar_.rules) {
      if (!ids_.try_emplace(rule.name, builder_.NewRule(rule.name)).second) {
        return InvalidArgument("grammar, line " + std::to_string(rule.line) + ": rule '" + rule.name +
                               "' is defined twice");
      }
    }
    for (const EbnfRule& rule : grammar_.rules) {
      if (rule.terminal) terminals_.insert(rule.name);
    }
    const auto start = ids_.find(grammar_.start);
    if (start == ids_.end()) return InvalidArgument("grammar: there is no rule '" + grammar_.start + "' to start at");
    GPTOSS_RETURN_IF_ERROR(EmitIgnored());
    for (const EbnfRule& rule : grammar_.rules) {
      const RuleId id = ids_[rule.name];
      line_ = rule.line;
      GPTOSS_RETURN_IF_ERROR(Emit(WithoutLeftRecursion(rule.name, rule.body), !rule.terminal && ignore_,
                                  builder_.Start(id), builder_.End(id)));
    }
    RuleId root = start->second;
    if (ignore_) {
      root = builder_.NewRule("text");
      const NodeId begin = builder_.NewNode();
      builder_.Repeat(builder_.Start(root), *ignore_, 0, kUnbounded, begin);
      builder_.Call(begin, start->second, builder_.End(root));
    }
    Result<Automaton> automaton = builder_.Build(root);
    return automaton.ok() ? std::move(automaton) : Result<Automaton>(automaton.status().WithContext("grammar"));
  }

 private:
  Status EmitIgnored() {
    if (grammar_.ignored.empty()) return {};
    ignore_ = builder_.NewRule("ignored");
    for (const Ebnf& expr : grammar_.ignored) {
      GPTOSS_RETURN_IF_ERROR(Emit(expr, false, builder_.Start(*ignore_), builder_.End(*ignore_)));
    }
    return {};
  }

  /// `skip`: what is ignored may follow every terminal.
  Status Emit(const Ebnf& expr, bool skip, NodeId from, NodeId to) {
    switch (expr->kind) {
      case ExprKind::kRegex: {
        const NodeId end = AfterTerminal(skip, to);
        return EmitRegex(expr->regex, TextForm::kUtf8, from, end, &builder_);
      }
      case ExprKind::kRule: {
        const auto it = ids_.find(expr->rule);
        if (it == ids_.end()) {
          return InvalidArgument("grammar, line " + std::to_string(line_) + ": rule '" + expr->rule +
                                 "' is not defined");
        }
        builder_.Call(from, it->second, AfterTerminal(skip && terminals_.contains(expr->rule), to));
        return {};
      }
      case ExprKind::kSequence:
        for (size_t i = 0; i < expr->parts.size(); ++i) {
          const NodeId next = i + 1 == expr->parts.size() ? to : builder_.NewNode();
          GPTOSS_RETURN_IF_ERROR(Emit(expr->parts[i], skip, from, next));
          from = next;
        }
        if (expr->parts.empty()) builder_.Empty(from, to);
        return {};
      case ExprKind::kAlternatives:
        for (const Ebnf& part : expr->parts) GPTOSS_RETURN_IF_ERROR(Emit(part, skip, from, to));
        return {};
      case ExprKind::kRepeat:
        break;
    }
    const Ebnf& part = expr->parts[0];
    if (part->kind == ExprKind::kRegex && !skip) {
      return EmitRegex(RepeatRegex(part->regex, expr->min, expr->max), TextForm::kUtf8, from, to, &builder_);
    }
    const RuleId rule = builder_.NewRule("repetition");
    GPTOSS_RETURN_IF_ERROR(Emit(part, skip, builder_.Start(rule), builder_.End(rule)));
    builder_.Repeat(from, rule, expr->min, expr->max, to);
    return {};
  }

  NodeId AfterTerminal(bool skip, NodeId to) {
    if (!skip) return to;
    const NodeId end = builder_.NewNode();
    builder_.Repeat(end, *ignore_, 0, kUnbounded, to);
    return end;
  }

  const EbnfGrammar& grammar_;
  AutomatonBuilder builder_;
  std::map<std::string, RuleId> ids_;
  std::set<std::string> terminals_;
  std::optional<RuleId> ignore_;
  size_t line_ = 0;
};

}  // namespace

Ebnf RegexEbnf(Regex regex) {
  auto expr = std::make_shared<EbnfExpr>();
  expr->kind = ExprKind::kRegex;
  expr->regex = std::move(regex);
  return expr;
}

Ebnf RuleEbnf(std::string name) {
  auto expr = std::make_shared<EbnfExpr>();
  expr->kind = ExprKind::kRule;
  expr->rule = std::move(name);
  return expr;
}

Ebnf SequenceEbnf(std::vector<Ebnf> parts) {
  return parts.size() == 1 ? parts[0] : Make(ExprKind::kSequence, std::move(parts));
}

Ebnf AlternativesEbnf(std::vector<Ebnf> parts) {
  return parts.size() == 1 ? parts[0] : Make(ExprKind::kAlternatives, std::move(parts));
}

Ebnf RepeatEbnf(Ebnf part, uint32_t min, uint32_t max) {
  auto expr = std::make_shared<EbnfExpr>();
  expr->kind = ExprKind::kRepeat;
  expr->parts = {std::move(part)};
  expr->min = min;
  expr->max = max;
  return expr;
}

Result<Automaton> CompileEbnf(const EbnfGrammar& grammar, const EbnfOptions& options) {
  return EbnfCompiler(grammar, options).Compile();
}

}  // namespace gptoss

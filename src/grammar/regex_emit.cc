#include <algorithm>
#include <map>
#include <utility>

#include "base/utf8.h"
#include "grammar/regex.h"

namespace gptoss {
namespace {

using ByteRange = std::pair<uint8_t, uint8_t>;
using ByteSequence = std::vector<ByteRange>;

/// UTF-8 of all code points from lo to hi, which have the same length, as sequences of byte ranges.
void SplitRange(uint32_t lo, uint32_t hi, std::vector<ByteSequence>* out) {
  std::string a, b;
  AppendUtf8(lo, &a);
  AppendUtf8(hi, &b);
  const size_t n = a.size();
  // Split so that all bytes after the first that differ run from 80 to BF.
  for (size_t i = 1; i < n; ++i) {
    const uint32_t mask = (1u << (6 * (n - i))) - 1;
    if ((lo & ~mask) == (hi & ~mask)) continue;
    if ((lo & mask) != 0) {
      SplitRange(lo, lo | mask, out);
      return SplitRange((lo | mask) + 1, hi, out);
    }
    if ((hi & mask) != mask) {
      SplitRange(lo, (hi & ~mask) - 1, out);
      return SplitRange(hi & ~mask, hi, out);
    }
  }
  ByteSequence sequence;
  for (size_t i = 0; i < n; ++i) sequence.emplace_back(static_cast<uint8_t>(a[i]), static_cast<uint8_t>(b[i]));
  out->push_back(std::move(sequence));
}

void AppendUtf8Sequences(const CodePointSet& set, std::vector<ByteSequence>* out) {
  constexpr uint32_t kEnds[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
  for (const CodePointRange& range : set.ranges()) {
    uint32_t lo = range.lo;
    for (uint32_t end : kEnds) {
      if (lo > range.hi || lo > end) continue;
      SplitRange(lo, std::min(range.hi, end), out);
      lo = end + 1;
    }
  }
}

ByteSequence Bytes(std::string_view text) {
  ByteSequence out;
  for (char c : text) out.emplace_back(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
  return out;
}

void AppendJsonEscapes(const CodePointSet& set, std::vector<ByteSequence>* out) {
  for (uint32_t c = 0; c < 0x80; ++c) {
    if (!set.Contains(c)) continue;
    constexpr std::string_view kNamed = "\"\\\b\f\n\r\t";
    constexpr std::string_view kLetters = "\"\\bfnrt";
    const size_t named = kNamed.find(static_cast<char>(c));
    if (named != std::string_view::npos) {
      out->push_back(Bytes(std::string("\\") + kLetters[named]));
    } else if (c < 0x20) {
      constexpr std::string_view kLower = "0123456789abcdef", kUpper = "0123456789ABCDEF";
      const std::string start = std::string("\\u00") + (c < 16 ? '0' : '1');
      out->push_back(Bytes(start + kLower[c % 16]));
      if (c % 16 >= 10) out->push_back(Bytes(start + kUpper[c % 16]));
    }
  }
}

}  // namespace

void EmitClass(const CodePointSet& set, TextForm form, NodeId from, NodeId to, AutomatonBuilder* builder) {
  std::vector<ByteSequence> sequences;
  if (form == TextForm::kJson) {
    static const CodePointSet kEscaped = CodePointSet::Of({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
    AppendUtf8Sequences(set.Intersection(kEscaped.Complement()), &sequences);
    AppendJsonEscapes(set, &sequences);
  } else {
    AppendUtf8Sequences(set, &sequences);
  }
  // Ranges at the same place are equal or disjoint, so a tree over them is deterministic.
  std::map<std::pair<NodeId, ByteRange>, NodeId> tree;
  for (const ByteSequence& sequence : sequences) {
    NodeId at = from;
    for (size_t i = 0; i + 1 < sequence.size(); ++i) {
      const auto [it, added] = tree.try_emplace({at, sequence[i]}, 0);
      if (added) {
        it->second = builder->NewNode();
        builder->Bytes(at, sequence[i].first, sequence[i].second, it->second);
      }
      at = it->second;
    }
    builder->Bytes(at, sequence.back().first, sequence.back().second, to);
  }
}

RuleId ClassRule(const CodePointSet& set, TextForm form, AutomatonBuilder* builder) {
  std::string key = form == TextForm::kJson ? "class json" : "class utf8";
  for (const CodePointRange& r : set.ranges()) key += " " + std::to_string(r.lo) + "-" + std::to_string(r.hi);
  RuleId rule = 0;
  if (!builder->FindOrAddRule(key, "character", &rule)) {
    EmitClass(set, form, builder->Start(rule), builder->End(rule), builder);
  }
  return rule;
}

Status EmitRegex(const Regex& regex, TextForm form, NodeId from, NodeId to, AutomatonBuilder* builder) {
  if (builder->full()) return {};
  switch (regex->kind) {
    case RegexNode::Kind::kEmpty:
      builder->Empty(from, to);
      return {};
    case RegexNode::Kind::kClass: {
      constexpr size_t kFewRanges = 32;  // what has more is written once and called
      if (regex->set.ranges().size() > kFewRanges) {
        builder->Call(from, ClassRule(regex->set, form, builder), to);
      } else {
        EmitClass(regex->set, form, from, to, builder);
      }
      return {};
    }
    case RegexNode::Kind::kConcat:
      for (size_t i = 0; i < regex->parts.size(); ++i) {
        const NodeId next = i + 1 == regex->parts.size() ? to : builder->NewNode();
        GPTOSS_RETURN_IF_ERROR(EmitRegex(regex->parts[i], form, from, next, builder));
        from = next;
      }
      return {};
    case RegexNode::Kind::kAlternate:
      for (const Regex& part : regex->parts) GPTOSS_RETURN_IF_ERROR(EmitRegex(part, form, from, to, builder));
      return {};
    case RegexNode::Kind::kRepeat: {
      const Regex& part = regex->parts[0];
      if (regex->min == 0 && regex->max == 1) {
        builder->Empty(from, to);
        return EmitRegex(part, form, from, to, builder);
      }
      // A few characters are written out: what repeats them, such as (x|%[0-9a-f]{2})*, then has no calls.
      constexpr uint32_t kFewCopies = 4;
      if (regex->min == regex->max && regex->max <= kFewCopies && part->kind == RegexNode::Kind::kClass) {
        return EmitRegex(ConcatRegex(std::vector<Regex>(regex->max, part)), form, from, to, builder);
      }
      RuleId rule = 0;
      if (part->kind == RegexNode::Kind::kClass) {
        rule = ClassRule(part->set, form, builder);
      } else {
        rule = builder->NewRule("repetition");
        GPTOSS_RETURN_IF_ERROR(EmitRegex(part, form, builder->Start(rule), builder->End(rule), builder));
      }
      builder->Repeat(from, rule, regex->min, regex->max, to);
      return {};
    }
    case RegexNode::Kind::kLineStart:
    case RegexNode::Kind::kLineEnd:
      return Unsupported("regular expression: an anchor inside the expression");
  }
  return {};
}

Result<Automaton> CompileRegex(std::string_view pattern, const AutomatonLimits& limits) {
  GPTOSS_ASSIGN_OR_RETURN(const Regex parsed, ParseRegex(pattern));
  GPTOSS_ASSIGN_OR_RETURN(const Regex regex, ResolveAnchors(parsed, true));
  AutomatonBuilder builder(limits);
  const RuleId root = builder.NewRule("regular expression");
  GPTOSS_RETURN_IF_ERROR(EmitRegex(regex, TextForm::kUtf8, builder.Start(root), builder.End(root), &builder));
  return builder.Build(root);
}

}  // namespace gptoss

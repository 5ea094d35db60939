#include "grammar/char_dfa.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/utf8.h"

namespace gptoss {
namespace {

constexpr size_t kMaxNfaNodes = 60'000;
constexpr size_t kMaxSubsetWork = 4'000'000;

Status TooLarge() {
  return ResourceExhausted("the text pattern needs too large an automaton; make it simpler or its counts smaller");
}

struct Nfa {
  struct Node {
    std::vector<std::pair<CodePointSet, uint32_t>> edges;
    std::vector<uint32_t> empty;
  };
  std::vector<Node> nodes;

  uint32_t Add() {
    nodes.emplace_back();
    return static_cast<uint32_t>(nodes.size() - 1);
  }

  /// Counted repetitions become copies.
  Status Build(const Regex& regex, uint32_t from, uint32_t to) {
    if (nodes.size() > kMaxNfaNodes) return TooLarge();
    using Kind = RegexNode::Kind;
    switch (regex->kind) {
      case Kind::kEmpty:
        nodes[from].empty.push_back(to);
        return {};
      case Kind::kClass:
        nodes[from].edges.emplace_back(regex->set, to);
        return {};
      case Kind::kConcat:
        for (const Regex& part : regex->parts) {
          const uint32_t next = Add();
          GPTOSS_RETURN_IF_ERROR(Build(part, from, next));
          from = next;
        }
        nodes[from].empty.push_back(to);
        return {};
      case Kind::kAlternate:
        for (const Regex& part : regex->parts) GPTOSS_RETURN_IF_ERROR(Build(part, from, to));
        return {};
      case Kind::kRepeat:
        return BuildRepeat(*regex, from, to);
      default:
        return Unsupported("regular expression: an anchor inside the expression");
    }
  }

  Status BuildRepeat(const RegexNode& regex, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < regex.min; ++i) {
      const uint32_t next = Add();
      GPTOSS_RETURN_IF_ERROR(Build(regex.parts[0], from, next));
      from = next;
    }
    if (regex.max == kUnbounded) {
      const uint32_t loop = Add();
      nodes[from].empty.push_back(loop);
      const uint32_t back = Add();
      GPTOSS_RETURN_IF_ERROR(Build(regex.parts[0], loop, back));
      nodes[back].empty.push_back(loop);
      nodes[loop].empty.push_back(to);
      return {};
    }
    for (uint32_t i = regex.min; i < regex.max; ++i) {
      nodes[from].empty.push_back(to);
      const uint32_t next = Add();
      GPTOSS_RETURN_IF_ERROR(Build(regex.parts[0], from, next));
      from = next;
    }
    nodes[from].empty.push_back(to);
    return {};
  }

  std::vector<uint32_t> Closure(std::vector<uint32_t> set) const {
    std::vector<uint32_t> out;
    std::sort(set.begin(), set.end());
    std::vector<uint32_t> work = std::move(set);
    std::map<uint32_t, bool> seen;
    while (!work.empty()) {
      const uint32_t n = work.back();
      work.pop_back();
      if (!seen.try_emplace(n, true).second) continue;
      out.push_back(n);
      work.insert(work.end(), nodes[n].empty.begin(), nodes[n].empty.end());
    }
    std::sort(out.begin(), out.end());
    return out;
  }
};

/// Cuts the sets' common line into pieces and calls visit(piece, indices of the sets that hold it).
template <typename Visit>
void Partition(const std::vector<const CodePointSet*>& sets, const Visit& visit) {
  struct Border {
    uint32_t at;
    uint32_t set;
    bool opens;
  };
  std::vector<Border> borders;
  for (uint32_t i = 0; i < sets.size(); ++i) {
    for (const CodePointRange& r : sets[i]->ranges()) {
      borders.push_back({r.lo, i, true});
      borders.push_back({r.hi + 1, i, false});
    }
  }
  std::sort(borders.begin(), borders.end(), [](const Border& a, const Border& b) { return a.at < b.at; });
  std::vector<uint32_t> open;  // sorted
  for (size_t i = 0; i < borders.size();) {
    const uint32_t at = borders[i].at;
    for (; i < borders.size() && borders[i].at == at; ++i) {
      const auto it = std::lower_bound(open.begin(), open.end(), borders[i].set);
      if (borders[i].opens) {
        open.insert(it, borders[i].set);
      } else {
        open.erase(it);
      }
    }
    if (!open.empty()) visit(CodePointRange{at, borders[i].at - 1}, open);
  }
}

}  // namespace

Result<CharDfa> CharDfa::FromRegex(const Regex& regex) {
  Nfa nfa;
  const uint32_t start = nfa.Add();
  const uint32_t end = nfa.Add();
  GPTOSS_RETURN_IF_ERROR(nfa.Build(regex, start, end));
  CharDfa out;
  std::map<std::vector<uint32_t>, uint32_t> ids;
  std::vector<std::vector<uint32_t>> subsets;
  size_t work = 0;
  const auto intern = [&](std::vector<uint32_t> set) {
    set = nfa.Closure(std::move(set));
    work += set.size();
    const auto [it, added] = ids.try_emplace(set, static_cast<uint32_t>(subsets.size()));
    if (added) {
      out.states_.emplace_back();
      out.states_.back().accept = std::binary_search(set.begin(), set.end(), end);
      subsets.push_back(std::move(set));
    }
    return it->second;
  };
  intern({start});
  for (size_t s = 0; s < subsets.size(); ++s) {
    if (subsets.size() > kMaxStates || work > kMaxSubsetWork) return TooLarge();
    std::vector<const CodePointSet*> sets;
    std::vector<uint32_t> targets;
    for (uint32_t n : subsets[s]) {
      for (const auto& [set, to] : nfa.nodes[n].edges) {
        sets.push_back(&set);
        targets.push_back(to);
      }
    }
    std::map<uint32_t, std::vector<CodePointRange>> edges;
    Partition(sets, [&](CodePointRange piece, const std::vector<uint32_t>& open) {
      if (work > kMaxSubsetWork) return;
      std::vector<uint32_t> to;
      for (uint32_t i : open) to.push_back(targets[i]);
      edges[intern(std::move(to))].push_back(piece);
    });
    for (auto& [to, ranges] : edges) out.states_[s].edges.push_back({CodePointSet::Of(std::move(ranges)), to});
  }
  return out.Trimmed();
}

Result<CharDfa> CharDfa::FromLength(uint32_t min, uint32_t max) {
  const uint32_t last = max == kUnbounded ? min : max;
  if (last >= kMaxStates) return TooLarge();
  CharDfa out;
  out.states_.resize(last + 1);
  for (uint32_t i = 0; i <= last; ++i) {
    out.states_[i].accept = i >= min;
    if (i < last || max == kUnbounded) {
      out.states_[i].edges.push_back({CodePointSet::All(), i < last ? i + 1 : i});
    }
  }
  return out;
}

CharDfa CharDfa::FromTexts(const std::vector<std::string>& texts) {
  CharDfa out;
  out.states_.resize(1);
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> tree;
  for (std::string_view text : texts) {
    uint32_t at = 0;
    while (!text.empty()) {
      const Utf8Char c = DecodeUtf8(text);
      text.remove_prefix(c.length);
      const auto [it, added] = tree.try_emplace({at, c.code_point}, static_cast<uint32_t>(out.states_.size()));
      if (added) {
        out.states_.emplace_back();
        out.states_[at].edges.push_back({CodePointSet::Of({{c.code_point, c.code_point}}), it->second});
      }
      at = it->second;
    }
    out.states_[at].accept = true;
  }
  return out;
}

CharDfa CharDfa::All() {
  CharDfa out;
  out.states_.resize(1);
  out.states_[0].accept = true;
  out.states_[0].edges.push_back({CodePointSet::All(), 0});
  return out;
}

Result<CharDfa> CharDfa::Intersection(const CharDfa& other) const {
  CharDfa out;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> ids;
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  const auto intern = [&](uint32_t a, uint32_t b) {
    const auto [it, added] = ids.try_emplace({a, b}, static_cast<uint32_t>(pairs.size()));
    if (added) {
      pairs.emplace_back(a, b);
      out.states_.emplace_back();
      out.states_.back().accept = states_[a].accept && other.states_[b].accept;
    }
    return it->second;
  };
  intern(0, 0);
  for (size_t s = 0; s < pairs.size(); ++s) {
    if (pairs.size() > kMaxStates) return TooLarge();
    const auto [a, b] = pairs[s];
    for (const Edge& x : states_[a].edges) {
      for (const Edge& y : other.states_[b].edges) {
        CodePointSet set = x.set.Intersection(y.set);
        if (set.empty()) continue;
        const uint32_t to = intern(x.to, y.to);
        out.states_[s].edges.push_back({std::move(set), to});
      }
    }
  }
  return out.Trimmed();
}

CharDfa CharDfa::Complement() const {
  CharDfa out = *this;
  const uint32_t sink = static_cast<uint32_t>(out.states_.size());
  for (State& state : out.states_) {
    CodePointSet covered;
    for (const Edge& e : state.edges) covered = covered.Union(e.set);
    CodePointSet rest = covered.Complement();
    if (!rest.empty()) state.edges.push_back({std::move(rest), sink});
    state.accept = !state.accept;
  }
  State end;
  end.accept = true;
  end.edges.push_back({CodePointSet::All(), sink});
  out.states_.push_back(std::move(end));
  return out.Trimmed();
}

CharDfa CharDfa::Trimmed() const {
  std::vector<std::vector<uint32_t>> back(states_.size());
  std::vector<bool> live(states_.size(), false);
  std::vector<uint32_t> work;
  for (uint32_t s = 0; s < states_.size(); ++s) {
    for (const Edge& e : states_[s].edges) back[e.to].push_back(s);
    if (!states_[s].accept) continue;
    live[s] = true;
    work.push_back(s);
  }
  while (!work.empty()) {
    const uint32_t s = work.back();
    work.pop_back();
    for (uint32_t p : back[s]) {
      if (live[p]) continue;
      live[p] = true;
      work.push_back(p);
    }
  }
  CharDfa out;
  std::vector<uint32_t> index(states_.size(), 0);
  for (uint32_t s = 0, next = 0; s < states_.size(); ++s) {
    if (live[s] || s == 0) index[s] = next++;
  }
  for (uint32_t s = 0; s < states_.size(); ++s) {
    if (!live[s] && s != 0) continue;
    State state;
    state.accept = states_[s].accept;
    for (const Edge& e : states_[s].edges) {
      if (!live[e.to]) continue;
      const uint32_t to = index[e.to];
      const auto same =
          std::find_if(state.edges.begin(), state.edges.end(), [&](const Edge& other) { return other.to == to; });
      if (same == state.edges.end()) {
        state.edges.push_back({e.set, to});
      } else {
        same->set = same->set.Union(e.set);
      }
    }
    out.states_.push_back(std::move(state));
  }
  return out;
}

bool CharDfa::Matches(std::string_view utf8) const {
  uint32_t at = 0;
  while (!utf8.empty()) {
    const Utf8Char c = DecodeUtf8(utf8);
    utf8.remove_prefix(c.length);
    const auto& edges = states_[at].edges;
    const auto it =
        std::find_if(edges.begin(), edges.end(), [&](const Edge& e) { return e.set.Contains(c.code_point); });
    if (!c.valid || it == edges.end()) return false;
    at = it->to;
  }
  return states_[at].accept;
}

bool CharDfa::empty() const {
  return std::none_of(states_.begin(), states_.end(), [](const State& s) { return s.accept; });
}

void CharDfa::Emit(TextForm form, NodeId from, NodeId to, AutomatonBuilder* builder) const {
  std::vector<NodeId> node;
  for (size_t s = 0; s < states_.size(); ++s) node.push_back(builder->NewNode());
  builder->Empty(from, node[0]);
  for (size_t s = 0; s < states_.size(); ++s) {
    NodeId at = node[s];
    for (const Edge& e : states_[s].edges) {
      if (e.to != s) continue;
      const NodeId after = builder->NewNode();
      builder->Repeat(at, ClassRule(e.set, form, builder), 0, kUnbounded, after);
      at = after;
    }
    for (const Edge& e : states_[s].edges) {
      if (e.to != s) EmitClass(e.set, form, at, node[e.to], builder);
    }
    if (states_[s].accept) builder->Empty(at, to);
  }
}

}  // namespace gptoss

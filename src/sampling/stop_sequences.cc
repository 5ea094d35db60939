#include "sampling/stop_sequences.h"

#include <deque>
#include <utility>

namespace gptoss {

Result<StopSequences> StopSequences::Make(std::vector<std::string> stops) {
  constexpr size_t kMaxBytes = 64u << 10;
  size_t bytes = 0;
  for (const std::string& stop : stops) {
    if (stop.empty()) return InvalidArgument("stop holds an empty string, which would stop every answer at once");
    bytes += stop.size();
  }
  if (bytes > kMaxBytes) {
    return InvalidArgument("stop holds " + std::to_string(bytes) + " bytes; at most " + std::to_string(kMaxBytes) +
                           " are supported");
  }
  StopSequences sequences;
  sequences.stops_ = std::move(stops);
  for (size_t i = 0; i < sequences.stops_.size(); ++i) sequences.Insert(i);
  sequences.LinkFailures();
  return sequences;
}

void StopSequences::Insert(size_t stop) {
  int32_t node = 0;
  for (char c : stops_[stop]) {
    const auto [edge, added] =
        nodes_[static_cast<size_t>(node)].next.try_emplace(static_cast<unsigned char>(c), nodes_.size());
    const int32_t child = edge->second;
    if (added) {
      const size_t depth = nodes_[static_cast<size_t>(node)].depth + 1;
      nodes_.emplace_back().depth = depth;
    }
    node = child;
  }
  nodes_[static_cast<size_t>(node)].stop = static_cast<int32_t>(stop);
}

/// Breadth first: a node's failure link is shallower than the node, so it is final before it is needed.
void StopSequences::LinkFailures() {
  std::deque<int32_t> queue;
  for (const auto& [byte, child] : nodes_[0].next) queue.push_back(child);
  while (!queue.empty()) {
    Node& node = nodes_[static_cast<size_t>(queue.front())];
    queue.pop_front();
    if (node.stop < 0) node.stop = nodes_[static_cast<size_t>(node.fail)].stop;
    for (const auto& [byte, child] : node.next) {
      nodes_[static_cast<size_t>(child)].fail = Step(node.fail, byte);
      queue.push_back(child);
    }
  }
}

int32_t StopSequences::Step(int32_t node, unsigned char byte) const {
  for (;;) {
    const Node& from = nodes_[static_cast<size_t>(node)];
    if (const auto edge = from.next.find(byte); edge != from.next.end()) return edge->second;
    if (node == 0) return 0;
    node = from.fail;
  }
}

std::string StopSequences::Feed(std::string_view text) {
  if (matched()) return {};
  for (size_t i = 0; i < text.size(); ++i) {
    state_ = Step(state_, static_cast<unsigned char>(text[i]));
    const int32_t stop = nodes_[static_cast<size_t>(state_)].stop;
    if (stop < 0) continue;
    matched_ = stop;
    std::string safe = std::exchange(pending_, {});
    safe.append(text.substr(0, i + 1));
    safe.resize(safe.size() - stops_[static_cast<size_t>(stop)].size());
    return safe;
  }
  std::string safe = std::exchange(pending_, {});
  safe.append(text);
  const size_t held = nodes_[static_cast<size_t>(state_)].depth;
  pending_ = safe.substr(safe.size() - held);
  safe.resize(safe.size() - held);
  return safe;
}

std::string StopSequences::Finish() { return matched() ? std::string() : std::exchange(pending_, {}); }

std::string_view StopSequences::match() const {
  return matched() ? std::string_view(stops_[static_cast<size_t>(matched_)]) : std::string_view();
}

void StopSequences::Reset() {
  state_ = 0;
  matched_ = -1;
  pending_.clear();
}

}  // namespace gptoss

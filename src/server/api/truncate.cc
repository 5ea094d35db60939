#include "server/api/truncate.h"

#include <algorithm>
#include <iterator>

namespace gptoss::server {
namespace {

constexpr int kRoomForAnswer = 1024;  // tokens, unless the request wants fewer

}  // namespace

void TruncateHistory(TurnService& turns, TurnRequest* request) {
  const int context = turns.engine().max_context();
  const int room = std::min({kRoomForAnswer, request->max_tokens.value_or(kRoomForAnswer), context / 2});
  const auto fits = [&](const TurnRequest& shorter) {
    const auto tokens = turns.Render(shorter);
    // Any other error is not about length; the turn will name it.
    if (!tokens.ok()) return !tokens.status().message().starts_with(kContextLengthExceeded);
    return static_cast<int64_t>(tokens->size()) + room <= context;
  };
  if (fits(*request)) return;
  std::vector<size_t> cuts;
  for (size_t i = 1; i < request->history.size(); ++i) {
    if (request->history[i].message.author.role == Role::kUser) cuts.push_back(i);
  }
  if (cuts.empty()) return;
  const auto from = [&](size_t cut) {
    TurnRequest shorter = *request;
    shorter.history.erase(shorter.history.begin(), shorter.history.begin() + static_cast<std::ptrdiff_t>(cut));
    return shorter;
  };
  // The longer the cut, the shorter the prompt: the first that fits is found by halving.
  auto found = std::partition_point(cuts.begin(), cuts.end(), [&](size_t cut) { return !fits(from(cut)); });
  if (found == cuts.end()) --found;
  *request = from(*found);
}

}  // namespace gptoss::server

#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace gptoss {

void Scheduler::Add(uint64_t id, int tokens) { waiting_[id] = {.tokens = tokens}; }

void Scheduler::Remove(uint64_t id) {
  waiting_.erase(id);
  if (running_.erase(id) > 0) space_.Leave(id);
}

void Scheduler::Update(uint64_t id, int tokens, int computed) {
  const auto found = running_.find(id);
  GPTOSS_CHECK(found != running_.end());
  found->second = {tokens, computed};
}

int Scheduler::decoding() const {
  return static_cast<int>(
      std::ranges::count_if(running_, [](const auto& entry) { return entry.second.remaining() == 1; }));
}

Scheduler::Step Scheduler::Plan(int max_rows, int max_prefill_rows) {
  Step step;
  Admit(&step);
  PlanDecode(&step);
  const int left = max_rows - step.decode_rows;
  PlanPrefill(step.decode_rows > 0 ? std::min(left, max_prefill_rows) : left, &step);
  return step;
}

void Scheduler::PlanDecode(Step* step) {
  std::vector<uint64_t> decoding;
  for (const auto& [id, progress] : running_) {
    if (progress.remaining() == 1) decoding.push_back(id);
  }
  for (const uint64_t id : decoding) {
    // An older one may have taken its place meanwhile.
    if (!running_.contains(id) || !ReserveOrPreempt(id, 1, step)) continue;
    step->rows.push_back({id, 1, true});
    ++step->decode_rows;
  }
}

void Scheduler::PlanPrefill(int budget, Step* step) {
  std::vector<uint64_t> prompts;
  for (const auto& [id, progress] : running_) {
    if (progress.remaining() > 1) prompts.push_back(id);
  }
  if (prompts.empty() || budget <= 0) return;
  const uint64_t oldest = prompts.front();
  const int wanted = running_[oldest].remaining();
  const int first = std::min(wanted, prompts.size() > 1 ? (budget + 1) / 2 : budget);
  if (!ReserveOrPreempt(oldest, first, step)) return;  // then all others are older, and decode
  budget -= first;
  AddRows(oldest, first, step);
  std::erase_if(prompts, [&](uint64_t id) { return id == oldest || !running_.contains(id); });
  std::ranges::stable_sort(prompts, {}, [&](uint64_t id) { return running_[id].remaining(); });
  for (const uint64_t id : prompts) {
    const int count = std::min(running_[id].remaining(), budget);
    if (count <= 0 || !space_.Reserve(id, count)) continue;
    AddRows(id, count, step);
    budget -= count;
  }
  // What the others left. Room is always asked for from the first token that is not computed.
  const int more = std::min(wanted - first, budget);
  if (more > 0 && space_.Reserve(oldest, first + more)) AddRows(oldest, more, step);
}

void Scheduler::Admit(Step* step) {
  while (!waiting_.empty() && static_cast<int>(running_.size()) < max_running_) {
    const auto [id, progress] = *waiting_.begin();
    const int computed = space_.Enter(id);
    GPTOSS_CHECK(computed < progress.tokens);
    // Prompts under way must find room to the end, or the newcomer would be thrown out half done. Some more is left,
    // for what those that decode will write next.
    constexpr int kMargin = 64;
    int64_t claimed = progress.tokens - computed + kMargin;
    for (const auto& [other, p] : running_) claimed += p.remaining() + kMargin;
    if (!running_.empty() && space_.FreeTokens() < claimed) {
      space_.Leave(id);
      return;
    }
    waiting_.erase(waiting_.begin());
    running_[id] = {progress.tokens, computed};
    step->entered.push_back(id);
  }
}

bool Scheduler::ReserveOrPreempt(uint64_t id, int count, Step* step) {
  while (!space_.Reserve(id, count)) {
    const uint64_t youngest = running_.rbegin()->first;
    Preempt(youngest, step);
    if (youngest == id) return false;
  }
  return true;
}

void Scheduler::Preempt(uint64_t id, Step* step) {
  const auto found = running_.find(id);
  waiting_[id] = {.tokens = found->second.tokens};
  running_.erase(found);
  space_.Leave(id);
  const auto planned = std::ranges::find(step->rows, id, &Rows::id);
  if (planned != step->rows.end()) {
    if (planned - step->rows.begin() < step->decode_rows) --step->decode_rows;
    step->rows.erase(planned);
  }
  // Who entered in this very step has not begun.
  if (std::erase(step->entered, id) == 0) step->preempted.push_back(id);
}

void Scheduler::AddRows(uint64_t id, int count, Step* step) {
  auto planned = std::ranges::find(step->rows, id, &Rows::id);
  if (planned == step->rows.end()) planned = step->rows.insert(planned, {id, 0, false});
  planned->count += count;
  planned->completes = planned->count == running_[id].remaining();
}

}  // namespace gptoss

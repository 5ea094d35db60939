// Which sequences advance by how many tokens at a step. Pure bookkeeping: no model, no clock, no threads.
//
// Ids are given out in the order of arrival, and the older one goes first in everything: it is admitted first, and when
// the cache is full, the youngest running sequence gives its place up and is computed anew later (after vLLM's
// recompute preemption, Kwon et al. 2023). So the oldest always gets on, every sequence is the oldest at some time, and
// every sequence ends.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace gptoss {

/// What the scheduler asks of the cache. Counts are in tokens.
class KvSpace {
 public:
  virtual ~KvSpace() = default;
  /// The sequence begins to run. Returns how many of its tokens are computed already (from a cache), less than all.
  virtual int Enter(uint64_t id) = 0;
  /// Makes room for `count` tokens after those computed. False: there is none, and nothing changed.
  virtual bool Reserve(uint64_t id, int count) = 0;
  /// The sequence, running until now, gives back all its room.
  virtual void Leave(uint64_t id) = 0;
  /// Tokens for which room can still be made.
  virtual int64_t FreeTokens() const = 0;
};

class Scheduler {
 public:
  struct Rows {
    uint64_t id;
    int count;       // tokens to compute, those after the computed
    bool completes;  // afterwards all known tokens are computed, and the next one can be sampled
  };
  struct Step {
    std::vector<Rows> rows;  // at most one entry a sequence; room has been made
    int decode_rows = 0;     // of them, those of sequences with one token to compute; they come first
    std::vector<uint64_t> entered, preempted;
  };

  /// `space` must outlive the scheduler.
  Scheduler(KvSpace* space, int max_running) : space_(*space), max_running_(max_running) {}

  /// A new sequence of `tokens` tokens, at least one; `id` is higher than all before.
  void Add(uint64_t id, int tokens);
  /// The sequence has ended, in whatever state it was.
  void Remove(uint64_t id);

  /// At most `max_rows` rows (but every decoding sequence gets its one), of which at most `max_prefill_rows` for
  /// prompts while anything decodes. Sequences that decode come first. Of what is left, the oldest prompt gets half or
  /// more, the shortest of the others the rest, so that a long prompt does not hold up short ones for long.
  Step Plan(int max_rows, int max_prefill_rows);
  /// The sequence now has `tokens` tokens, of which `computed` are computed.
  void Update(uint64_t id, int tokens, int computed);

  int running() const { return static_cast<int>(running_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }
  /// Of those running, how many have one token to compute.
  int decoding() const;
  bool IsRunning(uint64_t id) const { return running_.contains(id); }

 private:
  struct Progress {
    int tokens = 0, computed = 0;
    int remaining() const { return tokens - computed; }
  };
  /// Room for `count` tokens of a running sequence, if need be from younger ones.
  bool ReserveOrPreempt(uint64_t id, int count, Step* step);
  void Preempt(uint64_t id, Step* step);
  void PlanDecode(Step* step);
  void PlanPrefill(int budget, Step* step);
  void Admit(Step* step);
  /// Adds `count` rows to the sequence's entry, or a new entry.
  void AddRows(uint64_t id, int count, Step* step);

  KvSpace& space_;
  int max_running_;
  std::map<uint64_t, Progress> running_, waiting_;  // by age, oldest first
};

}  // namespace gptoss

// Runs an automaton: sets of positions, each with its stack of calls, are numbered as they occur, and so is every step
// between them; a grammar's states behave like those of a deterministic automaton that is made while it is used.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/automaton.h"
#include "grammar/id_table.h"
#include "grammar/token_trie.h"

namespace gptoss {

struct MachineLimits {
  size_t max_states = 2'000'000;  // about 100 bytes each
  size_t max_frames = 4'000'000;  // 12 bytes and a hash entry each
  size_t max_set = 2048;          // positions that one state may hold: bounds the work of a byte
  size_t max_rows = 32'768;       // 1 KB each; recomputed after being dropped
  size_t max_masks = 512;         // 25 KB each for 201088 tokens; recomputed after being dropped
  // Fewer tokens than these are walked about as fast as a table is applied, or as another state's mask is corrected.
  uint32_t min_for_table = 192;
  uint32_t min_for_difference = 4096;
};

/// A compiled grammar with what was learnt by using it; shared by all its matchers. Thread-safe.
class Machine {
 public:
  using StateId = uint32_t;
  static constexpr StateId kDead = 0;

  /// `tokens` may be null: then only bytes can be matched.
  static std::shared_ptr<Machine> Create(Automaton automaton, std::shared_ptr<const TokenIndex> tokens,
                                         const MachineLimits& limits = {});

  StateId start() const { return start_; }
  const TokenIndex& tokens() const { return *tokens_; }

  /// kDead when `bytes` cannot follow. On failure: kResourceExhausted past a limit.
  Result<StateId> Step(StateId state, std::string_view bytes);
  /// What was matched is a whole text of the grammar.
  bool Accepts(StateId state);
  /// Some byte may follow.
  bool CanContinue(StateId state);
  /// Sets the bit of every ordinary token that may follow and clears all others; `mask` has tokens().mask_words()
  /// words. On failure: kResourceExhausted past a limit; then `mask` is all zero.
  Status FillMask(StateId state, std::span<uint64_t> mask) { return FillMaskWithin(state, mask, kUnbounded, nullptr); }
  /// The same, but only tokens after which Need() is at most `most_need`; `*narrowed` says whether that left any out.
  Status FillMaskWithin(StateId state, std::span<uint64_t> mask, uint32_t most_need, bool* narrowed);
  /// Bytes of the shortest text that completes what was matched; 0 where Accepts. UINT32_MAX is not exact.
  uint32_t Need(StateId state);
  /// A token raises Need by less than this, short of one that opens more than 16 of the grammar's longest parts.
  uint32_t NeedStep();
  /// The bytes that must follow, as far as there is only one choice, at most `limit` of them.
  Result<std::string> ForcedBytes(StateId state, size_t limit);

  struct Counters {
    size_t states = 0, frames = 0, rows = 0, walks = 0, walked_nodes = 0;
  };
  Counters counters();

 private:
  struct Config {
    uint32_t node;
    uint32_t frame;
    auto operator<=>(const Config&) const = default;
  };
  struct Frame {
    uint32_t call;
    uint32_t count;
    uint32_t parent;
    bool operator==(const Frame&) const = default;
  };
  struct State {
    uint64_t begin;
    uint32_t size;
    bool accepts;
    bool has_unit;  // some position is inside a repetition whose tokens are known beforehand
    int32_t row = -1;
    int32_t mask = -1;
  };
  struct Unit {
    int32_t id = -1;              // in the TokenIndex
    uint32_t first = 0;           // lowest node of the rule
    std::vector<int32_t> number;  // automaton node - first -> unit node, -1: none
  };
  using Row = std::array<StateId, 256>;
  /// What is known of an automaton's node.
  struct NodeKind {
    bool plain = false;     // bytes only: a position at it is its own closure
    bool disjoint = false;  // no two of its byte edges share a byte
  };
  /// Membership for the few items of one closure.
  class SmallSet {
   public:
    void Clear();
    /// False when it was there.
    bool Add(uint64_t item);
    bool Contains(uint64_t item) const;

   private:
    std::vector<uint64_t> items_;  // the first ones
    IdTable table_;                // all of them, by their places in `items_`, once they are many
    bool many_ = false;
  };
  /// Tokens that lead on from a state, and the largest need after one of them (kUnbounded: not known).
  struct WalkedMask {
    std::vector<uint64_t> bits;
    StateId owner = kDead;
    uint32_t longest = kUnbounded;
  };
  struct TriePlace {
    uint32_t node = 0;
    uint8_t depth = 0;  // bytes before it
  };
  struct KnownPair {
    StateId a, b;
    bool alike;
  };

  Machine(Automaton automaton, std::shared_ptr<const TokenIndex> tokens, const MachineLimits& limits);
  void PrepareNodes();
  void PrepareUnits();
  // machine.cc: states and the steps between them.
  uint32_t InternFrame(const Frame& frame);
  StateId StateOf(std::span<const Config> positions);
  void Close(std::span<const Config> positions, bool* accepts);
  StateId InternState(std::span<const Config> configs, bool accepts);
  const Row& RowOf(StateId state);
  void ComputeRow(StateId state, Row* row);
  void ComputeMixedRow(const State& state, Row* row);
  void TrimRows();
  Status Failure();
  // machine_mask.cc: the tokens that may follow.
  void AddMask(StateId state, std::span<uint64_t> mask, uint32_t most_need, bool by_difference);
  bool AddUnits(StateId state, TriePlace at, std::span<uint64_t> mask, uint32_t most_need, std::vector<Config>* rest);
  void AddWalk(StateId state, TriePlace from, std::span<uint64_t> mask, uint32_t most_need);
  void AddDifference(StateId state, StateId base, std::span<uint64_t> mask);
  StateId BaseOf(StateId state);
  bool Alike(StateId a, StateId b, int depth, std::vector<KnownPair>* known);
  const WalkedMask* CachedWalk(StateId state, bool by_difference);
  bool AddUnit(const Config& config, TriePlace at, std::span<uint64_t> mask, uint32_t most_need);
  void AddExits(const UnitTokens::Exits& exits, const Frame& frame, StateId after, std::span<uint64_t> mask,
                uint32_t most_need);
  static void AddInside(const UnitTokens& inside, uint64_t room, std::span<uint64_t> mask);
  int32_t UnitNode(const Config& config) const;
  template <typename OnNode>
  void WalkTrie(const FlatTrie& trie, TriePlace from, StateId state, const OnNode& on_node);
  // machine_need.cc: shortest ends.
  void PrepareNeeds();
  uint32_t NeedOf(StateId state);
  bool Within(StateId state, uint32_t most_need);
  uint32_t NeedInside(const Config& config);

  const Automaton automaton_;
  const std::shared_ptr<const TokenIndex> tokens_;
  const MachineLimits limits_;
  std::vector<Unit> units_;      // by rule
  std::vector<NodeKind> kinds_;  // by node

  std::mutex mutex_;
  std::vector<Frame> frames_;
  IdTable frame_ids_;
  std::vector<Config> configs_;
  std::vector<State> states_;
  IdTable state_ids_;
  std::vector<std::unique_ptr<Row>> rows_;
  std::vector<WalkedMask> masks_;
  StateId start_ = kDead;
  bool overflow_ = false;
  Counters counters_;
  // Bytes of shortest completions, made when they are first asked for: of a node to the end of its rule, of a whole
  // rule, of a frame's rest after the rule that it called, of a state.
  std::vector<uint32_t> node_need_, rule_need_, frame_need_, state_need_;
  uint32_t longest_need_ = 0;  // of a node
  bool narrowed_ = false;      // in some way to read the text a token was left out for its need
  uint32_t seen_need_ = 0;     // the largest need met since it was set to 0
  // Kept between calls for their memory.
  SmallSet visited_, entered_;
  std::vector<Config> work_, closed_;
};

/// One sequence's place in a grammar: cheap to copy, and any number of tokens can be taken back.
class Matcher {
 public:
  explicit Matcher(std::shared_ptr<Machine> machine) : machine_(std::move(machine)), states_{machine_->start()} {}

  /// False, and nothing happens, when `token` cannot follow (special tokens never can).
  /// On failure: kResourceExhausted past a limit of the machine; nothing happens.
  Result<bool> Accept(TokenId token);
  /// The same for bytes; they count as one step for Rollback.
  Result<bool> AcceptBytes(std::string_view bytes);
  /// Takes the last `n` accepted steps back; n <= steps().
  void Rollback(size_t n);
  size_t steps() const { return states_.size() - 1; }

  /// See Machine::FillMask. A complete text that nothing can follow gives an empty mask.
  Status FillMask(std::span<uint64_t> mask) const { return machine_->FillMask(states_.back(), mask); }
  /// What was accepted is a whole text of the grammar; more may still be able to follow.
  bool IsComplete() const { return machine_->Accepts(states_.back()); }
  bool CanContinue() const { return machine_->CanContinue(states_.back()); }
  /// Tokens that spell what must come next, to be taken without asking the model; empty where there is a choice. The
  /// last token of a forced text is left to the model unless the text ends the grammar, since it may be part of a
  /// longer one.
  Result<std::vector<TokenId>> ForcedTokens() const;

  const std::shared_ptr<Machine>& machine() const { return machine_; }

 private:
  std::shared_ptr<Machine> machine_;
  std::vector<Machine::StateId> states_;
};

}  // namespace gptoss

// Prompt-lookup speculation: what followed the last tokens when they occurred before is proposed as what follows now,
// and one forward pass over all proposed tokens tells how many of them plain decoding would have given. Sources:
// Leviathan et al., "Fast inference from transformers via speculative decoding" (2023); Saxena, "Prompt lookup
// decoding" (2023). Here the sampler draws every position's token from the same random number as without proposals, so
// the tokens are the same, not merely distributed alike.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace gptoss {

struct Proposal {
  std::vector<int32_t> tokens;
  int matched = 0;  // tokens at the end of the history that had occurred before
};

/// Looks for the longest (2 to 4 tokens), and among those the latest, earlier occurrence of the end of `history`, and
/// proposes what came after it; `count` tokens, or none at all. A repetition that reaches the end is continued.
Proposal ProposeFromHistory(std::span<const int32_t> history, int count);

struct SpeculationOptions {
  /// Most tokens proposed for one pass; 0 is off. More than RunnerOptions::rewind_tokens, than fit into one forward
  /// pass, or than leave every row as it would be alone (Ops::invariant_rows), are not proposed.
  int max_tokens = 0;
  /// False: proposes whenever something is found, whether or not it pays.
  bool adaptive = true;
  /// Where proposals come from. Any tokens are legal: wrong ones cost time only.
  std::function<Proposal(std::span<const int32_t> history, int count)> propose = ProposeFromHistory;
};

/// Decides how many tokens to propose, from what passes have cost and how many proposals held so far. Time is counted
/// in plain steps. A pass with proposals risks the extra time that it takes; that risk must be covered by a reserve,
/// which grows by 1 % of the plain steps and by half of what proposals have saved. So speculation that never pays costs
/// at most 1 % of the decoding time and half a step, and tries again from time to time.
class SpeculationController {
 public:
  explicit SpeculationController(int max_tokens);

  /// Tokens worth proposing when the last `matched` tokens occurred before; 0: a plain step is better.
  int Choose(int matched);
  /// A step without proposals took `seconds`.
  void OnPlainStep(double seconds);
  /// A pass over `proposed` tokens besides the one that was due took `seconds`, and `accepted` of them held.
  void OnSpeculativePass(int matched, int proposed, int accepted, double seconds);

  double reserve() const { return reserve_; }

 private:
  struct Acceptance {
    double prior, held, failed;
    double rate() const { return held / (held + failed); }
    void Relax(double keep);
  };
  Acceptance& AcceptanceOf(int matched);
  /// Plain steps that `proposed` tokens add to a pass.
  double ExtraCost(int proposed) const;

  int max_tokens_;
  double plain_seconds_ = 0;              // of one step; 0: not known yet
  std::vector<double> extra_;             // by proposed tokens, as measured; negative: not known yet
  std::array<Acceptance, 3> acceptance_;  // by tokens matched: 2, 3, 4
  double reserve_;
};

}  // namespace gptoss

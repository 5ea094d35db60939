// How many rows a step may have, from what steps have cost so far.
#pragma once

namespace gptoss {

/// Fits seconds = fixed + per_row * rows to recent steps, older ones counting less and less.
class StepBudget {
 public:
  /// `max_rows` bounds every answer of MaxRows.
  explicit StepBudget(int max_rows) : max_rows_(max_rows) {}

  void OnStep(int rows, double seconds);

  /// Rows for a step in which nothing decodes: few enough that a new request, or a cancellation, is soon looked at.
  int MaxRows() const;
  /// Rows of prompts beside `decode_rows` decoding sequences, at least one: so many that the step takes about
  /// kStretch times as long as without them.
  int MaxPrefillRows(int decode_rows) const;

 private:
  /// False while too little is known.
  bool Fit(double* fixed, double* per_row) const;

  /// A token may come so much later than usual because of other people's prompts. Prompts then get (kStretch - 1) /
  /// kStretch of the time.
  static constexpr double kStretch = 2.0;
  static constexpr double kLongestStep = 4.0;  // seconds
  static constexpr double kKeep = 0.97;        // weight of the past, per step

  int max_rows_;
  double weight_ = 0, rows_ = 0, seconds_ = 0, rows_rows_ = 0, rows_seconds_ = 0;  // weighted sums
};

}  // namespace gptoss

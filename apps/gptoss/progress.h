// A progress bar on stderr: redrawn in place on a terminal, an occasional plain line elsewhere, nothing when quiet.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace gptoss::cli {

/// "0 B", "999 B", "1.5 kB", "13.76 GB": decimal units, as disks and networks are sold.
std::string FormatBytes(double bytes);
/// "0:09", "1:05", "2:03:04"; "-:--" when not finite or above 99 hours.
std::string FormatDuration(double seconds);

/// Units per second over the last seconds, so that a stall shows and an early burst is forgotten.
class RateMeter {
 public:
  explicit RateMeter(double window_s = 10.0) : window_s_(window_s) {}
  /// `now_s` must not go back. A `done` below the last one (a download started over) begins the measurement anew.
  void Add(double now_s, uint64_t done);
  /// 0 until two samples are known.
  double PerSecond() const;

 private:
  double window_s_;
  std::deque<std::pair<double, uint64_t>> samples_;
};

enum class ProgressUnit : uint8_t { kBytes, kCount };

struct ProgressState {
  std::string label;
  uint64_t done = 0;
  uint64_t total = 0;  // 0: not known; then there is no bar and no time left
  double per_second = 0;
  std::string detail;  // e.g. "3/9 files"
  ProgressUnit unit = ProgressUnit::kBytes;
};

enum class ProgressStyle : uint8_t { kText, kBar, kColourBar };

/// One line without line end, at most `columns` characters (ANSI colour, if any, not counted): label, bar, percent,
/// done of total, rate, time left, detail. What does not fit is left out: the detail, the bar, then the rest from the
/// right.
std::string RenderProgress(const ProgressState& state, int columns, ProgressStyle style);

/// Thread-safe. A terminal is one that stderr is connected to and TERM does not call "dumb"; NO_COLOR drops the colour.
class ProgressBar {
 public:
  ProgressBar(std::string label, uint64_t total, ProgressUnit unit, bool quiet);
  ProgressBar(const ProgressBar&) = delete;
  /// Removes the bar from the terminal.
  ~ProgressBar();

  void Update(uint64_t done, std::string_view detail = {});
  void SetTotal(uint64_t total);
  /// Prints a line of its own, above the bar; also without a terminal, but not when quiet.
  void Note(std::string_view line);
  /// Removes the bar; without a terminal, prints the final state once if there was anything to show.
  void Finish();

 private:
  void Draw(double now_s);
  void Erase();
  double Now() const;

  std::mutex mutex_;
  ProgressState state_;
  RateMeter rate_;
  bool quiet_, terminal_;
  ProgressStyle style_;
  bool drawn_ = false, finished_ = false;
  double last_draw_s_ = 0;
};

}  // namespace gptoss::cli

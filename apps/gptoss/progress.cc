#include "progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/utf8.h"

namespace gptoss::cli {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kPlainLineSeconds = 15.0;
constexpr int kMinBar = 10, kMaxBar = 40, kPlainColumns = 160;
constexpr char kGreen[] = "\x1b[32m", kPlain[] = "\x1b[0m", kEraseLine[] = "\r\x1b[2K";

bool EnvironmentIs(const char* name, std::string_view value) {
  const char* text = std::getenv(name);
  return text != nullptr && text == value;
}

std::string Amount(double value, ProgressUnit unit) {
  if (unit == ProgressUnit::kBytes) return FormatBytes(value);
  char text[32];
  std::snprintf(text, sizeof(text), value < 10 && value != std::floor(value) ? "%.1f" : "%.0f", value);
  return text;
}

int Characters(std::string_view utf8) {
  return static_cast<int>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// The first `count` characters.
std::string Cut(std::string_view text, int count) {
  size_t bytes = 0;
  for (; count > 0 && bytes < text.size(); --count) bytes += DecodeUtf8(text.substr(bytes)).length;
  return std::string(text.substr(0, bytes));
}

int TerminalColumns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

std::string FormatBytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  // 999.95 would be printed as 1000.0; the next unit begins there.
  for (; unit < 4 && bytes >= (unit == 0 ? 999.5 : 999.95); ++unit) bytes /= 1000;
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : unit < 3 ? "%.1f %s" : "%.2f %s", bytes, kUnits[unit]);
  return text;
}

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds >= 99.0 * 3600) return "-:--";
  const int total = static_cast<int>(std::lround(seconds));
  char text[32];
  if (total >= 3600) {
    std::snprintf(text, sizeof(text), "%d:%02d:%02d", total / 3600, total / 60 % 60, total % 60);
  } else {
    std::snprintf(text, sizeof(text), "%d:%02d", total / 60, total % 60);
  }
  return text;
}

void RateMeter::Add(double now_s, uint64_t done) {
  if (!samples_.empty() && done < samples_.back().second) samples_.clear();
  samples_.emplace_back(now_s, done);
  // One sample at or before the beginning of the window stays, so that the window is always covered.
  while (samples_.size() > 2 && samples_[1].first <= now_s - window_s_) samples_.pop_front();
}

double RateMeter::PerSecond() const {
  if (samples_.size() < 2) return 0;
  const double elapsed = samples_.back().first - samples_.front().first;
  return elapsed > 0 ? static_cast<double>(samples_.back().second - samples_.front().second) / elapsed : 0;
}

std::string RenderProgress(const ProgressState& state, int columns, ProgressStyle style) {
  std::vector<std::string> parts;  // most important first
  const double done = static_cast<double>(state.done), total = static_cast<double>(state.total);
  const double fraction = state.total == 0 ? 0 : std::min(1.0, done / total);
  if (state.total > 0) {
    char percent[16];
    // Down, so that 100 % is said only of what is complete.
    std::snprintf(percent, sizeof(percent), "%3d%%", static_cast<int>(std::floor(fraction * 100)));
    parts.push_back(percent);
    parts.push_back(Amount(done, state.unit) + " of " + Amount(total, state.unit));
  } else {
    parts.push_back(Amount(done, state.unit));
  }
  if (state.per_second > 0) {
    parts.push_back(Amount(state.per_second, state.unit) + "/s");
    if (state.total > state.done) parts.push_back(FormatDuration((total - done) / state.per_second) + " left");
  }

  std::string line = Cut(state.label, columns), tail;
  for (const std::string& part : parts) {
    if (Characters(line) + Characters(tail) + 2 + Characters(part) > columns) break;
    tail += "  " + part;
  }
  const bool bar = style != ProgressStyle::kText && state.total > 0;
  int room = columns - Characters(line) - Characters(tail) - 4;  // two spaces and two brackets
  const int detail = state.detail.empty() ? 0 : Characters(state.detail) + 2;
  if (detail > 0 && room + 4 - detail >= (bar ? kMinBar + 4 : 0)) {  // the bar says more than the detail
    tail += "  " + state.detail;
    room -= detail;
  }
  if (bar && room >= kMinBar) {
    const bool colour = style == ProgressStyle::kColourBar;
    const int width = std::min(room, kMaxBar);
    const int filled = static_cast<int>(std::floor(fraction * width));
    line += "  [" + std::string(colour ? kGreen : "") + std::string(static_cast<size_t>(filled), '#') +
            (colour ? kPlain : "") + std::string(static_cast<size_t>(width - filled), '-') + "]";
  }
  return line + tail;
}

ProgressBar::ProgressBar(std::string label, uint64_t total, ProgressUnit unit, bool quiet)
    : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1 && !EnvironmentIs("TERM", "dumb")) {
  const char* no_color = std::getenv("NO_COLOR");  // https://no-color.org: set and not empty
  const bool colour = no_color == nullptr || no_color[0] == '\0';
  style_ = !terminal_ ? ProgressStyle::kText : colour ? ProgressStyle::kColourBar : ProgressStyle::kBar;
  state_.label = std::move(label);
  state_.total = total;
  state_.unit = unit;
  last_draw_s_ = Now();
}

ProgressBar::~ProgressBar() { Finish(); }

double ProgressBar::Now() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void ProgressBar::SetTotal(uint64_t total) {
  const std::lock_guard lock(mutex_);
  state_.total = total;
}

void ProgressBar::Update(uint64_t done, std::string_view detail) {
  const std::lock_guard lock(mutex_);
  if (quiet_ || finished_) return;
  const double now = Now();
  state_.done = done;
  state_.detail = detail;
  rate_.Add(now, done);
  if (now - last_draw_s_ >= (terminal_ ? kRedrawSeconds : kPlainLineSeconds)) Draw(now);
}

void ProgressBar::Draw(double now_s) {
  last_draw_s_ = now_s;
  drawn_ = true;
  state_.per_second = rate_.PerSecond();
  // One column less than the terminal has: some wrap when the last one is written.
  const int columns = terminal_ ? TerminalColumns() - 1 : kPlainColumns;
  const std::string line = RenderProgress(state_, columns, style_);
  std::fprintf(stderr, terminal_ ? "\r\x1b[2K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
}

void ProgressBar::Erase() {
  if (!terminal_ || !drawn_) return;
  std::fputs(kEraseLine, stderr);
  std::fflush(stderr);
}

void ProgressBar::Note(std::string_view line) {
  const std::lock_guard lock(mutex_);
  if (quiet_) return;
  Erase();
  std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  if (terminal_ && drawn_ && !finished_) Draw(Now());
}

void ProgressBar::Finish() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(finished_, true) || quiet_) return;
  if (terminal_) {
    Erase();
  } else if (drawn_) {
    Draw(Now());
  }
}

}  // namespace gptoss::cli

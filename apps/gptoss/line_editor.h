// A line editor with a history file, over libedit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace gptoss::cli {

/// Makes SIGINT set a flag instead of ending the process, for as long as it lives. One at a time.
class InterruptFlag {
 public:
  InterruptFlag();
  ~InterruptFlag();
  InterruptFlag(const InterruptFlag&) = delete;

  static bool IsSet();
  static void Clear();
};

/// Needs an InterruptFlag alive. Sets the character type locale to UTF-8 if none is set.
class LineEditor {
 public:
  /// `history_file` may be empty: nothing is kept. A folder that is missing is made; a file that cannot be read or
  /// written is no error.
  explicit LineEditor(std::string history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;

  enum class Outcome : uint8_t {
    kLine,
    kInterrupted,       // Ctrl-C after something was typed: the line is forgotten
    kInterruptedEmpty,  // Ctrl-C on an empty line
    kEnd,               // Ctrl-D on an empty line, or the terminal is gone
  };
  /// Reads one line, without its line end, into `line`. What was pasted, or comes from the history, may have line ends
  /// within.
  Outcome Read(const std::string& prompt, std::string* line);
  /// Adds an entry, which may have several lines, to the history and its file.
  void Remember(const std::string& entry);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// $XDG_STATE_HOME/gptoss/history or ~/.local/state/gptoss/history; empty without a home.
std::string DefaultHistoryFile();

}  // namespace gptoss::cli

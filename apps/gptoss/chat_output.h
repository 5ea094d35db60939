// How an answer looks: sections for thinking, answering and tool calls, on a terminal or as plain text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace gptoss::cli {

enum class AnswerPart : uint8_t { kReasoning, kAnswer, kToolCall };

/// `text` with control characters made visible: C0 except newline and tab, DEL, and C1 (which terminals obey in UTF-8,
/// too), as \x1b or \u009b; bytes that are not UTF-8 as \x followed by two digits. What a model wrote must not move the
/// cursor, change the title or answer for the user.
std::string EscapeControls(std::string_view text);

struct AnswerStyle {
  bool terminal = false;  // controls are escaped
  bool colour = false;
  bool show_reasoning = false;
};

/// Whether colour is wanted on the stream `fd`: a terminal, TERM not "dumb", NO_COLOR unset or empty.
bool WantsColour(int fd);

/// Writes the parts of one answer to `sink`, in the order in which they come. Reasoning is dim under a label where
/// there is colour, else every line of it begins with "[reasoning] "; when it is not shown, nothing of it is written.
class AnswerPrinter {
 public:
  AnswerPrinter(AnswerStyle style, std::function<void(std::string_view)> sink)
      : style_(style), sink_(std::move(sink)) {}

  /// True when Text(part, …) writes anything.
  bool Shows(AnswerPart part) const { return part != AnswerPart::kReasoning || style_.show_reasoning; }
  /// A new message of `part` begins; `recipient` names the tool of a call.
  void Begin(AnswerPart part, std::string_view recipient);
  void Text(std::string_view text);
  /// Ends the answer: closes what is open and ends the last line.
  void Finish();

  bool wrote_anything() const { return wrote_; }

 private:
  void OpenPart();
  void EndPart();
  void Write(std::string_view text);

  AnswerStyle style_;
  std::function<void(std::string_view)> sink_;
  AnswerPart part_ = AnswerPart::kAnswer;
  bool begun_ = false;  // Begin was called, nothing was written of the part yet
  bool open_ = false;   // something of the part has been written
  bool wrote_ = false;
  bool at_line_start_ = true;
  std::string label_;
};

}  // namespace gptoss::cli

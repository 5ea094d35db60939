#include "chat_output.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/utf8.h"

namespace gptoss::cli {
namespace {

constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kNormal = "\x1b[22m";
constexpr std::string_view kPrefix = "[reasoning] ";

void AppendEscape(const char* format, unsigned value, std::string* out) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, format, value);
  *out += buffer;
}

}  // namespace

std::string EscapeControls(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text);
    const bool control = c.code_point < 0x20 ? c.code_point != '\n' && c.code_point != '\t'
                                             : c.code_point >= 0x7F && c.code_point < 0xA0;
    if (!c.valid) {
      AppendEscape("\\x%02x", static_cast<unsigned char>(text[0]), &out);
    } else if (control) {
      AppendEscape(c.code_point < 0x80 ? "\\x%02x" : "\\u%04x", c.code_point, &out);
    } else {
      out += text.substr(0, c.length);
    }
    text.remove_prefix(c.length);
  }
  return out;
}

bool WantsColour(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(fd) == 1 && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::string_view(term) != "dumb");
}

void AnswerPrinter::Begin(AnswerPart part, std::string_view recipient) {
  EndPart();
  part_ = part;
  begun_ = true;
  label_.clear();
  if (part == AnswerPart::kReasoning && style_.colour) label_ = "Thinking";
  if (part == AnswerPart::kToolCall) {
    label_ = "[call to " + EscapeControls(recipient) + "]";
  }
}

void AnswerPrinter::OpenPart() {
  // Parts are set apart by an empty line.
  if (wrote_) sink_("\n");
  if (style_.colour && part_ != AnswerPart::kAnswer) sink_(kDim);
  if (!label_.empty()) sink_(label_ + "\n");
  begun_ = false;
  open_ = wrote_ = at_line_start_ = true;
}

void AnswerPrinter::Text(std::string_view text) {
  if (text.empty() || !Shows(part_)) return;
  if (begun_) OpenPart();
  Write(style_.terminal ? EscapeControls(text) : std::string(text));
}

void AnswerPrinter::Write(std::string_view text) {
  if (part_ == AnswerPart::kReasoning && !style_.colour) {
    std::string prefixed;
    for (char c : text) {
      if (at_line_start_) prefixed += kPrefix;
      prefixed += c;
      at_line_start_ = c == '\n';
    }
    sink_(prefixed);
    return;
  }
  at_line_start_ = text.back() == '\n';
  sink_(text);
}

void AnswerPrinter::EndPart() {
  // A call says whom it calls even when it says nothing else.
  if (begun_ && part_ == AnswerPart::kToolCall) OpenPart();
  begun_ = false;
  if (!open_) return;
  open_ = false;
  if (style_.colour && part_ != AnswerPart::kAnswer) sink_(kNormal);
  if (!at_line_start_) sink_("\n");
  at_line_start_ = true;
}

void AnswerPrinter::Finish() { EndPart(); }

}  // namespace gptoss::cli

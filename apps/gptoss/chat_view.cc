#include "chat_view.h"

#include <cstdio>

namespace gptoss::cli {

AnswerView::AnswerView(AnswerStyle style, bool status)
    : status_(status), printer_(style, [](std::string_view text) {
        std::fwrite(text.data(), 1, text.size(), stdout);
        std::fflush(stdout);
      }) {}

void AnswerView::OnPart(AnswerPart part, std::string_view recipient) {
  in_part_ = true;
  visible_ = printer_.Shows(part);
  printer_.Begin(part, recipient);
}

void AnswerView::OnText(std::string_view text) {
  if (!visible_) return;
  EraseStatus();
  printer_.Text(text);
}

void AnswerView::OnToken(int tokens) {
  constexpr auto kInterval = std::chrono::milliseconds(200);
  const auto now = std::chrono::steady_clock::now();
  if (!status_ || (in_part_ && visible_) || now - last_status_ < kInterval) return;
  last_status_ = now;
  status_shown_ = true;
  if (tokens == 0) {
    std::fputs("\r\x1b[Kreading…", stderr);
  } else {
    std::fprintf(stderr, "\r\x1b[Kthinking… %d tokens", tokens);
  }
  std::fflush(stderr);
}

void AnswerView::EraseStatus() {
  if (!status_shown_) return;
  status_shown_ = false;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void AnswerView::Finish() {
  EraseStatus();
  printer_.Finish();
}

}  // namespace gptoss::cli

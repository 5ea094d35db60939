// Shows an answer on stdout while it is made, with a word on stderr while nothing can be shown.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "chat_answer.h"
#include "chat_output.h"

namespace gptoss::cli {

class AnswerView : public AnswerListener {
 public:
  /// `status`: say on the terminal of stderr that the model reads or thinks.
  AnswerView(AnswerStyle style, bool status);

  void OnPart(AnswerPart part, std::string_view recipient) override;
  void OnText(std::string_view text) override;
  /// So many tokens have been sampled.
  void OnToken(int tokens);
  void Finish();

 private:
  void EraseStatus();

  bool status_;
  bool status_shown_ = false;
  std::chrono::steady_clock::time_point last_status_{};
  bool visible_ = false;  // text of the current part is shown
  bool in_part_ = false;
  AnswerPrinter printer_;
};

}  // namespace gptoss::cli

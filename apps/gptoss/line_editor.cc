#include "line_editor.h"

#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>

#include "base/utf8.h"

namespace gptoss::cli {
namespace {

std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler stores to it");
struct sigaction g_previous {};

constexpr int kHistoryEntries = 1000;

/// What a pasted line end looks like while it is edited; libedit's lines have none.
constexpr wchar_t kLineEndSign = L'\u23ce';
constexpr wchar_t kQuoteNext = 0x16;  // Ctrl-V: libedit inserts the next character, whatever it is

/// The keyboard as libedit is to see it. Terminals put what is pasted between two sequences ("bracketed paste"), so
/// that a line end in it does not send the message.
class Keyboard {
 public:
  void BeginLine() {
    pending_.clear();
    in_paste_ = pasted_ = false;
  }
  /// The line being read got several lines at once.
  bool pasted() const { return pasted_; }

  /// 1 with a character, 0 at the end, -1 when interrupted or broken.
  int Next(wchar_t* character) {
    for (;;) {
      if (!pending_.empty()) {
        *character = pending_.front();
        pending_.pop_front();
        return 1;
      }
      wchar_t c = 0;
      if (const int n = Decode(&c); n <= 0) return n;
      if (c == kEscape) {
        if (const int n = ReadSequence(); n <= 0) return n;
      } else if (!in_paste_) {
        pending_.push_back(c);
      } else {
        Paste(c);
      }
    }
  }

 private:
  static constexpr wchar_t kEscape = 0x1b;
  static constexpr int kSequenceWaitMs = 50;  // how long a lone Escape is not sure to be one

  /// One byte, waiting in short steps so that a signal between the test and the wait is not missed.
  static int ReadByte(char* byte) {
    for (;;) {
      if (InterruptFlag::IsSet()) {
        errno = EINTR;
        return -1;
      }
      if (!HasInput(100)) continue;
      const ssize_t n = ::read(STDIN_FILENO, byte, 1);
      if (n >= 0) return static_cast<int>(n);
      if (errno != EINTR && errno != EAGAIN) return errno == EIO ? 0 : -1;
    }
  }
  static bool HasInput(int wait_ms) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    return ::poll(&input, 1, wait_ms) > 0;
  }

  static int Decode(wchar_t* character) {
    std::string bytes;
    for (;;) {
      char byte;
      if (const int n = ReadByte(&byte); n <= 0) return n;
      bytes += byte;
      const Utf8Char c = DecodeUtf8(bytes);
      if (!c.valid && CompleteUtf8Prefix(bytes) < bytes.size()) continue;  // the start of a character
      *character = static_cast<wchar_t>(c.code_point);
      return 1;
    }
  }

  /// After Escape: the begin or end of a paste, or keys for libedit.
  int ReadSequence() {
    const std::wstring marker = in_paste_ ? L"\x1b[201~" : L"\x1b[200~";
    std::wstring read(1, kEscape);
    while (read.size() < marker.size() && HasInput(kSequenceWaitMs)) {
      wchar_t c = 0;
      if (const int n = Decode(&c); n <= 0) return n;
      read += c;
      if (c != marker[read.size() - 1]) break;
    }
    if (read == marker) {
      in_paste_ = !in_paste_;
    } else if (in_paste_) {
      for (wchar_t c : read) Paste(c);
    } else {
      pending_.insert(pending_.end(), read.begin(), read.end());
    }
    return 1;
  }

  /// Nothing that is pasted acts as a key.
  void Paste(wchar_t c) {
    if (c == L'\r' || c == L'\n') {
      pasted_ = true;
      pending_.push_back(kLineEndSign);
      return;
    }
    if (c < 0x20 || c == 0x7f) pending_.push_back(kQuoteNext);
    pending_.push_back(c);
  }

  std::deque<wchar_t> pending_;
  bool in_paste_ = false, pasted_ = false;
};

Keyboard g_keyboard;

int ReadCharacter(EditLine*, wchar_t* character) { return g_keyboard.Next(character); }

}  // namespace

InterruptFlag::InterruptFlag() {
  Clear();
  struct sigaction action {};
  action.sa_handler = [](int) { g_interrupted.store(true); };
  ::sigaction(SIGINT, &action, &g_previous);
}
InterruptFlag::~InterruptFlag() { ::sigaction(SIGINT, &g_previous, nullptr); }
bool InterruptFlag::IsSet() { return g_interrupted.load(); }
void InterruptFlag::Clear() { g_interrupted.store(false); }

struct LineEditor::Impl {
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
  std::string history_file, prompt;
  std::FILE* out = nullptr;
  bool bracketed_paste = false;

  void SetBracketedPaste(bool on) const {
    if (!bracketed_paste) return;
    std::fputs(on ? "\x1b[?2004h" : "\x1b[?2004l", out);
    std::fflush(out);
  }

  static char* Prompt(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return static_cast<Impl*>(self)->prompt.data();
  }
};

LineEditor::LineEditor(std::string history_file) : impl_(std::make_unique<Impl>()) {
  if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX < 4) std::setlocale(LC_CTYPE, "C.UTF-8");
  impl_->history_file = std::move(history_file);
  impl_->history = history_init();
  history(impl_->history, &impl_->event, H_SETSIZE, kHistoryEntries);
  history(impl_->history, &impl_->event, H_SETUNIQUE, 1);
  if (!impl_->history_file.empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(impl_->history_file).parent_path(), ignored);
    history(impl_->history, &impl_->event, H_LOAD, impl_->history_file.c_str());
  }
  impl_->out = ::isatty(STDOUT_FILENO) == 1 ? stdout : stderr;
  const char* term = std::getenv("TERM");
  impl_->bracketed_paste = ::isatty(::fileno(impl_->out)) == 1 && term != nullptr && std::string_view(term) != "dumb";
  impl_->editor = el_init("gptoss", stdin, impl_->out, stderr);
  el_set(impl_->editor, EL_CLIENTDATA, impl_.get());
  el_set(impl_->editor, EL_PROMPT, &Impl::Prompt);
  el_set(impl_->editor, EL_EDITOR, "emacs");
  el_set(impl_->editor, EL_HIST, history, impl_->history);
  el_set(impl_->editor, EL_GETCFN, &ReadCharacter);
  // Ctrl-R and word movement, as elsewhere.
  el_set(impl_->editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(impl_->editor, EL_BIND, "\\e[1;5C", "em-next-word", nullptr);
  el_set(impl_->editor, EL_BIND, "\\e[1;5D", "ed-prev-word", nullptr);
}

LineEditor::~LineEditor() {
  el_end(impl_->editor);
  history_end(impl_->history);
}

LineEditor::Outcome LineEditor::Read(const std::string& prompt, std::string* line) {
  impl_->prompt = prompt;
  InterruptFlag::Clear();
  g_keyboard.BeginLine();
  impl_->SetBracketedPaste(true);
  int length = 0;
  const char* text = el_gets(impl_->editor, &length);
  impl_->SetBracketedPaste(false);
  if (InterruptFlag::IsSet()) {
    const LineInfo* info = el_line(impl_->editor);
    const bool empty = info->lastchar == info->buffer;
    InterruptFlag::Clear();
    el_reset(impl_->editor);
    std::fputs("\n", impl_->out);
    std::fflush(impl_->out);
    return empty ? Outcome::kInterruptedEmpty : Outcome::kInterrupted;
  }
  if (text == nullptr || length <= 0) return Outcome::kEnd;
  line->assign(text, static_cast<size_t>(length));
  if (line->ends_with('\n')) line->pop_back();
  if (g_keyboard.pasted()) {
    constexpr std::string_view kSign = "\u23ce";
    for (size_t at = 0; (at = line->find(kSign, at)) != std::string::npos; ++at) line->replace(at, kSign.size(), "\n");
  }
  return Outcome::kLine;
}

void LineEditor::Remember(const std::string& entry) {
  if (entry.empty()) return;
  history(impl_->history, &impl_->event, H_ENTER, entry.c_str());
  if (impl_->history_file.empty()) return;
  // What people ask is theirs: the file is readable by nobody else.
  const mode_t previous = ::umask(0077);
  history(impl_->history, &impl_->event, H_SAVE, impl_->history_file.c_str());
  ::umask(previous);
}

std::string DefaultHistoryFile() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return std::string(state) + "/gptoss/history";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.local/state/gptoss/history" : "";
}

}  // namespace gptoss::cli

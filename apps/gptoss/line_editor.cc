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
#include <filesystem>

#include "base/utf8.h"

namespace gptoss::cli {
namespace {

std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler stores to it");
struct sigaction g_previous {};

constexpr int kHistoryEntries = 1000;

/// One byte, waiting in short steps so that a signal between the test and the wait is not missed. 1, 0 at the end,
/// -1 when interrupted or broken.
int ReadByte(char* byte) {
  for (;;) {
    if (InterruptFlag::IsSet()) {
      errno = EINTR;
      return -1;
    }
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, 100) <= 0) continue;
    const ssize_t n = ::read(STDIN_FILENO, byte, 1);
    if (n >= 0) return static_cast<int>(n);
    if (errno != EINTR && errno != EAGAIN) return n == -1 && errno == EIO ? 0 : -1;
  }
}

/// libedit's reader of one character: it would retry after a signal, and needs the locale to decode.
int ReadCharacter(EditLine*, wchar_t* character) {
  std::string bytes;
  for (;;) {
    char byte;
    const int n = ReadByte(&byte);
    if (n <= 0) return n;
    bytes += byte;
    const Utf8Char c = DecodeUtf8(bytes);
    if (!c.valid && CompleteUtf8Prefix(bytes) < bytes.size()) continue;  // the start of a character
    *character = static_cast<wchar_t>(c.code_point);
    return 1;
  }
}

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
  impl_->editor = el_init("gptoss", stdin, ::isatty(STDOUT_FILENO) == 1 ? stdout : stderr, stderr);
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
  int length = 0;
  const char* text = el_gets(impl_->editor, &length);
  if (InterruptFlag::IsSet()) {
    const LineInfo* info = el_line(impl_->editor);
    const bool empty = info->lastchar == info->buffer;
    InterruptFlag::Clear();
    el_reset(impl_->editor);
    std::fputs("\n", ::isatty(STDOUT_FILENO) == 1 ? stdout : stderr);
    std::fflush(stdout);
    return empty ? Outcome::kInterruptedEmpty : Outcome::kInterrupted;
  }
  if (text == nullptr || length <= 0) return Outcome::kEnd;
  line->assign(text, static_cast<size_t>(length));
  if (line->ends_with('\n')) line->pop_back();
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

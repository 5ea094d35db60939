// gptoss tokenize: text to token ids and back, one JSON object a line.
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "commands.h"
#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace gptoss::cli {
namespace {

constexpr size_t kMaxLineBytes = size_t{1} << 30;
constexpr size_t kReadBytes = size_t{1} << 16;

/// Lines of stdin of any size up to kMaxLineBytes.
class LineReader {
 public:
  enum class Outcome { kLine, kTooLong, kEnd };

  /// The next line without its newline. A line over the limit is passed over.
  Outcome Next(std::string* line) {
    line->clear();
    bool too_long = false;
    while (true) {
      if (begin_ == end_ && !Fill()) break;
      const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
      const size_t newline = rest.find('\n');
      const std::string_view part = rest.substr(0, newline);
      too_long = too_long || line->size() + part.size() > kMaxLineBytes;
      if (!too_long) line->append(part);
      seen_ = true;
      begin_ += part.size() + (newline == std::string_view::npos ? 0 : 1);
      if (newline != std::string_view::npos) break;
    }
    if (!seen_) return Outcome::kEnd;
    seen_ = false;
    return too_long ? Outcome::kTooLong : Outcome::kLine;
  }

  /// Whether the end came from an error of the operating system.
  bool failed() const { return failed_; }

 private:
  /// Answers go out before the program waits for more, so that another program can converse with this one.
  bool Fill() {
    std::fflush(stdout);
    ssize_t got;
    do {
      got = read(STDIN_FILENO, buffer_.data(), buffer_.size());
    } while (got < 0 && errno == EINTR);
    failed_ = got < 0;
    begin_ = 0;
    end_ = got > 0 ? static_cast<size_t>(got) : 0;
    return end_ > 0;
  }

  std::vector<char> buffer_ = std::vector<char>(kReadBytes);
  size_t begin_ = 0, end_ = 0;
  bool seen_ = false;
  bool failed_ = false;
};

std::string IdsLine(const std::vector<TokenId>& ids) {
  std::string line = "{\"ids\":[";
  line.reserve(line.size() + ids.size() * 7 + 2);
  char digits[16];
  for (const TokenId id : ids) {
    const auto end = std::to_chars(digits, digits + sizeof digits, id).ptr;
    line.append(digits, end);
    line.push_back(',');
  }
  if (!ids.empty()) line.pop_back();
  return line + "]}";
}

Result<std::string> EncodeLine(const Tokenizer& tokenizer, const std::string& text, const Json& object) {
  bool special = false;
  if (const Json* field = FindField(object, "special")) {
    if (!field->is_boolean()) return InvalidArgument("\"special\" must be true or false");
    special = field->get<bool>();
  }
  std::vector<TokenId> ids;
  if (special) {
    tokenizer.EncodeWithSpecial(text, &ids);
  } else {
    tokenizer.Encode(text, &ids);
  }
  return IdsLine(ids);
}

Result<std::string> DecodeLine(const Tokenizer& tokenizer, const Json& list) {
  std::vector<TokenId> ids;
  ids.reserve(list.size());
  for (const Json& element : list) {
    if (!element.is_number_integer()) return InvalidArgument("\"ids\" must be an array of integers");
    const int64_t id = element.get<int64_t>();
    if (id < 0 || id >= tokenizer.size() || tokenizer.TokenBytes(static_cast<TokenId>(id)).empty()) {
      return InvalidArgument("token id " + element.dump() + " is not in the vocabulary of ids 0 to " +
                             std::to_string(tokenizer.size() - 1));
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  return WriteJson(Json{{"text", tokenizer.Decode(ids)}});
}

Result<std::string> Answer(const Tokenizer& tokenizer, std::string_view line) {
  JsonLimits limits;
  limits.max_bytes = kMaxLineBytes;
  GPTOSS_ASSIGN_OR_RETURN(const Json object, ParseJson(line, limits));
  if (!object.is_object()) return InvalidArgument("a line must be a JSON object with \"text\" or \"ids\"");
  const Json* text = FindField(object, "text");
  const Json* ids = FindField(object, "ids");
  if ((text == nullptr) == (ids == nullptr)) {
    return InvalidArgument("a line must have either \"text\" (a string) or \"ids\" (an array of integers)");
  }
  if (ids != nullptr) {
    if (!ids->is_array()) return InvalidArgument("\"ids\" must be an array of integers");
    return DecodeLine(tokenizer, *ids);
  }
  if (!text->is_string()) return InvalidArgument("\"text\" must be a string");
  return EncodeLine(tokenizer, text->get_ref<const std::string&>(), object);
}

int RunTokenize(const std::string& tokenizer_file) {
  const auto tokenizer = tokenizer_file.empty() ? Tokenizer::Embedded() : Tokenizer::FromFile(tokenizer_file);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  LineReader reader;
  std::string line;
  bool failed = false;
  while (true) {
    const LineReader::Outcome outcome = reader.Next(&line);
    if (outcome == LineReader::Outcome::kEnd) break;
    if (outcome == LineReader::Outcome::kLine && line.find_first_not_of(" \t\r") == std::string::npos) continue;
    Result<std::string> answer =
        outcome == LineReader::Outcome::kTooLong
            ? ResourceExhausted("a line may have at most " + std::to_string(kMaxLineBytes) + " bytes")
            : Answer(**tokenizer, line);
    failed = failed || !answer.ok();
    std::string out = answer.ok() ? *std::move(answer) : WriteJson(Json{{"error", answer.status().message()}});
    out.push_back('\n');
    if (std::fwrite(out.data(), 1, out.size(), stdout) != out.size()) return Fail(IoError("stdout: cannot write"));
  }
  if (reader.failed()) return Fail(IoError("stdin: cannot read"));
  if (std::fflush(stdout) != 0) return Fail(IoError("stdout: cannot write"));
  return failed ? 1 : 0;
}

}  // namespace

void RegisterTokenize(CLI::App& app, int* exit_code) {
  auto file = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "tokenize",
      "Encode and decode, one JSON object a line: {\"text\":\"...\"} gives {\"ids\":[...]}, {\"ids\":[...]} gives\n"
      "{\"text\":\"...\"}. Text is ordinary text unless the line has \"special\":true. A line that cannot be handled\n"
      "gives {\"error\":\"...\"}, and the exit code is then 1. A line may have up to 1 GiB.");
  command->add_option("--tokenizer", *file, "tokenizer.json or .tiktoken file (default: built in, o200k_harmony)");
  command->callback([file, exit_code] { *exit_code = RunTokenize(*file); });
}

}  // namespace gptoss::cli

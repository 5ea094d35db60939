#include "jsonl.h"

#include <cstdio>
#include <iostream>

#include "commands.h"

namespace gptoss::cli {

Result<std::shared_ptr<const Tokenizer>> OpenTokenizer(const std::string& path) {
  return path.empty() ? Tokenizer::Embedded() : Tokenizer::FromFile(path);
}

int AnswerLines(const std::function<Result<Json>(const Json&)>& answer) {
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    Result<Json> request = ParseJson(line);
    Result<Json> reply = request.ok() ? answer(*request) : request;
    const std::string text = WriteJson(reply.ok() ? *reply : Json{{"error", reply.status().message()}}) + "\n";
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
      return Fail(IoError("stdout: cannot be written"));
    }
  }
  return std::cin.bad() ? Fail(IoError("stdin: cannot be read")) : 0;
}

}  // namespace gptoss::cli

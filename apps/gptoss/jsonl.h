// The loop of the commands that answer each line of JSON on stdin with one on stdout.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace gptoss::cli {

/// The tokenizer of `--tokenizer FILE`; an empty path is the one in the binary.
Result<std::shared_ptr<const Tokenizer>> OpenTokenizer(const std::string& path);

/// Calls `answer` for each line that is not blank and prints what it gives, or {"error": "..."} in its place, so that
/// answers stay in step with lines. Every answer is flushed. Returns main's exit code: 0, or 1 when stdin or stdout
/// fail.
int AnswerLines(const std::function<Result<Json>(const Json&)>& answer);

}  // namespace gptoss::cli

#include "server/ollama/ollama_output.h"

#include <chrono>
#include <ctime>
#include <utility>

#include "server/api/ids.h"
#include "server/api/logprobs.h"

namespace gptoss::server {
namespace {

using Kind = TurnItem::Kind;
constexpr char kLines[] = "application/x-ndjson";
constexpr double kNanoseconds = 1e9;

int64_t Nanoseconds(double seconds) { return static_cast<int64_t>(seconds * kNanoseconds); }

const char* DoneReason(TurnEnd end) {
  switch (end) {
    case TurnEnd::kMaxTokens:
    case TurnEnd::kContextFull:
    case TurnEnd::kDeadline:
      return "length";
    default:
      return "stop";
  }
}

}  // namespace

void SendOllamaError(Responder& responder, const ApiError& error) {
  Responder::Headers headers;
  if (error.retry_after_s > 0) headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  responder.Send(error.http_status, "application/json", WriteJson({{"error", error.message}}), std::move(headers));
}

std::string OllamaTime() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() % 1'000'000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char date[32], text[48];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text, sizeof text, "%s.%06dZ", date, static_cast<int>(micros));
  return text;
}

OllamaOutput::OllamaOutput(Options options, const Tokenizer& tokenizer, std::shared_ptr<Responder> responder)
    : options_(std::move(options)), tokenizer_(tokenizer), responder_(std::move(responder)) {}

Json OllamaOutput::Line(Json message, bool done) const {
  Json line = {{"model", options_.model}, {"created_at", OllamaTime()}};
  if (options_.chat) {
    Json whole = {{"role", "assistant"}, {"content", ""}};
    whole.update(message);
    line["message"] = std::move(whole);
  } else {
    line["response"] = message.value("content", "");
    for (const auto& [key, value] : message.items()) {
      if (key != "content") line[key] = value;
    }
  }
  line["done"] = done;
  return line;
}

void OllamaOutput::Begin() {
  if (options_.stream) responder_->BeginStream(200, kLines);
}

void OllamaOutput::ItemStart(const TurnItem&) { call_.clear(); }

bool OllamaOutput::Delta(const TurnItem& item, std::string_view text, std::span<const ItemLogprob> logprobs) {
  if (item.kind == Kind::kToolCall) {
    call_ += text;  // calls are given out whole
    return true;
  }
  const bool thinking = item.kind == Kind::kReasoning;
  if (thinking && !options_.show_thinking) return true;
  Json list = options_.logprobs && !thinking ? LogprobsJson(tokenizer_, logprobs) : Json::array();
  if (!options_.stream) {
    (thinking ? thinking_ : content_) += text;
    for (Json& entry : list) logprobs_.push_back(std::move(entry));
    return true;
  }
  Json line = Line({{thinking ? "thinking" : "content", text}}, false);
  if (!list.empty()) line["logprobs"] = std::move(list);
  return responder_->Write(WriteJson(line) + "\n");
}

void OllamaOutput::ItemEnd(const TurnItem& item) {
  if (item.kind != Kind::kToolCall) return;
  if (item.text.size() > call_.size()) call_ = item.text;
  auto arguments = ParseJson(call_);
  // A call that was cut off is no call.
  if (!arguments.ok() || !arguments->is_object()) return;
  ids_.push_back(NewId("call_"));
  Json call = {{"id", ids_.back()},
               {"function", {{"index", calls_.size()}, {"name", item.tool}, {"arguments", *std::move(arguments)}}}};
  calls_.push_back(call);
  if (options_.stream) {
    responder_->Write(WriteJson(Line({{"tool_calls", Json::array({std::move(call)})}}, false)) + "\n");
  }
}

void OllamaOutput::Finish(const TurnResult& result) {
  if (result.end == TurnEnd::kFailed) {
    if (!options_.stream) return SendOllamaError(*responder_, {500, "", result.status.message(), "", "", 0});
    responder_->Write(WriteJson({{"error", result.status.message()}}) + "\n");
    return responder_->End();
  }
  Json message = Json::object();
  if (!options_.stream) {
    message["content"] = content_;
    if (!thinking_.empty()) message["thinking"] = thinking_;
    if (!calls_.empty()) message["tool_calls"] = calls_;
  }
  Json line = Line(std::move(message), true);
  if (!logprobs_.empty()) line["logprobs"] = logprobs_;
  const EngineUsage& usage = result.usage;
  line["done_reason"] = DoneReason(result.end);
  line["total_duration"] = Nanoseconds(usage.queue_s + usage.prefill_s + usage.decode_s);
  line["load_duration"] = 0;
  line["prompt_eval_count"] = usage.prompt_tokens;
  line["prompt_eval_duration"] = Nanoseconds(usage.prefill_s);
  line["eval_count"] = usage.output_tokens;
  line["eval_duration"] = Nanoseconds(usage.decode_s);
  if (!options_.stream) return SendJson(*responder_, 200, line);
  responder_->Write(WriteJson(line) + "\n");
  responder_->End();
}

}  // namespace gptoss::server

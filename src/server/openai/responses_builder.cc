#include "server/openai/responses_builder.h"

#include <utility>

#include "server/api/logprobs.h"

namespace gptoss::server {
namespace {

using Kind = TurnItem::Kind;

const char* IncompleteReason(TurnEnd end) {
  switch (end) {
    case TurnEnd::kMaxTokens:
      return "max_output_tokens";
    case TurnEnd::kContextFull:
      return "context_length";
    case TurnEnd::kRepetition:
      return "repetition";
    case TurnEnd::kDeadline:
      return "deadline";
    default:
      return nullptr;
  }
}

Json TextPart(const std::string& text, Json logprobs) {
  return {{"type", "output_text"}, {"annotations", Json::array()}, {"logprobs", std::move(logprobs)}, {"text", text}};
}

Json ReasoningPart(const std::string& text) { return {{"type", "reasoning_text"}, {"text", text}}; }

const char* EndType(const std::string& status) {
  if (status == "completed") return "response.completed";
  if (status == "failed") return "response.failed";
  // There is no event of its own for a response that was cancelled.
  return "response.incomplete";
}

}  // namespace

Json ResponseUsageJson(const TurnResult& result) {
  const EngineUsage& usage = result.usage;
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.output_tokens},
          {"output_tokens_details", {{"reasoning_tokens", result.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.output_tokens}};
}

ResponseBuilder::ResponseBuilder(std::string id, int64_t created_s, const Json& echo, BuilderOptions options,
                                 const Tokenizer& tokenizer, Sink sink)
    : id_(std::move(id)), options_(std::move(options)), tokenizer_(tokenizer), sink_(std::move(sink)) {
  response_ = {{"id", id_},
               {"object", "response"},
               {"created_at", created_s},
               {"status", options_.background ? "queued" : "in_progress"},
               {"error", nullptr},
               {"incomplete_details", nullptr},
               {"output", Json::array()}};
  response_.update(echo);
  response_["usage"] = nullptr;
  replay_ids_.push_back(id_);
}

void ResponseBuilder::Emit(const char* type, Json fields) {
  const int64_t sequence = sequence_++;
  if (!sink_) return;
  Json event = {{"type", type}, {"sequence_number", sequence}};
  event.update(fields);
  sink_(event);
}

void ResponseBuilder::EmitWithResponse(const char* type) { Emit(type, {{"response", response_}}); }

void ResponseBuilder::Created() {
  EmitWithResponse("response.created");
  if (options_.background) EmitWithResponse("response.queued");
  response_["status"] = "in_progress";
  EmitWithResponse("response.in_progress");
}

void ResponseBuilder::StartText(Json part) {
  Emit("response.content_part.added", {{"item_id", item_["id"]},
                                       {"output_index", response_["output"].size()},
                                       {"content_index", 0},
                                       {"part", std::move(part)}});
}

void ResponseBuilder::ItemStart(const TurnItem& item) {
  open_ = true;
  kind_ = item.kind;
  text_.clear();
  logprobs_ = Json::array();
  switch (kind_) {
    case Kind::kReasoning:
      item_ = {{"id", NewId("rs_")},
               {"type", "reasoning"},
               {"status", "in_progress"},
               {"summary", Json::array()},
               {"content", Json::array()}};
      break;
    case Kind::kPreamble:
    case Kind::kAnswer:
      item_ = {{"id", NewId("msg_")},
               {"type", "message"},
               {"status", "in_progress"},
               {"role", "assistant"},
               {"phase", kind_ == Kind::kPreamble ? "commentary" : "final_answer"},
               {"content", Json::array()}};
      break;
    case Kind::kToolCall: {
      const auto found = options_.tools.find(item.tool);
      const ToolRef ref = found == options_.tools.end() ? ToolRef{item.tool, "", item.custom} : found->second;
      custom_ = ref.custom;
      item_ = {{"id", NewId(custom_ ? "ctc_" : "fc_")},
               {"type", custom_ ? "custom_tool_call" : "function_call"},
               {"status", "in_progress"},
               {custom_ ? "input" : "arguments", ""},
               {"call_id", NewId("call_")},
               {"name", ref.name}};
      if (!ref.name_space.empty()) item_["namespace"] = ref.name_space;
      replay_ids_.push_back(item_["call_id"]);
      break;
    }
  }
  replay_ids_.push_back(item_["id"]);
  Emit("response.output_item.added", {{"output_index", response_["output"].size()}, {"item", item_}});
  if (kind_ == Kind::kReasoning) {
    if (!options_.withhold_reasoning) StartText(ReasoningPart(""));
  } else if (kind_ != Kind::kToolCall) {
    StartText(TextPart("", Json::array()));
  }
}

void ResponseBuilder::Delta(std::string_view text, std::span<const ItemLogprob> logprobs) {
  if (!open_ || text.empty()) return;
  text_ += text;
  const bool reasoning = kind_ == Kind::kReasoning;
  if (reasoning && options_.withhold_reasoning) return;
  Json event = {{"item_id", item_["id"]}, {"output_index", response_["output"].size()}};
  if (kind_ == Kind::kToolCall) {
    event["delta"] = text;
    Emit(custom_ ? "response.custom_tool_call_input.delta" : "response.function_call_arguments.delta",
         std::move(event));
    return;
  }
  event["content_index"] = 0;
  event["delta"] = text;
  if (!reasoning) {
    Json list = options_.logprobs ? LogprobsJson(tokenizer_, logprobs) : Json::array();
    for (const Json& entry : list) logprobs_.push_back(entry);
    event["logprobs"] = std::move(list);
  }
  Emit(reasoning ? "response.reasoning_text.delta" : "response.output_text.delta", std::move(event));
}

void ResponseBuilder::EndText(bool reasoning) {
  const size_t index = response_["output"].size();
  Json place = {{"item_id", item_["id"]}, {"output_index", index}, {"content_index", 0}};
  Json done = place;
  done["text"] = text_;
  if (!reasoning) done["logprobs"] = logprobs_;
  Emit(reasoning ? "response.reasoning_text.done" : "response.output_text.done", std::move(done));
  Json part = reasoning ? ReasoningPart(text_) : TextPart(text_, std::move(logprobs_));
  place["part"] = part;
  Emit("response.content_part.done", std::move(place));
  item_["content"].push_back(std::move(part));
}

void ResponseBuilder::EndCall() {
  const char* field = custom_ ? "input" : "arguments";
  item_[field] = text_;
  Json done = {{"item_id", item_["id"]}, {"output_index", response_["output"].size()}};
  if (!custom_) done["name"] = item_["name"];
  done[field] = text_;
  Emit(custom_ ? "response.custom_tool_call_input.done" : "response.function_call_arguments.done", std::move(done));
}

void ResponseBuilder::ItemEnd(const TurnItem& item) {
  if (!open_) return;
  // What an item gets at its end only, as the arguments "{}" of a call without any.
  if (item.text.size() > text_.size() && item.text.starts_with(text_)) {
    Delta(std::string_view(item.text).substr(text_.size()), {});
  }
  switch (kind_) {
    case Kind::kReasoning:
      if (!options_.withhold_reasoning) EndText(true);
      if (options_.encrypted_reasoning) item_["encrypted_content"] = Seal(options_.seal_key, text_);
      break;
    case Kind::kPreamble:
    case Kind::kAnswer:
      EndText(false);
      break;
    case Kind::kToolCall:
      EndCall();
      break;
  }
  item_["status"] = item.cut ? "incomplete" : "completed";
  Emit("response.output_item.done", {{"output_index", response_["output"].size()}, {"item", item_}});
  response_["output"].push_back(std::move(item_));
  open_ = false;
}

void ResponseBuilder::Finish(const TurnResult& result, int64_t completed_s) {
  if (open_) {
    TurnItem rest;
    rest.text = text_;
    rest.cut = true;
    ItemEnd(rest);
  }
  const char* reason = IncompleteReason(result.end);
  if (result.end == TurnEnd::kFailed) {
    response_["status"] = "failed";
    response_["error"] = {{"code", "server_error"}, {"message", result.status.message()}};
  } else if (result.end == TurnEnd::kCancelled) {
    response_["status"] = "cancelled";
  } else if (reason != nullptr) {
    response_["status"] = "incomplete";
    response_["incomplete_details"] = {{"reason", reason}};
  } else {
    response_["status"] = "completed";
    response_["completed_at"] = completed_s;
  }
  response_["usage"] = ResponseUsageJson(result);
}

void ResponseBuilder::StorageFailed(const Status& status) {
  response_["store"] = false;
  const bool full = status.code() == StatusCode::kResourceExhausted;
  response_["storage_error"] = {{"code", full ? "storage_full" : "storage_failed"},
                                {"message", "the response was not stored: " + status.message()}};
}

Json ResponseBuilder::EndEvent() const {
  const char* type = EndType(response_["status"].get_ref<const std::string&>());
  return {{"type", type}, {"sequence_number", sequence_}, {"response", response_}};
}

namespace {

/// Events of one item's content, between its added and its done.
void AddContentEvents(const Json& item, const Json& place, std::vector<Json>* events) {
  const auto add = [&](const char* type, Json fields) {
    Json event = {{"type", type}};
    event.update(place);
    event.update(fields);
    events->push_back(std::move(event));
  };
  const std::string type = item.value("type", "");
  if (type == "function_call" || type == "custom_tool_call") {
    const bool custom = type == "custom_tool_call";
    const std::string text = item.value(custom ? "input" : "arguments", "");
    const std::string stem = custom ? "response.custom_tool_call_input" : "response.function_call_arguments";
    if (!text.empty()) add((stem + ".delta").c_str(), {{"delta", text}});
    add((stem + ".done").c_str(), {{custom ? "input" : "arguments", text}});
    return;
  }
  const Json content = item.value("content", Json::array());
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const bool reasoning = type == "reasoning";
    const std::string stem = reasoning ? "response.reasoning_text" : "response.output_text";
    const std::string text = part.value("text", "");
    add("response.content_part.added",
        {{"content_index", i}, {"part", reasoning ? ReasoningPart("") : TextPart("", Json::array())}});
    if (!text.empty()) {
      Json delta = {{"content_index", i}, {"delta", text}};
      if (!reasoning) delta["logprobs"] = Json::array();
      add((stem + ".delta").c_str(), std::move(delta));
    }
    Json done = {{"content_index", i}, {"text", text}};
    if (!reasoning) done["logprobs"] = part.value("logprobs", Json::array());
    add((stem + ".done").c_str(), std::move(done));
    add("response.content_part.done", {{"content_index", i}, {"part", part}});
  }
}

}  // namespace

std::vector<Json> EventsOf(const Json& response) {
  std::vector<Json> events;
  Json opening = response;
  opening["status"] = "in_progress";
  opening["output"] = Json::array();
  opening["usage"] = nullptr;
  events.push_back({{"type", "response.created"}, {"response", opening}});
  events.push_back({{"type", "response.in_progress"}, {"response", opening}});
  const Json output = response.value("output", Json::array());
  for (size_t i = 0; i < output.size(); ++i) {
    Json begun = output[i];
    begun["status"] = "in_progress";
    for (const char* field : {"input", "arguments"}) {
      if (begun.contains(field)) begun[field] = "";
    }
    if (begun.contains("content")) begun["content"] = Json::array();
    events.push_back({{"type", "response.output_item.added"}, {"output_index", i}, {"item", std::move(begun)}});
    AddContentEvents(output[i], {{"item_id", output[i].value("id", "")}, {"output_index", i}}, &events);
    events.push_back({{"type", "response.output_item.done"}, {"output_index", i}, {"item", output[i]}});
  }
  events.push_back({{"type", EndType(response.value("status", "completed"))}, {"response", response}});
  for (size_t i = 0; i < events.size(); ++i) events[i]["sequence_number"] = i;
  return events;
}

}  // namespace gptoss::server

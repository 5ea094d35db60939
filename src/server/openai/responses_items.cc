// Items of /v1/responses to the messages of a conversation.
#include <algorithm>
#include <array>
#include <utility>

#include "server/api/fields.h"
#include "server/api/history.h"
#include "server/openai/compaction.h"
#include "server/openai/responses_request.h"

namespace gptoss::server {
namespace {

// Traces of tools that ran elsewhere, and bookkeeping of clients: nothing in them is text for the model.
constexpr std::array kSilentItems = {"web_search_call",       "file_search_call", "image_generation_call",
                                     "code_interpreter_call", "mcp_list_tools",   "tool_search_call",
                                     "tool_search_output",    "ghost_snapshot"};

constexpr char kNoImage[] = "[an image stood here; this model reads text only]";

/// Text of a string or of an array of content parts. `images_as_note`: what tools return must not end a session.
Result<std::string> ContentText(const Json& content, const std::string& path, bool images_as_note) {
  if (content.is_string()) return content.get<std::string>();
  if (content.is_null()) return std::string();
  if (!content.is_array()) return InvalidArgument(path + ": must be a string or an array of content parts");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    FieldReader part(content[i], Indexed(path, i));
    const std::string type = part.String("type").value_or("input_text");
    std::string piece;
    if (type == "input_text" || type == "output_text" || type == "text" || type == "reasoning_text" ||
        type == "summary_text") {
      piece = part.RequiredString("text");
    } else if (type == "refusal") {
      piece = part.RequiredString("refusal");
    } else if (images_as_note && type == "input_image") {
      piece = kNoImage;
    } else if (part.ok()) {
      return Unsupported(part.Path("type") + ": " + Quoted(type) + " is not supported; this model reads text only");
    }
    GPTOSS_RETURN_IF_ERROR(part.status());
    if (!text.empty() && !piece.empty()) text += "\n";
    text += piece;
  }
  return text;
}

bool IsCall(const Json& item) {
  const std::string* type = FindString(item, "type");
  return type != nullptr && (*type == "function_call" || *type == "custom_tool_call" || *type == "local_shell_call");
}

class ItemReader {
 public:
  ItemReader(const std::map<std::string, ToolRef>& tools, const ItemContext& context, std::string* instructions,
             std::vector<HistoryEntry>* entries)
      : tools_(tools), context_(context), instructions_(instructions), entries_(entries) {
    // Calls of an earlier part of the conversation, which results in this one may answer.
    for (const HistoryEntry& entry : *entries) {
      if (entry.message.recipient && !entry.id.empty()) NoteCall(entry.id, entry.message);
    }
  }

  Status Read(const Json& items, const std::string& path) {
    for (size_t i = 0; i < items.size(); ++i) {
      // A message that leads up to a call is a preamble, not an answer.
      size_t next = i + 1;
      while (next < items.size() && FindString(items[next], "type") != nullptr &&
             *FindString(items[next], "type") == "reasoning") {
        ++next;
      }
      before_call_ = next < items.size() && IsCall(items[next]);
      GPTOSS_RETURN_IF_ERROR(ReadItem(items[i], Indexed(path, i), true));
    }
    return {};
  }

 private:
  Status ReadItem(const Json& json, const std::string& path, bool references) {
    FieldReader item(json, path);
    GPTOSS_RETURN_IF_ERROR(item.status());
    const std::string type = item.String("type").value_or("message");
    GPTOSS_RETURN_IF_ERROR(item.status());
    if (type == "message") return ReadMessage(item);
    if (type == "reasoning") return ReadReasoning(item);
    if (type == "compaction") return ReadCompaction(item);
    if (type == "function_call") return ReadCall(item, "arguments", false);
    if (type == "custom_tool_call") return ReadCall(item, "input", true);
    if (type == "local_shell_call") return ReadShellCall(item);
    if (type == "function_call_output" || type == "custom_tool_call_output" || type == "local_shell_call_output") {
      return ReadOutput(item);
    }
    if (type == "item_reference" && references) {
      const std::string id = item.RequiredString("id");
      GPTOSS_RETURN_IF_ERROR(item.status());
      const auto found = context_.find_item ? context_.find_item(id) : Result<Json>(NotFound("Item " + Quoted(id)));
      if (!found.ok()) return NotFound(item.Path("id") + ": " + found.status().message());
      return ReadItem(*found, path, false);
    }
    if (std::find(kSilentItems.begin(), kSilentItems.end(), type) != kSilentItems.end()) return {};
    return Unsupported(item.Path("type") + ": items of type " + Quoted(type) + " are not supported");
  }

  Status ReadMessage(FieldReader& item) {
    const std::string role = item.RequiredString("role");
    GPTOSS_RETURN_IF_ERROR(item.status());
    const Json* content = item.Find("content");
    if (content == nullptr) return InvalidArgument(item.Path("content") + ": is missing");
    GPTOSS_ASSIGN_OR_RETURN(std::string text, ContentText(*content, item.Path("content"), false));
    const std::string id = item.String("id").value_or("");
    if (role == "user") {
      Add(UserText(std::move(text)), id);
    } else if (role == "assistant") {
      const std::string phase = item.String("phase").value_or("");
      const bool preamble = phase.empty() ? before_call_ : phase == "commentary";
      Add(preamble ? Preamble(std::move(text)) : Answer(std::move(text)), id);
    } else if (role != "system" && role != "developer") {
      item.Fail("role", "must be 'user', 'assistant', 'system' or 'developer'");
    } else if (entries_->empty()) {
      if (!instructions_->empty() && !text.empty()) *instructions_ += "\n\n";
      *instructions_ += text;
    } else {
      Add(LateInstructions(std::move(text)), id);
    }
    return item.status();
  }

  Status ReadReasoning(FieldReader& item) {
    std::string text;
    if (const Json* content = item.Find("content")) {
      GPTOSS_ASSIGN_OR_RETURN(text, ContentText(*content, item.Path("content"), false));
    }
    if (text.empty() && context_.seal_key != nullptr) {
      // What another server sealed is of no use here.
      const auto sealed = item.String("encrypted_content");
      if (sealed) text = Unseal(*context_.seal_key, *sealed).value_or("");
    }
    if (!text.empty()) Add(Reasoning(std::move(text)), item.String("id").value_or(""));
    return item.status();
  }

  Status ReadCompaction(FieldReader& item) {
    const std::string sealed = item.RequiredString("encrypted_content");
    GPTOSS_RETURN_IF_ERROR(item.status());
    auto text = context_.seal_key == nullptr ? std::nullopt : CompactedText(*context_.seal_key, sealed);
    // As with reasoning, what another server sealed cannot be read; but without it the conversation is not the same.
    if (!text) return InvalidArgument(item.Path("encrypted_content") + ": was not made by this server");
    Add(UserText(*std::move(text)), item.String("id").value_or(""));
    return item.status();
  }

  Status ReadCall(FieldReader& item, const char* input_field, bool custom) {
    const std::string name = item.RequiredString("name");
    const std::string name_space = item.String("namespace").value_or("");
    const std::string call_id = item.RequiredString("call_id");
    std::string input;
    const Json* given = item.Find(input_field);
    if (given != nullptr) input = given->is_string() ? given->get<std::string>() : WriteJson(*given);
    GPTOSS_RETURN_IF_ERROR(item.status());
    const std::string tool = ModelName(name, name_space);
    GPTOSS_RETURN_IF_ERROR(CheckToolName(tool, item.Path("name")));
    if (!custom && input.empty()) input = "{}";
    AddCall(tool, call_id, custom ? CustomCall(tool, std::move(input)) : FunctionCall(tool, std::move(input)));
    return {};
  }

  Status ReadShellCall(FieldReader& item) {
    const std::string call_id = item.String("call_id").value_or(item.String("id").value_or(""));
    const Json* action = item.Object("action");
    GPTOSS_RETURN_IF_ERROR(item.status());
    AddCall("local_shell", call_id, FunctionCall("local_shell", action == nullptr ? "{}" : WriteJson(*action)));
    return {};
  }

  Status ReadOutput(FieldReader& item) {
    const std::string call_id =
        item.Find("call_id") != nullptr ? item.RequiredString("call_id") : item.RequiredString("id");
    GPTOSS_RETURN_IF_ERROR(item.status());
    const auto call = calls_.find(call_id);
    if (call == calls_.end()) {
      return InvalidArgument(item.Path("call_id") + ": No tool call found for the output with call_id " +
                             Quoted(call_id) +
                             "; the call must stand before its output, or previous_response_id must lead to it.");
    }
    const Json* output = item.Find("output");
    if (output == nullptr) return InvalidArgument(item.Path("output") + ": is missing");
    std::string text;
    if (output->is_object()) {
      text = WriteJson(*output);
    } else {
      GPTOSS_ASSIGN_OR_RETURN(text, ContentText(*output, item.Path("output"), true));
    }
    Add(ToolResult(call->second, std::move(text)), item.String("id").value_or(""));
    return item.status();
  }

  std::string ModelName(const std::string& name, const std::string& name_space) const {
    for (const auto& [model_name, ref] : tools_) {
      if (ref.name == name && ref.name_space == name_space) return model_name;
    }
    return name;
  }

  void NoteCall(const std::string& call_id, const Message& call) {
    constexpr std::string_view prefix = "functions.";
    calls_[call_id] = call.recipient->starts_with(prefix) ? call.recipient->substr(prefix.size()) : *call.recipient;
  }

  void AddCall(const std::string& tool, const std::string& call_id, Message call) {
    calls_[call_id] = tool;
    Add(std::move(call), call_id);
  }

  void Add(Message message, std::string id) { entries_->push_back({std::move(message), std::move(id)}); }

  const std::map<std::string, ToolRef>& tools_;
  const ItemContext& context_;
  std::string* instructions_;
  std::vector<HistoryEntry>* entries_;
  std::map<std::string, std::string> calls_;  // call id to the tool's name for the model
  bool before_call_ = false;
};

}  // namespace

Status AddItems(const Json& items, const std::string& path, const std::map<std::string, ToolRef>& tools,
                const ItemContext& context, std::string* instructions, std::vector<HistoryEntry>* entries) {
  return ItemReader(tools, context, instructions, entries).Read(items, path);
}

}  // namespace gptoss::server

// Conversations as JSON, in the form of the official library's Message.to_dict().
#pragma once

#include "base/status.h"
#include "harmony/message.h"

namespace gptoss {

/// {"messages": [MESSAGE, ...]}. Unknown fields are ignored, null counts as absent. On failure: kInvalidArgument naming
/// the path of the field, e.g. messages[2].content[0].tools.functions.tools[1].name.
Result<Conversation> ConversationFromJson(const Json& json);

/// One message; `path` begins the paths in errors. `content` is a list of items or one string. Beyond the official
/// form: reasoning_effort in any case, a tool without description, and developer_content's "response_formats": list of
/// {"name", "description", "schema"}.
Result<Message> MessageFromJson(const Json& json, const std::string& path = "message");

/// {"name", "description", "tools": [{"name", "description", "parameters"}]}.
Result<ToolNamespace> ToolNamespaceFromJson(const Json& json, const std::string& path);

Json ToJson(const ToolNamespace& tools);
Json ToJson(const Message& message);
Json ToJson(const Conversation& conversation);

}  // namespace gptoss

// The messages of a history, as the adapters of all APIs build them. Forms: openai/harmony, docs/format.md.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "harmony/message.h"

namespace gptoss::server {

Message UserText(std::string text);
/// Instructions that come after the conversation has begun.
Message LateInstructions(std::string text);
Message Reasoning(std::string text);
Message Preamble(std::string text);
Message Answer(std::string text);
/// `tool` is the bare name. The arguments of a function are JSON; what a custom tool is given is free text.
Message FunctionCall(std::string_view tool, std::string arguments);
Message CustomCall(std::string_view tool, std::string input);
Message ToolResult(std::string_view tool, std::string output);

/// All text contents, joined.
std::string TextOf(const Message& message);

/// What APIs allow as a tool's name: 1 to 128 characters of a-z, A-Z, 0-9, '_', '-' and '.'. On failure:
/// kInvalidArgument beginning with `path`.
Status CheckToolName(std::string_view name, std::string_view path);

}  // namespace gptoss::server

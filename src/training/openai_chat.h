// OpenAI's chat fine-tuning format as harmony conversations: one object a line with "messages", "tools",
// "reasoning_effort" (https://platform.openai.com/docs/guides/supervised-fine-tuning).
#pragma once

#include <vector>

#include "harmony/message.h"

namespace gptoss {

/// Whether a line's object is of that format rather than of harmony's (message_json.h): it has "tools" beside the
/// messages, a message has "tool_calls", "tool_call_id", "weight", "reasoning_content" or "thinking", or assistants
/// write and none of them names a channel.
bool IsOpenAiChat(const Json& json);

struct OpenAiConversation {
  Conversation conversation;
  std::vector<float> weights;  // [messages] "weight" of an assistant's message, else 1
};

/// system or developer messages at the beginning become the instructions of the developer message, tools its
/// functions; reasoning becomes analysis; text beside calls becomes commentary; each call is followed by its result,
/// also where several were made at once. A system message with the usual content and the effort (medium unless
/// "reasoning_effort" says otherwise) comes first.
/// On failure: kInvalidArgument naming the field, e.g. messages[3].tool_calls[0].function.name.
Result<OpenAiConversation> ConversationFromOpenAiChat(const Json& json);

}  // namespace gptoss

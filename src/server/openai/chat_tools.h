// The fields tools, tool_choice and response_format of /v1/chat/completions, older spellings included.
#pragma once

#include <vector>

#include "server/api/fields.h"
#include "server/turn.h"

namespace gptoss::server {

// On failure: kInvalidArgument or kUnsupported, "path: what is wrong".
Status ReadChatTools(FieldReader& body, std::vector<ToolSpec>* tools);
/// `turn` holds the tools already.
Status ReadChatToolChoice(FieldReader& body, TurnRequest* turn);
Status ReadResponseFormat(FieldReader& body, AnswerFormat* format);

}  // namespace gptoss::server

// The two tools that the models were trained with, described to them in the official words: what
// ToolNamespaceConfig::browser() and ::python() of openai/harmony v0.0.8 (src/chat.rs) give.
#pragma once

#include "harmony/message.h"

namespace gptoss {

const ToolNamespace& BrowserTool();
const ToolNamespace& PythonTool();

}  // namespace gptoss

// Messages of a conversation as values. The field names follow openai/harmony (src/chat.rs), as does the JSON form
// (message_json.h).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "json/json.h"

namespace gptoss {

enum class Role : uint8_t { kUser, kAssistant, kSystem, kDeveloper, kTool };

std::string_view RoleName(Role role);
std::optional<Role> RoleFromName(std::string_view name);

struct Author {
  Role role = Role::kUser;
  std::optional<std::string> name;  // for a tool its full name, e.g. "functions.get_weather"
  bool operator==(const Author&) const = default;
};

struct ToolDescription {
  std::string name;
  std::string description;
  std::optional<Json> parameters;  // a JSON schema; absent: the tool takes no arguments
  bool operator==(const ToolDescription&) const = default;
};

/// Tools under one name: "functions", "browser". Without tools the description stands alone (as for "python").
struct ToolNamespace {
  std::string name;
  std::optional<std::string> description;
  std::vector<ToolDescription> tools;
  bool operator==(const ToolNamespace&) const = default;
};

/// Rendered in the order of the keys' bytes; the key is normally the namespace's name.
using ToolNamespaces = std::map<std::string, ToolNamespace>;

enum class ReasoningEffort : uint8_t { kLow, kMedium, kHigh };
std::string_view ReasoningEffortName(ReasoningEffort effort);                   // "low", "medium", "high"
std::optional<ReasoningEffort> ReasoningEffortFromName(std::string_view name);  // in any case

struct ChannelConfig {
  std::vector<std::string> valid_channels;
  bool channel_required = false;
  bool operator==(const ChannelConfig&) const = default;
};

/// What is absent is not rendered and not defaulted; DefaultSystemContent() gives the usual values.
struct SystemContent {
  std::optional<std::string> model_identity;
  std::optional<ReasoningEffort> reasoning_effort;
  ToolNamespaces tools;
  std::optional<std::string> conversation_start_date;  // "2025-06-28"
  std::optional<std::string> knowledge_cutoff;         // "2024-06"
  std::optional<ChannelConfig> channel_config;
  bool operator==(const SystemContent&) const = default;
};

/// An output format of the section "# Response Formats" (openai/harmony docs/format.md, "Structured output"). The
/// official library has no field for it.
struct ResponseFormat {
  std::string name;
  std::optional<std::string> description;
  Json schema;
  bool operator==(const ResponseFormat&) const = default;
};

struct DeveloperContent {
  std::optional<std::string> instructions;
  ToolNamespaces tools;
  std::vector<ResponseFormat> response_formats;
  bool operator==(const DeveloperContent&) const = default;
};

struct TextContent {
  std::string text;
  bool operator==(const TextContent&) const = default;
};

using Content = std::variant<TextContent, SystemContent, DeveloperContent>;

struct Message {
  Author author;
  std::optional<std::string> recipient;
  std::optional<std::string> channel;
  std::optional<std::string> content_type;
  std::vector<Content> contents;
  bool operator==(const Message&) const = default;
};

struct Conversation {
  std::vector<Message> messages;
  bool operator==(const Conversation&) const = default;
};

Message TextMessage(Role role, std::string text);

/// The usual first content: identity, knowledge cutoff 2024-06, the three channels, medium effort, and `date` as the
/// current date unless it is empty.
SystemContent DefaultSystemContent(std::string date, ReasoningEffort effort = ReasoningEffort::kMedium);

}  // namespace gptoss

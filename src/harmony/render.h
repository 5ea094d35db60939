// Conversations to tokens. Every piece that is written (role, ":name", " to=recipient", channel, " content_type", each
// content item) is encoded on its own and as ordinary text: nothing that a message holds can become a marker, except a
// leading "<|constrain|>" of content_type, which the format defines. Source of the layout: openai/harmony v0.0.8,
// src/encoding.rs and docs/format.md.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "harmony/message.h"
#include "harmony/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace gptoss {

struct RenderOptions {
  /// Exactly the text of the official library, its limits included: schemas in SchemaStyle::kOfficial, no response
  /// formats, and the official rule for dropping analysis.
  bool official = false;
  /// Leaves out earlier chain of thought, i.e. messages on the channel "analysis":
  /// - product: those before the last final; what came since stays, so a pending tool call keeps its reasoning;
  /// - official: those before the first final, and only if the last assistant message is a final.
  bool auto_drop_analysis = true;
  /// The role whose turn is begun after the last message: "<|start|>assistant".
  std::optional<Role> next_role;
  /// Training form: if the last message is an assistant's final, it ends in <|return|> instead of <|end|>.
  bool training = false;
};

/// Indices of the messages that `options` keep, ascending.
std::vector<size_t> KeptMessages(std::span<const Message> messages, const RenderOptions& options);

/// Functions are declared in a developer message, so that the system message names their channel.
bool HasFunctionTools(std::span<const Message> messages);

/// Immutable; may be shared between threads.
class Renderer {
 public:
  /// On failure: kUnsupported when the tokenizer lacks a marker.
  static Result<Renderer> Create(std::shared_ptr<const Tokenizer> tokenizer);

  /// On failure: kInvalidArgument or kResourceExhausted, naming messages[i] and what is wrong with it: a tool message
  /// without name, system content outside a system message (developer content likewise), a tool's schema.
  Result<std::vector<TokenId>> RenderConversation(const Conversation& conversation, const RenderOptions& options) const;

  /// Appends one message. `has_function_tools` is a property of the whole conversation.
  Status RenderMessage(const Message& message, bool official, bool has_function_tools, std::vector<TokenId>* ids) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const FormatTokenIds& format() const { return format_; }

 private:
  Renderer(std::shared_ptr<const Tokenizer> tokenizer, FormatTokenIds format)
      : tokenizer_(std::move(tokenizer)), format_(format) {}
  Status RenderHeader(const Message& message, std::vector<TokenId>* ids) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  FormatTokenIds format_;
};

/// The text of a system or developer message's content. On failure: as RenderToolsSection.
Result<std::string> SystemText(const SystemContent& content, bool official, bool has_function_tools);
Result<std::string> DeveloperText(const DeveloperContent& content, bool official);

}  // namespace gptoss

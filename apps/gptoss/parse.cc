#include "commands.h"
#include "harmony/stream_parser.h"
#include "jsonl.h"

namespace gptoss::cli {
namespace {

Result<std::vector<TokenId>> ReadIds(const Json& line) {
  const Json* field = FindField(line, "ids");
  if (field == nullptr || !field->is_array()) return InvalidArgument("ids: must be a list of token ids");
  std::vector<TokenId> ids;
  ids.reserve(field->size());
  for (size_t i = 0; i < field->size(); ++i) {
    const Json& id = (*field)[i];
    const bool fits = id.is_number_unsigned() ? id.get<uint64_t>() <= INT32_MAX
                                              : id.is_number_integer() && id.get<int64_t>() >= INT32_MIN;
    if (!fits) return InvalidArgument("ids[" + std::to_string(i) + "]: is not a token id");
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

Result<ParserOptions> ReadOptions(const Json& line) {
  ParserOptions options;
  const Json* role = FindField(line, "role");
  if (role != nullptr && !role->is_null()) {
    if (role->is_string()) options.role = RoleFromName(role->get_ref<const std::string&>());
    if (!options.role) {
      return InvalidArgument("role: must be null or one of user, assistant, system, developer, tool");
    }
  }
  const Json* strict = FindField(line, "strict");
  if (strict != nullptr && !strict->is_null()) {
    if (!strict->is_boolean()) return InvalidArgument("strict: must be true or false");
    options.strict = strict->get<bool>();
  }
  const Json* tools = FindField(line, "tools");
  if (tools == nullptr || tools->is_null()) return options;
  if (!tools->is_array()) return InvalidArgument("tools: must be a list of full tool names");
  for (const Json& tool : *tools) {
    if (!tool.is_string()) return InvalidArgument("tools: must be a list of full tool names");
    options.tools.push_back(tool.get<std::string>());
  }
  return options;
}

Json OrNull(const std::optional<std::string>& value) { return value ? Json(*value) : Json(); }

Result<Json> ParseLine(const std::shared_ptr<const Tokenizer>& tokenizer, const Json& line) {
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, ReadIds(line));
  GPTOSS_ASSIGN_OR_RETURN(ParserOptions options, ReadOptions(line));
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<ParsedMessage> messages, ParseMessages(tokenizer, ids, std::move(options)));
  Json out = Json::array();
  for (const ParsedMessage& message : messages) {
    out.push_back(Json{{"role", RoleName(message.author.role)},
                       {"name", OrNull(message.author.name)},
                       {"recipient", OrNull(message.recipient)},
                       {"channel", OrNull(message.channel)},
                       {"content_type", OrNull(message.content_type)},
                       {"text", message.text}});
  }
  return Json{{"messages", std::move(out)}};
}

int RunParse(const std::string& path) {
  Result<std::shared_ptr<const Tokenizer>> tokenizer = OpenTokenizer(path);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  return AnswerLines([&](const Json& line) { return ParseLine(*tokenizer, line); });
}

}  // namespace

void RegisterParse(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("parse", "Sampled token ids as JSON lines to messages");
  auto path = std::make_shared<std::string>();
  command->add_option("--tokenizer", *path, "tokenizer.json or .tiktoken file; default: the built-in one");
  command->footer(
      "One line in: {\"ids\": [...], \"role\": \"assistant\" or null, \"strict\": false, \"tools\": "
      "[\"functions.f\"]}\n"
      "One line out: {\"messages\": [{\"role\", \"name\", \"recipient\", \"channel\", \"content_type\", \"text\"}]}, "
      "or "
      "{\"error\": \"...\"} for a line that is no such request or, with strict, not well-formed; then the next line is "
      "read. Exit code 1 only when a file or stream fails.");
  command->callback([path, exit_code] { *exit_code = RunParse(*path); });
}

}  // namespace gptoss::cli

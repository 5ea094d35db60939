#include "harmony/render.h"

#include "commands.h"
#include "harmony/message_json.h"
#include "jsonl.h"

namespace gptoss::cli {
namespace {

struct RenderFlags {
  std::string tokenizer;
  bool official = false;
  bool training = false;
};

/// An optional boolean field.
Status ReadFlag(const Json& line, const char* key, bool* value) {
  const Json* field = FindField(line, key);
  if (field == nullptr || field->is_null()) return {};
  if (!field->is_boolean()) return InvalidArgument(std::string(key) + ": must be true or false");
  *value = field->get<bool>();
  return {};
}

Result<Json> RenderLine(const Renderer& renderer, const RenderFlags& flags, const Json& line) {
  const Json* json = FindField(line, "conversation");
  if (json == nullptr) return InvalidArgument("conversation: is missing; give {\"messages\": [...]}");
  GPTOSS_ASSIGN_OR_RETURN(const Conversation conversation, ConversationFromJson(*json));
  RenderOptions options;
  options.official = flags.official;
  options.training = flags.training;
  GPTOSS_RETURN_IF_ERROR(ReadFlag(line, "auto_drop_analysis", &options.auto_drop_analysis));
  const Json* role = FindField(line, "next_role");
  if (role != nullptr && !role->is_null()) {
    if (role->is_string()) options.next_role = RoleFromName(role->get_ref<const std::string&>());
    if (!options.next_role) {
      return InvalidArgument("next_role: must be null or one of user, assistant, system, developer, tool");
    }
  }
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, renderer.RenderConversation(conversation, options));
  return Json{{"ids", ids}, {"text", renderer.tokenizer().Decode(ids)}};
}

int RunRender(const RenderFlags& flags) {
  Result<std::shared_ptr<const Tokenizer>> tokenizer = OpenTokenizer(flags.tokenizer);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  Result<Renderer> renderer = Renderer::Create(*tokenizer);
  if (!renderer.ok()) return Fail(renderer.status());
  return AnswerLines([&](const Json& line) { return RenderLine(*renderer, flags, line); });
}

}  // namespace

void RegisterRender(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("render", "Conversations as JSON lines to prompts: token ids and text");
  auto flags = std::make_shared<RenderFlags>();
  command->add_option("--tokenizer", flags->tokenizer, "tokenizer.json or .tiktoken file; default: the built-in one");
  command->add_flag("--official", flags->official, "exactly the text of openai/harmony, its limits included");
  command->add_flag("--training", flags->training, "end a last final in <|return|>, as in training data");
  command->footer(
      "One line in: {\"conversation\": {\"messages\": [...]}, \"next_role\": \"assistant\" or null, "
      "\"auto_drop_analysis\": true}\n"
      "One line out: {\"ids\": [...], \"text\": \"...\"}, or {\"error\": \"...\"}, after which the next line is read. "
      "Exit code 1 only when a file or stream fails.");
  command->callback([flags, exit_code] { *exit_code = RunRender(*flags); });
}

}  // namespace gptoss::cli

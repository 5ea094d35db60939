#include "grammar_flags.h"

#include <utility>

#include "base/mmap_file.h"
#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace gptoss::cli {
namespace {

Result<Automaton> Compile(const GrammarFlags& flags) {
  const auto named = [](const char* flag, Result<Automaton> automaton) {
    return automaton.ok() ? std::move(automaton) : Result<Automaton>(automaton.status().WithContext(flag));
  };
  if (!flags.regex.empty()) return named("--regex", CompileRegex(flags.regex));
  if (!flags.grammar.empty()) {
    return named("--grammar", CompileGrammarFile(flags.grammar, flags.grammar.ends_with(".lark")));
  }
  const auto schema = ReadSchema(flags.json_schema);
  if (!schema.ok()) return schema.status().WithContext("--json-schema");
  return named("--json-schema", CompileJsonSchema(*schema));
}

}  // namespace

void AddGrammarFlags(CLI::App& command, GrammarFlags* flags) {
  const std::string group = "Grammar";
  auto* schema = command.add_option("--json-schema", flags->json_schema,
                                    "The answer is JSON that this schema allows: a file, or the text itself");
  auto* regex = command.add_option("--regex", flags->regex, "The answer matches this regular expression as a whole");
  auto* grammar = command.add_option(
      "--grammar", flags->grammar, "The answer follows the grammar in this file: Lark if it ends in .lark, else GBNF");
  schema->excludes(regex)->excludes(grammar)->group(group)->type_name("FILE|TEXT");
  regex->excludes(grammar)->group(group)->type_name("EXPR");
  grammar->group(group)->type_name("FILE");
}

Result<Json> ReadSchema(const std::string& source) {
  const bool is_text = source.find('{') != std::string::npos || source == "true" || source == "false";
  std::string text = source;
  if (!is_text) {
    GPTOSS_ASSIGN_OR_RETURN(text, ReadTextFile(source));
  }
  auto json = ParseJson(text);
  return json.ok() ? std::move(json) : Result<Json>(json.status().WithContext(is_text ? "the schema" : source));
}

Result<Automaton> CompileGrammarFile(const std::string& path, bool lark) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  auto automaton = lark ? CompileLark(text) : CompileGbnf(text);
  return automaton.ok() ? std::move(automaton) : Result<Automaton>(automaton.status().WithContext(path));
}

Result<std::shared_ptr<const TokenIndex>> OpenTokens(const ModelFlags& model) {
  GPTOSS_ASSIGN_OR_RETURN(auto tokenizer, OpenTokenizer(model));
  return TokenIndex::Create(std::move(tokenizer));
}

Result<OpenedGrammar> OpenGrammar(const GrammarFlags& flags, const ModelFlags& model) {
  if (flags.json_schema.empty() && flags.regex.empty() && flags.grammar.empty()) return OpenedGrammar();
  GPTOSS_ASSIGN_OR_RETURN(Automaton automaton, Compile(flags));
  GPTOSS_ASSIGN_OR_RETURN(auto tokens, OpenTokens(model));
  auto machine = Machine::Create(std::move(automaton), tokens);
  return OpenedGrammar{std::move(tokens), std::move(machine)};
}

}  // namespace gptoss::cli

#include <iostream>
#include <memory>

#include "base/mmap_file.h"
#include "commands.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"
#include "grammar/regex.h"
#include "grammar_flags.h"
#include "json/json.h"

namespace gptoss::cli {
namespace {

struct GrammarArgs {
  std::string source;    // a JSON Schema: a file, or the text itself
  std::string document;  // a file
  std::string regex, grammar, lark;
  bool draft7 = false, compact = false, batch = false;
};

JsonSchemaOptions SchemaOptions(const GrammarArgs& args) {
  JsonSchemaOptions options;
  if (args.draft7) options.dialect = SchemaDialect::kDraft7;
  options.optional_spaces = !args.compact;
  return options;
}

/// On failure: kResourceExhausted past the machine's limits.
Result<bool> IsInLanguage(const std::shared_ptr<Machine>& machine, const std::string& text) {
  GPTOSS_ASSIGN_OR_RETURN(const Machine::StateId end, machine->Step(machine->start(), text));
  return machine->Accepts(end);
}

/// Length of the longest beginning of `text` that some text of the language has.
size_t LongestPrefix(const std::shared_ptr<Machine>& machine, const std::string& text) {
  Machine::StateId state = machine->start();
  for (size_t i = 0; i < text.size(); ++i) {
    const Result<Machine::StateId> next = machine->Step(state, std::string_view(text).substr(i, 1));
    if (!next.ok() || *next == Machine::kDead) return i;
    state = *next;
  }
  return text.size();
}

/// One line of --batch: {"schema": ..., "documents": [...]} gives {"supported", "error", "accepted": [...]}.
Result<Json> CheckLine(const std::string& line, const GrammarArgs& args) {
  GPTOSS_ASSIGN_OR_RETURN(const Json in, ParseJson(line));
  const Json* schema = FindField(in, "schema");
  const Json* documents = FindField(in, "documents");
  if (schema == nullptr || documents == nullptr || !documents->is_array()) {
    return InvalidArgument("a line needs \"schema\" and a list \"documents\"");
  }
  Result<Automaton> automaton = CompileJsonSchema(*schema, SchemaOptions(args));
  if (!automaton.ok()) return Json{{"supported", false}, {"error", automaton.status().message()}};
  const auto machine = Machine::Create(*std::move(automaton), nullptr);
  Json accepted = Json::array();
  for (const Json& document : *documents) {
    GPTOSS_ASSIGN_OR_RETURN(const bool valid, IsInLanguage(machine, CanonicalJson(document, *schema)));
    accepted.push_back(valid);
  }
  return Json{{"supported", true}, {"accepted", accepted}};
}

int CheckBatch(const GrammarArgs& args) {
  std::string line;
  for (size_t number = 1; std::getline(std::cin, line); ++number) {
    const Result<Json> out = CheckLine(line, args);
    if (!out.ok()) return Fail(out.status().WithContext("stdin, line " + std::to_string(number)));
    std::cout << WriteJson(*out) << '\n';
  }
  return 0;
}

Result<Automaton> Compile(const GrammarArgs& args, Json* schema) {
  if (!args.regex.empty()) return CompileRegex(args.regex);
  if (!args.grammar.empty()) return CompileGrammarFile(args.grammar, /*lark=*/false);
  if (!args.lark.empty()) return CompileGrammarFile(args.lark, /*lark=*/true);
  GPTOSS_ASSIGN_OR_RETURN(*schema, ReadSchema(args.source));
  Result<Automaton> automaton = CompileJsonSchema(*schema, SchemaOptions(args));
  const bool is_file = args.source.find('{') == std::string::npos;
  return automaton.ok() || !is_file ? std::move(automaton)
                                    : Result<Automaton>(automaton.status().WithContext(args.source));
}

int CheckDocument(const GrammarArgs& args, const std::shared_ptr<Machine>& machine, bool is_json, const Json& schema) {
  Result<std::string> text = ReadTextFile(args.document);
  if (!text.ok()) return Fail(text.status());
  while (is_json && !text->empty() && text->back() == '\n') text->pop_back();
  Result<bool> valid = IsInLanguage(machine, *text);
  if (valid.ok() && *valid) {
    std::cout << "in the language\n";
    return 0;
  }
  std::string canonical;
  if (valid.ok() && is_json) {
    const Result<Json> document = ParseJson(*text);
    if (!document.ok()) return Fail(document.status().WithContext(args.document));
    canonical = CanonicalJson(*document, schema);
    valid = IsInLanguage(machine, canonical);
  }
  if (!valid.ok()) return Fail(valid.status().WithContext(args.document));
  if (*valid) {
    std::cout << "valid, but not written as the grammar writes it: " << canonical << '\n';
    return 0;
  }
  const size_t prefix = LongestPrefix(machine, *text);
  const char* how = prefix == text->size() ? "it ends too early, after " : "it goes wrong after ";
  return Fail(InvalidArgument(args.document + ": not in the language: " + how + std::to_string(prefix) + " bytes"));
}

int Check(GrammarArgs args) {
  const bool is_json = args.regex.empty() && args.grammar.empty() && args.lark.empty();
  if (args.batch) {
    if (args.source.empty()) return CheckBatch(args);
    return UsageError("grammar check: --batch reads schemas from stdin; leave out '" + args.source + "'");
  }
  if (is_json && args.source.empty()) return UsageError("grammar check: name a SCHEMA, --regex, --grammar or --lark");
  if (!is_json) {
    if (!args.document.empty()) {
      return UsageError("grammar check: beside --regex, --grammar or --lark there is no SCHEMA; leave out '" +
                        args.source + "'");
    }
    std::swap(args.document, args.source);
  }
  Json schema;
  Result<Automaton> automaton = Compile(args, &schema);
  if (!automaton.ok()) return Fail(automaton.status());
  std::cout << "supported: " << automaton->nodes.size() << " nodes, " << automaton->rules.size() << " rules\n";
  if (args.document.empty()) return 0;
  return CheckDocument(args, Machine::Create(*std::move(automaton), nullptr), is_json, schema);
}

}  // namespace

void RegisterGrammar(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("grammar", "Checks grammars for constrained answers");
  command->require_subcommand(1);
  CLI::App* check = command->add_subcommand("check", "Says whether a schema is supported, and a document valid");
  auto args = std::make_shared<GrammarArgs>();
  check->add_option("SCHEMA", args->source, "A JSON Schema: a file, or the text itself");
  check->add_option("DOCUMENT", args->document,
                    "A file to check; beside --regex, --grammar or --lark the only argument");
  auto* regex = check->add_option("--regex", args->regex, "A regular expression in place of SCHEMA");
  auto* grammar = check->add_option("--grammar", args->grammar, "A GBNF file in place of SCHEMA");
  auto* lark = check->add_option("--lark", args->lark, "A Lark file in place of SCHEMA");
  regex->excludes(grammar)->excludes(lark);
  grammar->excludes(lark);
  auto* draft7 = check->add_flag("--draft7", args->draft7, "Read SCHEMA by draft 7 whatever its $schema says");
  auto* compact = check->add_flag("--compact", args->compact, "No spaces after ':' and ','");
  auto* batch = check->add_flag("--batch", args->batch,
                                "JSONL on stdin: {\"schema\":…,\"documents\":[…]} to {\"supported\",\"accepted\"}");
  for (CLI::Option* other : {regex, grammar, lark}) other->excludes(draft7)->excludes(compact)->excludes(batch);
  check->callback([args, exit_code] { *exit_code = Check(*args); });
}

}  // namespace gptoss::cli

// Flags of the commands that hold their output to a grammar.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/status.h"
#include "grammar/automaton.h"
#include "grammar/machine.h"
#include "json/json.h"
#include "model_session.h"

namespace gptoss::cli {

/// At most one of them is not empty.
struct GrammarFlags {
  std::string json_schema;  // a file, or the text itself
  std::string regex;
  std::string grammar;  // a file: Lark if its name ends in .lark, else GBNF
};

/// Adds --json-schema, --regex and --grammar, which exclude each other.
void AddGrammarFlags(CLI::App& command, GrammarFlags* flags);

/// A JSON Schema from a file, or from the text itself, which has a brace or is true or false. On failure: naming it.
Result<Json> ReadSchema(const std::string& source);

/// On failure: naming the file and the line.
Result<Automaton> CompileGrammarFile(const std::string& path, bool lark);

/// What grammars need of the model's tokenizer. On failure: as OpenTokenizer.
Result<std::shared_ptr<const TokenIndex>> OpenTokens(const ModelFlags& model);

struct OpenedGrammar {
  std::shared_ptr<const TokenIndex> tokens;  // of the model's tokenizer
  std::shared_ptr<Machine> machine;          // null without any of the flags
};

/// On failure: why the grammar is not one, or not supported, naming the flag; or what OpenTokenizer says.
Result<OpenedGrammar> OpenGrammar(const GrammarFlags& flags, const ModelFlags& model);

}  // namespace gptoss::cli

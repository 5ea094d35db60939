// Random outputs for validators that are not ours (random_outputs.mjs).
//
//   random_outputs turns COUNT SEED     stdin: schemas; stdout: {"schema","text"} of what the turns hold, then
//   {"turns",
//                                       "finished","cut","tokens","wrong":[…]}
//   random_outputs documents SEEDS      stdin: schemas; stdout: {"index","seed","text"}, or "error" in place of "text"
// One JSON value a line.
#include <cstdlib>
#include <iostream>
#include <string>

#include "base/rng.h"
#include "grammar/json_schema.h"
#include "random_outputs.h"

namespace gptoss {
namespace {

std::vector<Json> ReadSchemas() {
  std::vector<Json> schemas;
  for (std::string line; std::getline(std::cin, line);) {
    Result<Json> json = ParseJson(line);
    if (json.ok()) schemas.push_back(*std::move(json));
  }
  return schemas;
}

int Turns(size_t count, uint64_t seed, const std::shared_ptr<const TokenIndex>& tokens,
          const std::shared_ptr<const Tokenizer>& tokenizer) {
  const std::vector<Json> schemas = ReadSchemas();
  const RandomLogits logits(*tokenizer, seed);
  size_t finished = 0, cut = 0, drawn = 0;
  Json wrong = Json::array();
  for (size_t i = 0; i < count; ++i) {
    const uint64_t turn_seed = Mix64(seed) + i;
    const TurnCase turn = RandomTurn(schemas, turn_seed, tokens);
    const auto grammar = TurnGrammar::Create(tokens, turn.options);
    constexpr size_t kMost = 200;  // where no limit is set
    const RandomOutput output = DrawTurn(
        *grammar, logits, turn_seed, turn.options.max_tokens > 0 ? turn.options.max_tokens : kMost, turn_seed % 4 > 0);
    std::vector<Document> documents;
    const std::string error = WhatIsWrong(turn, output, tokenizer, &documents);
    if (!error.empty()) wrong.push_back({{"seed", turn_seed}, {"error", error}});
    for (const Document& d : documents) std::cout << WriteJson({{"schema", d.schema}, {"text", d.text}}) << '\n';
    finished += output.finished ? 1 : 0;
    cut += output.finished ? 0 : 1;
    drawn += output.ids.size();
  }
  std::cout << WriteJson({{"turns", count}, {"finished", finished}, {"cut", cut}, {"tokens", drawn}, {"wrong", wrong}})
            << '\n';
  return 0;
}

int Documents(size_t seeds, const std::shared_ptr<const TokenIndex>& tokens,
              const std::shared_ptr<const Tokenizer>& tokenizer) {
  const std::vector<Json> schemas = ReadSchemas();
  const RandomLogits logits(*tokenizer, 1);
  for (size_t i = 0; i < schemas.size(); ++i) {
    Result<Automaton> automaton = CompileJsonSchema(schemas[i]);
    if (!automaton.ok()) {
      std::cout << WriteJson({{"index", i}, {"error", automaton.status().message()}}) << '\n';
      continue;
    }
    TurnOptions options;
    options.final_answer = Machine::Create(*std::move(automaton), tokens);
    options.allow_analysis = options.allow_preamble = false;
    for (size_t s = 0; s < seeds; ++s) {
      // Half end by the model's own choice as a rule, half are led to their end by the limit.
      options.max_tokens = s % 2 == 0 ? 300 : 60;
      options.answer_reserve = options.max_tokens - 1;
      const auto grammar = TurnGrammar::Create(tokens, options);
      const RandomOutput output = DrawTurn(*grammar, logits, Mix64(s) + i, options.max_tokens, s % 2 == 0);
      Json line = {{"index", i}, {"seed", s}};
      constexpr size_t kHeader = 3;
      if (output.finished && output.ids.size() > kHeader) {
        line["text"] = tokenizer->Decode(std::span(output.ids).subspan(kHeader, output.ids.size() - kHeader - 1));
      } else {
        line["error"] = output.error.empty() ? "cut" : output.error;
      }
      std::cout << WriteJson(line) << '\n';
    }
  }
  return 0;
}

}  // namespace
}  // namespace gptoss

int main(int argc, char** argv) {
  using namespace gptoss;
  const std::string what = argc > 1 ? argv[1] : "";
  const auto tokenizer = Tokenizer::Embedded();
  const auto tokens = TokenIndex::Create(*tokenizer);
  if (what == "turns" && argc == 4) {
    return Turns(std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10), *tokens, *tokenizer);
  }
  if (what == "documents" && argc == 3) return Documents(std::strtoull(argv[2], nullptr, 10), *tokens, *tokenizer);
  std::cerr << "usage: random_outputs turns COUNT SEED | documents SEEDS\n";
  return 2;
}

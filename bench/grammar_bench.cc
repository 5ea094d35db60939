// What constrained decoding costs a token: compilation, first mask, later masks, over the schemas of
// tests/data/schemas/real.json, each along one document that it allows. One core, the whole vocabulary.
//
//   grammar_bench FOLDER_WITH_THE_SCHEMAS
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "base/mmap_file.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"

namespace gptoss {
namespace {

/// Time that this thread has had on a core: what other programs take meanwhile does not count.
struct Clock {
  static double Micros() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
  }
};
double MicrosSince(double start) { return Clock::Micros() - start; }

struct Sample {
  std::vector<double> masks;  // microseconds, without the first
  double first = 0, accept = 0;
};

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(q * static_cast<double>(values.size())))];
}

/// Walks `tokens`, asking for the mask before each, and says on stderr where that took long. False: a token was
/// refused.
bool Walk(const std::shared_ptr<Machine>& machine, const std::vector<TokenId>& tokens, Sample* sample) {
  Matcher matcher(machine);
  std::vector<uint64_t> mask(machine->tokens().mask_words());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Machine::Counters before_mask = machine->counters();
    double start = Clock::Micros();
    if (!matcher.FillMask(mask).ok()) return false;
    const double took = MicrosSince(start);
    if (i == 0) {
      sample->first = took;
    } else {
      sample->masks.push_back(took);
      constexpr double kLong = 150;
      if (took > kLong) {
        const std::string before = machine->tokens().tokenizer().Decode(std::span(tokens).first(i));
        const Machine::Counters now = machine->counters();
        std::fprintf(stderr, "%.0f us, %zu rows, %zu nodes walked, after %s\n", took, now.rows - before_mask.rows,
                     now.walked_nodes - before_mask.walked_nodes,
                     before.substr(before.size() - std::min<size_t>(before.size(), 60)).c_str());
      }
    }
    const auto id = static_cast<size_t>(tokens[i]);
    if ((mask[id / 64] >> (id % 64) & 1) == 0) return false;
    start = Clock::Micros();
    const auto accepted = matcher.Accept(tokens[i]);
    sample->accept += MicrosSince(start);
    if (!accepted.ok() || !*accepted) return false;
  }
  return matcher.IsComplete();
}

void PrintRow(const char* name, size_t tokens, double compile, double first, const std::vector<double>& cold,
              const std::vector<double>& warm) {
  std::printf("| %s | %zu | %.2f | %.2f | %.1f | %.0f | %.0f | %.1f | %.0f |\n", name, tokens, compile / 1e3,
              first / 1e3, Quantile(cold, 0.5), Quantile(cold, 0.99), Quantile(cold, 1), Quantile(warm, 0.5),
              Quantile(warm, 0.99));
}

bool Pass(const Json& schemas, const Json& documents, const std::shared_ptr<const TokenIndex>& index) {
  std::printf(
      "| schema | tokens | compile, ms | first mask, ms | later p50, us | p99 | max | again p50 | again p99 |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  std::vector<double> all_cold, all_warm;
  size_t all_tokens = 0;
  double compile_sum = 0, first_sum = 0;
  for (const auto& [name, schema] : schemas.items()) {
    const std::vector<TokenId> tokens = index->tokenizer().Encode(CanonicalJson(documents[name], schema));
    const double start = Clock::Micros();
    auto automaton = CompileJsonSchema(schema);
    if (!automaton.ok()) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), automaton.status().message().c_str());
      return false;
    }
    const auto machine = Machine::Create(*std::move(automaton), index);
    const double compile = MicrosSince(start);
    Sample cold, warm;
    if (!Walk(machine, tokens, &cold) || !Walk(machine, tokens, &warm)) {
      std::fprintf(stderr, "%s: its document is not allowed\n", name.c_str());
      return false;
    }
    PrintRow(name.c_str(), tokens.size(), compile, compile + cold.first, cold.masks, warm.masks);
    all_cold.insert(all_cold.end(), cold.masks.begin(), cold.masks.end());
    all_warm.insert(all_warm.end(), warm.masks.begin(), warm.masks.end());
    all_tokens += tokens.size();
    compile_sum += compile;
    first_sum += compile + cold.first;
  }
  const auto count = static_cast<double>(schemas.size());
  PrintRow("all (means of the first two)", all_tokens, compile_sum / count, first_sum / count, all_cold, all_warm);
  return true;
}

int Run(const std::string& folder) {
  const auto read = [&](const char* name) { return *ParseJson(*ReadTextFile(folder + "/" + name)); };
  const Json schemas = read("real.json"), documents = read("real_documents.json");
  const auto tokenizer = *Tokenizer::Embedded();
  const double start = Clock::Micros();
  const auto index = *TokenIndex::Create(tokenizer);
  std::printf("trie and tables of the vocabulary: %.0f ms, once per process\n\n", MicrosSince(start) / 1e3);
  // First in a process that has seen no such schema; then, with grammars compiled anew, in one that has: the tables of
  // a vocabulary's tokens inside repeated characters belong to the vocabulary, not to a grammar.
  for (const bool seen : {false, true}) {
    std::printf("%s\n", seen ? "\ntables known, grammars new:\n" : "a fresh process:\n");
    if (!Pass(schemas, documents, index)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace gptoss

int main(int argc, char** argv) {
  if (argc == 2) return gptoss::Run(argv[1]);
  std::fprintf(stderr, "usage: grammar_bench FOLDER\n");
  return 2;
}

// JSON Schemas, regular expressions and grammars that nobody checked: the first byte says which.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"
#include "grammar/regex.h"

namespace {

void Walk(gptoss::Result<gptoss::Automaton> automaton) {
  if (!automaton.ok()) return;
  gptoss::MachineLimits limits;
  limits.max_states = 2000;
  limits.max_frames = 20000;
  limits.max_set = 200;
  const auto machine = gptoss::Machine::Create(*std::move(automaton), nullptr, limits);
  // What begins can always be completed or go on.
  gptoss::Machine::StateId state = machine->start();
  const gptoss::Result<std::string> forced = machine->ForcedBytes(state, 64);
  for (const char* text : {"{\"a\":", "[1", "ab", "\""}) {
    const auto next = machine->Step(state, text);
    if (next.ok() && *next != gptoss::Machine::kDead && !machine->Accepts(*next) && !machine->CanContinue(*next)) {
      __builtin_trap();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  gptoss::AutomatonLimits limits;
  limits.max_nodes = 20'000;
  limits.max_edges = 100'000;
  if (data[0] % 4 == 0) {
    gptoss::JsonSchemaOptions options;
    options.limits = limits;
    const gptoss::Result<gptoss::Json> schema = gptoss::ParseJson(text);
    if (schema.ok()) Walk(gptoss::CompileJsonSchema(*schema, options));
    return 0;
  }
  if (data[0] % 4 == 1) {
    Walk(gptoss::CompileRegex(text, limits));
    return 0;
  }
  gptoss::EbnfOptions options;
  options.limits = limits;
  Walk(data[0] % 4 == 2 ? gptoss::CompileGbnf(text, options) : gptoss::CompileLark(text, options));
  return 0;
}

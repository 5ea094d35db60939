// What the tests of this folder share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/machine.h"
#include "grammar/regex.h"

namespace gptoss {

inline Automaton MustCompile(Result<Automaton> automaton) {
  EXPECT_TRUE(automaton.ok()) << automaton.status().message();
  return automaton.ok() ? *std::move(automaton) : *CompileRegex("never");
}

inline bool Matches(const std::shared_ptr<Machine>& machine, std::string_view text) {
  const Result<Machine::StateId> end = machine->Step(machine->start(), text);
  EXPECT_TRUE(end.ok()) << end.status().message();
  return end.ok() && machine->Accepts(*end);
}

/// Texts that must be in the language of a schema or an expression, and texts that must not.
struct LanguageCase {
  const char* source;
  std::vector<const char*> yes, no;
};

inline void CheckLanguage(const std::shared_ptr<Machine>& machine, const LanguageCase& c) {
  for (const char* text : c.yes) EXPECT_TRUE(Matches(machine, text)) << c.source << " on " << text;
  for (const char* text : c.no) EXPECT_FALSE(Matches(machine, text)) << c.source << " on " << text;
}

}  // namespace gptoss

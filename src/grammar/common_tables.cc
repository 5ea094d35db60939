// Tables of a vocabulary that nearly every grammar needs, made when the vocabulary is read.
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/json_schema.h"
#include "grammar/machine.h"

namespace gptoss {
namespace {

/// A document to walk under a schema: the masks on the way ask for the tables.
struct Sample {
  const char* schema;
  std::string_view text;
};

constexpr Sample kSamples[] = {
    {"{}", R"({"a\n": "b\u00e9\\ \uD83D\uDE00 é世😀", "c": [-1.5e+3, true]})"},
    {R"({"properties": {"a": true}})", R"({"a": 1, "é\n世": 2})"},
    {R"({"pattern": "^.*$"})", R"("a b\t")"},
    {R"({"pattern": "^[^\n]+$"})", R"("a b\t")"},
    {R"({"pattern": "^\\w+$"})", R"("a b\t")"},
    {R"({"pattern": "^[a-z_]+$"})", R"("a_")"},
    {R"({"pattern": "^[A-Za-z_]+$"})", R"("A_")"},
    {R"({"pattern": "^[A-Za-z0-9.-]+$"})", R"("a-b")"},
    {R"({"pattern": "^[A-Za-z0-9_.-]+$"})", R"("a-b")"},
    {R"({"pattern": "^[a-z]+$"})", R"("ab")"},
    {R"({"pattern": "^[A-Z]+$"})", R"("AB")"},
    {R"({"pattern": "^[A-Z0-9]+$"})", R"("AB")"},
    {R"({"pattern": "^[a-z0-9]+$"})", R"("ab")"},
    {R"({"pattern": "^[A-Za-z]+$"})", R"("Ab")"},
    {R"({"pattern": "^[A-Za-z0-9]+$"})", R"("Ab1")"},
    {R"({"pattern": "^[a-z0-9_-]+$"})", R"("a-b")"},
    {R"({"pattern": "^[A-Za-z0-9_-]+$"})", R"("a-b")"},
    {R"({"format": "email"})", R"("joe.b-c@a-b.example.org")"},
    {R"({"format": "uri"})", R"("https://user@a-b.example.org:80/x/%20y?q=1#z")"},
    {R"({"format": "hostname"})", R"("a-b.example.org")"},
    {R"({"format": "date-time"})", R"("2024-02-29T10:00:00.5Z")"},
};

}  // namespace

void TokenIndex::PrepareCommonTables(const std::shared_ptr<const TokenIndex>& tokens) {
  std::vector<uint64_t> mask(tokens->mask_words());
  for (const Sample& sample : kSamples) {
    const Result<Json> schema = ParseJson(sample.schema);
    GPTOSS_CHECK(schema.ok());
    Result<Automaton> automaton = CompileJsonSchema(*schema);
    GPTOSS_CHECK(automaton.ok());
    Matcher matcher(Machine::Create(*std::move(automaton), tokens));
    // By characters and not by tokens, so that all vocabularies get the same tables.
    for (const char c : sample.text) {
      if (!matcher.FillMask(mask).ok() || !matcher.AcceptBytes(std::string_view(&c, 1)).ok()) break;
    }
  }
}

}  // namespace gptoss

// Hugging Face's tokenizer.json. Read in one pass without a tree: the published file has 28 MB.
#include <simdjson.h>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/vocabulary.h"

namespace gptoss {
namespace {

namespace od = simdjson::ondemand;

/// As the published file writes it. Another pattern would cut text differently without any other sign of it.
constexpr std::string_view kSplitPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Longest piece of the file's text repeated in an error.
constexpr size_t kQuotedBytes = 80;

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text.substr(0, kQuotedBytes)) {
    quoted.push_back(static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) >= 0x7F ? '?' : c);
  }
  return quoted + (text.size() > kQuotedBytes ? "…\"" : "\"");
}

/// The library's errors become values at one place: a simdjson result goes in, a Status names the field.
#define GPTOSS_JSON(expr, field)                                                      \
  do {                                                                                \
    if (const simdjson::error_code code_ = (expr); code_ != simdjson::SUCCESS) {      \
      return CorruptData(std::string(field) + ": " + simdjson::error_message(code_)); \
    }                                                                                 \
  } while (0)

struct AddedToken {
  TokenId id;
  std::string content;
};

class Reader {
 public:
  Status Read(std::string text);
  Vocabulary Take() { return std::move(vocabulary_); }

 private:
  Status ReadRoot(od::object root);
  Status ReadModel(od::object model);
  Status ReadVocab(od::object vocab);
  Status ReadAddedTokens(od::array tokens);
  Status ReadPreTokenizer(od::value value);
  Status ReadPretokenizerSteps(od::array steps);
  Status ReadStep(od::object step);
  Status PlaceAddedTokens();

  Vocabulary vocabulary_;
  std::vector<AddedToken> added_;
  bool has_vocab_ = false;
  bool has_pattern_ = false;
};

Status Reader::Read(std::string text) {
  const size_t size = text.size();
  text.reserve(size + simdjson::SIMDJSON_PADDING);
  od::parser parser(Vocabulary::kMaxFileBytes);
  od::document document;
  GPTOSS_JSON(parser.iterate(text.data(), size, text.capacity()).get(document), "not valid JSON");
  od::object root;
  GPTOSS_JSON(document.get_object().get(root), "the file must hold one JSON object");
  GPTOSS_RETURN_IF_ERROR(ReadRoot(root));
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) {
    return CorruptData("text after the end of the JSON object");
  }
  if (!has_vocab_) return CorruptData("model.vocab is missing; is this a tokenizer.json?");
  if (!has_pattern_) return Unsupported("pre_tokenizer has no Split pattern; only that of o200k is supported");
  return PlaceAddedTokens();
}

Status Reader::ReadRoot(od::object root) {
  for (auto field : root) {
    std::string_view key;
    GPTOSS_JSON(field.unescaped_key().get(key), "a key of the file");
    od::value value;
    GPTOSS_JSON(field.value().get(value), key);
    if (key == "model") {
      od::object model;
      GPTOSS_JSON(value.get_object().get(model), "model");
      GPTOSS_RETURN_IF_ERROR(ReadModel(model));
    } else if (key == "added_tokens") {
      od::array tokens;
      GPTOSS_JSON(value.get_array().get(tokens), "added_tokens");
      GPTOSS_RETURN_IF_ERROR(ReadAddedTokens(tokens));
    } else if (key == "pre_tokenizer") {
      GPTOSS_RETURN_IF_ERROR(ReadPreTokenizer(value));
    } else if (key == "normalizer") {
      bool is_null = false;
      GPTOSS_JSON(value.is_null().get(is_null), "normalizer");
      if (!is_null) return Unsupported("normalizer must be null: this program encodes text as it is");
    }
  }
  return {};
}

Status Reader::ReadModel(od::object model) {
  for (auto field : model) {
    std::string_view key;
    GPTOSS_JSON(field.unescaped_key().get(key), "a key of model");
    od::value value;
    GPTOSS_JSON(field.value().get(value), "model");
    if (key == "type") {
      std::string_view type;
      GPTOSS_JSON(value.get_string().get(type), "model.type");
      if (type != "BPE") return Unsupported("model.type is " + Quoted(type) + "; only \"BPE\" is supported");
    } else if (key == "vocab") {
      if (has_vocab_) return CorruptData("model.vocab is given twice");
      has_vocab_ = true;
      od::object vocab;
      GPTOSS_JSON(value.get_object().get(vocab), "model.vocab");
      GPTOSS_RETURN_IF_ERROR(ReadVocab(vocab));
    }
  }
  return {};
}

Status Reader::ReadVocab(od::object vocab) {
  vocabulary_.Reserve(kHarmonyLastSpecial + 1, 2u << 20);
  std::string bytes;
  for (auto field : vocab) {
    std::string_view spelling;
    GPTOSS_JSON(field.unescaped_key().get(spelling), "a key of model.vocab");
    int64_t id = 0;
    GPTOSS_JSON(field.value().get_int64().get(id), "model.vocab, id of " + Quoted(spelling));
    if (id < 0 || id >= Vocabulary::kMaxTokens) {
      return CorruptData("model.vocab: id " + std::to_string(id) + " is outside of 0 to " +
                         std::to_string(Vocabulary::kMaxTokens - 1));
    }
    bytes.clear();
    if (!BytesFromAlphabet(spelling, &bytes)) {
      return CorruptData("model.vocab: the token of id " + std::to_string(id) + " is not in GPT-2's byte alphabet");
    }
    const Status status = vocabulary_.Add(static_cast<TokenId>(id), bytes, Vocabulary::Kind::kOrdinary);
    if (!status.ok()) return status.WithContext("model.vocab");
  }
  return {};
}

Status Reader::ReadAddedTokens(od::array tokens) {
  for (auto element : tokens) {
    od::object token;
    GPTOSS_JSON(element.get_object().get(token), "added_tokens");
    int64_t id = -1;
    std::string content;
    for (auto field : token) {
      std::string_view key;
      GPTOSS_JSON(field.unescaped_key().get(key), "a key of added_tokens");
      if (key == "id") {
        GPTOSS_JSON(field.value().get_int64().get(id), "added_tokens, id");
      } else if (key == "content") {
        std::string_view text;
        GPTOSS_JSON(field.value().get_string().get(text), "added_tokens, content");
        content = text;
      }
    }
    if (id < 0 || id >= Vocabulary::kMaxTokens || content.empty()) {
      return CorruptData("added_tokens: entry " + std::to_string(added_.size()) + " needs an id from 0 to " +
                         std::to_string(Vocabulary::kMaxTokens - 1) + " and a content");
    }
    added_.push_back({static_cast<TokenId>(id), std::move(content)});
    if (added_.size() > static_cast<size_t>(Vocabulary::kMaxTokens)) return CorruptData("added_tokens is too long");
  }
  return {};
}

/// Either one Split step, or a Sequence with one among its steps.
Status Reader::ReadPreTokenizer(od::value value) {
  bool is_null = false;
  GPTOSS_JSON(value.is_null().get(is_null), "pre_tokenizer");
  if (is_null) return {};
  od::object step;
  GPTOSS_JSON(value.get_object().get(step), "pre_tokenizer");
  return ReadStep(step);
}

Status Reader::ReadStep(od::object step) {
  for (auto field : step) {
    std::string_view key;
    GPTOSS_JSON(field.unescaped_key().get(key), "a key of pre_tokenizer");
    od::value value;
    GPTOSS_JSON(field.value().get(value), "pre_tokenizer");
    if (key == "pretokenizers") {
      od::array steps;
      GPTOSS_JSON(value.get_array().get(steps), "pre_tokenizer.pretokenizers");
      GPTOSS_RETURN_IF_ERROR(ReadPretokenizerSteps(steps));
    } else if (key == "pattern") {
      std::string_view pattern;
      GPTOSS_JSON(value.find_field("Regex").get_string().get(pattern), "pre_tokenizer.pattern.Regex");
      if (pattern != kSplitPattern) {
        return Unsupported("pre_tokenizer.pattern is not that of o200k: " + Quoted(pattern));
      }
      has_pattern_ = true;
    }
  }
  return {};
}

Status Reader::ReadPretokenizerSteps(od::array steps) {
  for (auto element : steps) {
    od::object step;
    GPTOSS_JSON(element.get_object().get(step), "pre_tokenizer.pretokenizers");
    // Steps of steps do not occur, and following them would recurse on the input's depth.
    for (auto field : step) {
      std::string_view key;
      GPTOSS_JSON(field.unescaped_key().get(key), "a key of pre_tokenizer.pretokenizers");
      if (key != "pattern") continue;
      std::string_view pattern;
      GPTOSS_JSON(field.value().find_field("Regex").get_string().get(pattern),
                  "pre_tokenizer.pretokenizers.pattern.Regex");
      if (pattern != kSplitPattern) {
        return Unsupported("pre_tokenizer.pretokenizers.pattern is not that of o200k: " + Quoted(pattern));
      }
      has_pattern_ = true;
    }
  }
  return {};
}

/// Added tokens may stand before or after the vocabulary in the file, and may repeat entries of it.
Status Reader::PlaceAddedTokens() {
  for (const AddedToken& token : added_) {
    if (vocabulary_.MakeSpecial(token.id, token.content)) continue;
    const Status status = vocabulary_.Add(token.id, token.content, Vocabulary::Kind::kSpecial);
    if (!status.ok()) return status.WithContext("added_tokens, " + Quoted(token.content));
  }
  vocabulary_.CompleteHarmonySpecials();
  return {};
}

}  // namespace

Result<Vocabulary> Vocabulary::FromTokenizerJson(std::string text) {
  Reader reader;
  GPTOSS_RETURN_IF_ERROR(reader.Read(std::move(text)));
  return reader.Take();
}

}  // namespace gptoss

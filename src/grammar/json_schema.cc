#include "grammar/json_schema.h"

#include <algorithm>
#include <utility>

#include "grammar/char_dfa.h"
#include "grammar/schema_keywords.h"
#include "grammar/schema_reader.h"

namespace gptoss {
namespace {

constexpr size_t kMaxKeyPatterns = 6;  // keys are told apart by every combination of patterns
constexpr size_t kMaxRules = 50'000;

/// A string's or key's text as JSON in the shortest form, with quotes.
std::string Quoted(const std::string& text) { return WriteJson(Json(text)); }

class SchemaCompiler {
 public:
  SchemaCompiler(SchemaReader reader, const JsonSchemaOptions& options)
      : reader_(std::move(reader)),
        spaces_(options.optional_spaces),
        only_objects_(options.only_objects),
        builder_(options.limits) {}

  Result<Automaton> Compile() {
    static const Json kObject = {{"type", "object"}};
    std::vector<SchemaRef> all = {reader_.root()};
    if (only_objects_) all.push_back({&kObject, "#"});
    const RuleId root = RuleFor(MakeSchemaSet(std::move(all)));
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (builder_.full()) break;
      if (pending_.size() > kMaxRules) return ResourceExhausted("schema: too many different parts; simplify it");
      const Pending next = pending_[i];
      GPTOSS_RETURN_IF_ERROR(FillRule(next));
    }
    Result<Automaton> automaton = builder_.Build(root);
    return automaton.ok() ? std::move(automaton) : Result<Automaton>(automaton.status().WithContext("schema"));
  }

 private:
  struct Pending {
    RuleId rule;
    SchemaSet set;
  };

  /// The rule of documents for which all of `set` holds; filled later, so that recursion costs no stack.
  RuleId RuleFor(const SchemaSet& set) {
    std::string key = "schema";
    for (const SchemaRef& ref : set) key += " " + std::to_string(reinterpret_cast<uintptr_t>(ref.json));
    RuleId rule = 0;
    if (!builder_.FindOrAddRule(key, set.empty() ? "any" : set[0].pointer, &rule)) pending_.push_back({rule, set});
    return rule;
  }

  Status FillRule(const Pending& pending) {
    GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> shapes, reader_.Expand(pending.set));
    for (const Shape& shape : shapes) {
      GPTOSS_RETURN_IF_ERROR(EmitShape(shape, builder_.Start(pending.rule), builder_.End(pending.rule)));
    }
    return {};
  }

  void Separator(char c, NodeId from, NodeId to) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (!spaces_) return builder_.Bytes(from, byte, byte, to);
    const NodeId after = builder_.NewNode();
    builder_.Bytes(from, byte, byte, after);
    builder_.Empty(after, to);
    builder_.Bytes(after, ' ', ' ', to);
  }

  Status EmitShape(const Shape& shape, NodeId from, NodeId to) {
    if (shape.values) return EmitValues(shape, from, to);
    if ((shape.types & kNullType) != 0) builder_.Literal(from, "null", to);
    if ((shape.types & kBooleanType) != 0) {
      builder_.Literal(from, "true", to);
      builder_.Literal(from, "false", to);
    }
    if ((shape.types & (kIntegerType | kFractionType)) != 0) {
      NumberRange range = shape.range;
      range.integer = (shape.types & kFractionType) == 0;
      if ((shape.types & kIntegerType) == 0) return Unsupported("schema: a number that must not be an integer");
      GPTOSS_RETURN_IF_ERROR(EmitNumber(range, from, to, &builder_));
    }
    if ((shape.types & kStringType) != 0) GPTOSS_RETURN_IF_ERROR(EmitString(shape, from, to));
    if ((shape.types & kArrayType) != 0) EmitArray(shape, from, to);
    if ((shape.types & kObjectType) != 0) GPTOSS_RETURN_IF_ERROR(EmitObject(shape, from, to));
    return {};
  }

  Status EmitValues(const Shape& shape, NodeId from, NodeId to) {
    // Words that begin alike share their beginning, so that a long enum is not many ways at once.
    std::map<std::pair<NodeId, char>, NodeId> tree;
    Shape rest = shape;  // to be one of the values is no question
    rest.values.reset();
    for (const Json& value : *shape.values) {
      GPTOSS_ASSIGN_OR_RETURN(const bool valid, reader_.Validates(value, rest, 0));
      if (!valid) continue;
      if (value.is_structured()) {
        EmitDocument(value, from, to);
        continue;
      }
      const std::string text = value.is_number() ? NumberText(value) : WriteJson(value);
      NodeId at = from;
      for (char c : text) {
        const auto [it, added] = tree.try_emplace({at, c}, 0);
        if (added) {
          it->second = builder_.NewNode();
          builder_.Bytes(at, static_cast<uint8_t>(c), static_cast<uint8_t>(c), it->second);
        }
        at = it->second;
      }
      builder_.Empty(at, to);
    }
    return {};
  }

  void EmitDocument(const Json& value, NodeId from, NodeId to) {
    if (!value.is_structured()) {
      return builder_.Literal(from, value.is_number() ? NumberText(value) : WriteJson(value), to);
    }
    NodeId at = builder_.NewNode();
    const bool object = value.is_object();
    builder_.Literal(from, object ? "{" : "[", at);
    bool first = true;
    for (const auto& item : value.items()) {
      NodeId next = builder_.NewNode();
      if (!first) {
        Separator(',', at, next);
        at = next;
        next = builder_.NewNode();
      }
      first = false;
      if (object) {
        builder_.Literal(at, Quoted(item.key()), next);
        at = next;
        next = builder_.NewNode();
        Separator(':', at, next);
        at = next;
        next = builder_.NewNode();
      }
      EmitDocument(item.value(), at, next);
      at = next;
    }
    builder_.Literal(at, object ? "}" : "]", to);
  }

  /// One character of a string in any form that JSON allows; a surrogate pair is one.
  RuleId CharacterRule() {
    RuleId rule = 0;
    if (builder_.FindOrAddRule("json character", "character", &rule)) return rule;
    const NodeId from = builder_.Start(rule), to = builder_.End(rule);
    const CodePointSet plain = CodePointSet::Of({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).Complement();
    EmitClass(plain, TextForm::kUtf8, from, to, &builder_);
    const NodeId escape = builder_.NewNode();
    builder_.Bytes(from, '\\', '\\', escape);
    for (char c : std::string_view("\"\\/bfnrt"))
      builder_.Bytes(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    const auto hex = [&](NodeId a, std::string_view digits, NodeId b) {
      for (char c : digits) builder_.Bytes(a, static_cast<uint8_t>(c), static_cast<uint8_t>(c), b);
    };
    constexpr std::string_view kAll = "0123456789abcdefABCDEF";
    NodeId u[5], low[6];
    for (NodeId& n : u) n = builder_.NewNode();
    for (NodeId& n : low) n = builder_.NewNode();
    builder_.Bytes(escape, 'u', 'u', u[0]);
    hex(u[0], "0123456789abcefABCEF", u[1]);
    hex(u[0], "dD", u[4]);
    hex(u[1], kAll, u[2]);
    hex(u[4], "01234567", u[2]);
    hex(u[2], kAll, u[3]);
    hex(u[3], kAll, to);
    hex(u[4], "89abAB", low[0]);
    const NodeId high_end = builder_.NewNode();
    hex(low[0], kAll, low[1]);
    hex(low[1], kAll, high_end);
    builder_.Bytes(high_end, '\\', '\\', low[2]);
    builder_.Bytes(low[2], 'u', 'u', low[3]);
    hex(low[3], "dD", low[4]);
    hex(low[4], "cdefCDEF", low[5]);
    const NodeId last = builder_.NewNode();
    hex(low[5], kAll, last);
    hex(last, kAll, to);
    return rule;
  }

  Status EmitString(const Shape& shape, NodeId from, NodeId to) {
    const NodeId open = builder_.NewNode(), close = builder_.NewNode();
    builder_.Bytes(from, '"', '"', open);
    builder_.Bytes(close, '"', '"', to);
    if (shape.min_length > shape.max_length) return {};
    if (shape.patterns.empty()) {
      builder_.Repeat(open, CharacterRule(), shape.min_length, shape.max_length, close);
      return {};
    }
    const bool any_length = shape.min_length == 0 && shape.max_length == kUnbounded;
    if (shape.patterns.size() == 1) {
      const Regex& regex = shape.patterns[0];
      if (any_length) return EmitRegex(regex, TextForm::kJson, open, close, &builder_);
      if (regex->kind == RegexNode::Kind::kRepeat && regex->parts[0]->kind == RegexNode::Kind::kClass) {
        const uint32_t min = std::max(regex->min, shape.min_length), max = std::min(regex->max, shape.max_length);
        if (min > max) return {};
        return EmitRegex(RepeatRegex(regex->parts[0], min, max), TextForm::kJson, open, close, &builder_);
      }
    }
    CharDfa dfa = CharDfa::All();
    if (!any_length) {
      GPTOSS_ASSIGN_OR_RETURN(dfa, CharDfa::FromLength(shape.min_length, shape.max_length));
    }
    for (const Regex& pattern : shape.patterns) {
      GPTOSS_ASSIGN_OR_RETURN(const CharDfa next, CharDfa::FromRegex(pattern));
      GPTOSS_ASSIGN_OR_RETURN(dfa, dfa.Intersection(next));
    }
    dfa.Emit(TextForm::kJson, open, close, &builder_);
    return {};
  }

  void EmitArray(const Shape& shape, NodeId from, NodeId to) {
    if (shape.min_items > shape.max_items) return;
    const uint32_t prefix = static_cast<uint32_t>(std::min<size_t>(shape.PrefixLength(), shape.max_items));
    const NodeId end = builder_.NewNode();
    builder_.Bytes(end, ']', ']', to);
    NodeId at = builder_.NewNode();
    builder_.Bytes(from, '[', '[', at);
    // `at` follows i items. One item more than the prefix is written out where the prefix is empty: it has no comma.
    uint32_t i = 0;
    for (; i < std::max(prefix, 1u) && i < shape.max_items; ++i) {
      if (i >= shape.min_items) builder_.Empty(at, end);
      NodeId item = at;
      if (i > 0) {
        item = builder_.NewNode();
        Separator(',', at, item);
      }
      at = builder_.NewNode();
      builder_.Call(item, RuleFor(shape.ItemSchemas(i)), at);
    }
    if (i == shape.max_items) return builder_.Empty(at, end);
    const SchemaSet rest = shape.ItemSchemas(shape.PrefixLength());
    const RuleId more = builder_.NewRule("items");
    const NodeId item = builder_.NewNode();
    Separator(',', builder_.Start(more), item);
    builder_.Call(item, RuleFor(rest), builder_.End(more));
    const uint32_t max = shape.max_items == kUnbounded ? kUnbounded : shape.max_items - i;
    builder_.Repeat(at, more, shape.min_items > i ? shape.min_items - i : 0, max, end);
  }

  /// A key and its value, for keys that the schema does not name. False when there can be none.
  Result<bool> EmitAdditional(const Shape& shape, const std::vector<std::string>& names, RuleId* rule) {
    *rule = builder_.NewRule("additional property");
    std::vector<std::pair<const Regex*, size_t>> patterns;  // and the part that they belong to
    for (size_t p = 0; p < shape.objects.size(); ++p) {
      for (const auto& pattern : shape.objects[p].patterns) patterns.emplace_back(&pattern.first, p);
    }
    if (patterns.size() > kMaxKeyPatterns) {
      return Unsupported("schema: more than " + std::to_string(kMaxKeyPatterns) + " patternProperties at one place");
    }
    std::vector<CharDfa> dfas;
    for (const auto& [regex, part] : patterns) {
      GPTOSS_ASSIGN_OR_RETURN(CharDfa dfa, CharDfa::FromRegex(*regex));
      dfas.push_back(std::move(dfa));
    }
    bool any = false;
    for (uint32_t chosen = 0; chosen < 1u << patterns.size(); ++chosen) {
      const std::optional<SchemaSet> value = ValueOf(shape, chosen);
      if (!value) continue;
      const NodeId key = builder_.NewNode(), colon = builder_.NewNode(), after = builder_.NewNode();
      if (patterns.empty() && names.empty()) {
        const NodeId open = builder_.NewNode();
        builder_.Bytes(builder_.Start(*rule), '"', '"', open);
        builder_.Repeat(open, CharacterRule(), 0, kUnbounded, key);
      } else if (names.empty() && patterns.size() == 1 && chosen == 1) {
        // As it is written: its repetitions stay counters.
        const NodeId open = builder_.NewNode();
        builder_.Bytes(builder_.Start(*rule), '"', '"', open);
        GPTOSS_RETURN_IF_ERROR(EmitRegex(*patterns[0].first, TextForm::kJson, open, key, &builder_));
      } else {
        CharDfa dfa = CharDfa::FromTexts(names).Complement();
        for (size_t i = 0; i < dfas.size(); ++i) {
          GPTOSS_ASSIGN_OR_RETURN(dfa, dfa.Intersection((chosen >> i & 1) != 0 ? dfas[i] : dfas[i].Complement()));
        }
        if (dfa.empty()) continue;
        const NodeId open = builder_.NewNode();
        builder_.Bytes(builder_.Start(*rule), '"', '"', open);
        dfa.Emit(TextForm::kJson, open, key, &builder_);
      }
      any = true;
      builder_.Bytes(key, '"', '"', colon);
      Separator(':', colon, after);
      builder_.Call(after, RuleFor(*value), builder_.End(*rule));
    }
    return any;
  }

  /// Schemas of the value under a key that matches exactly the chosen patterns and is not named; nothing when no value
  /// is allowed.
  static std::optional<SchemaSet> ValueOf(const Shape& shape, uint32_t chosen) {
    std::vector<SchemaRef> refs;
    size_t bit = 0;
    for (const ObjectPart& part : shape.objects) {
      bool matched = false;
      for (const auto& pattern : part.patterns) {
        if ((chosen >> bit++ & 1) == 0) continue;
        matched = true;
        refs.push_back(pattern.second);
      }
      if (!matched && part.additional) refs.push_back(*part.additional);
    }
    for (const SchemaRef& ref : refs) {
      if (ref.json->is_boolean() && !ref.json->get<bool>()) return std::nullopt;
    }
    return MakeSchemaSet(std::move(refs));
  }

  Status EmitObject(const Shape& shape, NodeId from, NodeId to) {
    if (shape.min_properties > shape.required.size()) {
      return Unsupported("schema " + shape.min_properties_pointer +
                         ": minProperties is supported up to the number of required properties only");
    }
    const std::vector<std::string> names = shape.Keys();
    const NodeId end = builder_.NewNode();
    builder_.Bytes(end, '}', '}', to);
    NodeId none = builder_.NewNode();  // no property so far
    std::optional<NodeId> some;        // a property before: a comma must follow
    builder_.Bytes(from, '{', '{', none);
    bool may_be_none = true;
    for (const std::string& name : names) {
      GPTOSS_ASSIGN_OR_RETURN(const SchemaSet value, shape.ValueSchemas(name));
      const NodeId key = builder_.NewNode(), colon = builder_.NewNode(), inner = builder_.NewNode();
      const NodeId next = builder_.NewNode();
      if (may_be_none) builder_.Empty(none, key);
      if (some) Separator(',', *some, key);
      builder_.Literal(key, Quoted(name), colon);
      Separator(':', colon, inner);
      builder_.Call(inner, RuleFor(value), next);
      if (shape.Requires(name)) {
        may_be_none = false;
      } else if (some) {
        builder_.Empty(*some, next);
      }
      some = next;
    }
    RuleId pair = 0;
    GPTOSS_ASSIGN_OR_RETURN(const bool additional, EmitAdditional(shape, names, &pair));
    if (may_be_none) {
      builder_.Empty(none, end);
      if (additional) {
        const NodeId after = builder_.NewNode();
        builder_.Call(none, pair, after);
        if (some) {
          builder_.Empty(after, *some);
        } else {
          some = after;
        }
      }
    }
    if (!some) return {};
    if (!additional) {
      builder_.Empty(*some, end);
      return {};
    }
    const RuleId more = builder_.NewRule("additional properties");
    const NodeId start = builder_.NewNode();
    Separator(',', builder_.Start(more), start);
    builder_.Call(start, pair, builder_.End(more));
    builder_.Repeat(*some, more, 0, kUnbounded, end);
    return {};
  }

  SchemaReader reader_;
  bool spaces_, only_objects_;
  AutomatonBuilder builder_;
  std::vector<Pending> pending_;
};

}  // namespace

Result<Automaton> CompileJsonSchema(const Json& schema, const JsonSchemaOptions& options) {
  GPTOSS_ASSIGN_OR_RETURN(SchemaReader reader, SchemaReader::Create(schema, options.dialect));
  return SchemaCompiler(std::move(reader), options).Compile();
}

Result<Automaton> AnyJsonObject(const JsonSchemaOptions& options) {
  return CompileJsonSchema(Json{{"type", "object"}}, options);
}

}  // namespace gptoss

// oneOf: that no two branches can hold together.
#include <algorithm>
#include <utility>

#include "grammar/char_dfa.h"
#include "grammar/schema_pointer.h"
#include "grammar/schema_reader.h"

namespace gptoss {
namespace {

constexpr int kMaxNestedChoices = 8;
constexpr int kMaxNestedObjects = 3;  // looked into for a key that tells two apart

}  // namespace

Status SchemaReader::CheckExclusive(const Choice& choice, const Partial& common, int depth) {
  if (depth > kMaxNestedChoices) return UnsupportedSchema(choice.pointer, "oneOf is nested too deeply");
  std::vector<std::vector<Shape>> shapes(choice.branches.size());
  for (size_t i = 0; i < choice.branches.size(); ++i) {
    Partial branch = common;
    // What an enclosing oneOf rules out is not needed to tell these branches apart.
    branch.choices.clear();
    GPTOSS_RETURN_IF_ERROR(Collect(choice.branches[i], &branch, depth + 1));
    GPTOSS_RETURN_IF_ERROR(ExpandPartial(std::move(branch), &shapes[i], depth + 1));
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    for (size_t j = i + 1; j < shapes.size(); ++j) {
      for (const Shape& a : shapes[i]) {
        for (const Shape& b : shapes[j]) {
          GPTOSS_ASSIGN_OR_RETURN(const bool disjoint, Disjoint(a, b, 0));
          if (disjoint) continue;
          return UnsupportedSchema(
              choice.pointer,
              "the branches " + std::to_string(i) + " and " + std::to_string(j) +
                  " of oneOf may hold together; use anyOf, or tell them apart by type, const or a required key");
        }
      }
    }
  }
  return {};
}

Result<bool> SchemaReader::DisjointStrings(const Shape& a, const Shape& b) {
  if (a.max_length < b.min_length || b.max_length < a.min_length) return true;
  if (a.patterns.empty() || b.patterns.empty()) return false;
  CharDfa dfa = CharDfa::All();
  for (const Shape* shape : {&a, &b}) {
    for (const Regex& pattern : shape->patterns) {
      GPTOSS_ASSIGN_OR_RETURN(const CharDfa next, CharDfa::FromRegex(pattern));
      GPTOSS_ASSIGN_OR_RETURN(dfa, dfa.Intersection(next));
    }
  }
  return dfa.empty();
}

Result<bool> SchemaReader::DisjointObjects(const Shape& a, const Shape& b, int depth) {
  if (depth > kMaxNestedObjects) return false;
  for (const Shape* shape : {&a, &b}) {
    for (const std::string& key : shape->required) {
      GPTOSS_ASSIGN_OR_RETURN(const SchemaSet left, a.ValueSchemas(key));
      GPTOSS_ASSIGN_OR_RETURN(const SchemaSet right, b.ValueSchemas(key));
      GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> lefts, Expand(left));
      GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> rights, Expand(right));
      bool apart = true;
      for (const Shape& x : lefts) {
        for (const Shape& y : rights) {
          if (!apart) break;
          GPTOSS_ASSIGN_OR_RETURN(apart, Disjoint(x, y, depth + 1));
        }
      }
      if (apart) return true;
    }
  }
  return false;
}

Result<bool> SchemaReader::Disjoint(const Shape& a, const Shape& b, int depth) {
  if (++work_ > kMaxWork) return ResourceExhausted("schema: too many combinations of oneOf");
  if (a.impossible || b.impossible) return true;
  for (const auto& [x, y] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    if (!x->values) continue;
    for (const Json& value : *x->values) {
      GPTOSS_ASSIGN_OR_RETURN(const bool in_x, Validates(value, *x, 0));
      GPTOSS_ASSIGN_OR_RETURN(const bool in_y, Validates(value, *y, 0));
      if (in_x && in_y) return false;
    }
    return true;
  }
  const uint8_t types = a.types & b.types;
  if ((types & (kNullType | kBooleanType)) != 0) return false;
  if ((types & (kIntegerType | kFractionType)) != 0) {
    const auto above = [](const NumberRange& low, const NumberRange& high) {
      if (!low.upper || !high.lower) return false;
      const int order = Compare(low.upper->value, high.lower->value);
      return order < 0 || (order == 0 && (low.upper->exclusive || high.lower->exclusive));
    };
    if (!above(a.range, b.range) && !above(b.range, a.range)) return false;
  }
  if ((types & kStringType) != 0) {
    GPTOSS_ASSIGN_OR_RETURN(const bool apart, DisjointStrings(a, b));
    if (!apart) return false;
  }
  if ((types & kArrayType) != 0 && !(a.max_items < b.min_items || b.max_items < a.min_items)) return false;
  if ((types & kObjectType) == 0) return true;
  return DisjointObjects(a, b, depth);
}

}  // namespace gptoss

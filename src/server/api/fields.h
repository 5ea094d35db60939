// Typed reading of a request's fields. Messages have the form "path: what is wrong", as openai/errors.h expects.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "json/json.h"

namespace gptoss::server {

/// Reads an object's fields and keeps the first failure. A field that is absent or null is not there.
class FieldReader {
 public:
  /// `json` must outlive the reader; `path` ("input[3]") comes before the names of fields, empty at the top. What is no
  /// object is a failure.
  explicit FieldReader(const Json& json, std::string path = {});

  const Json* Find(std::string_view key) const;
  const Json* Array(std::string_view key);
  const Json* Object(std::string_view key);
  std::optional<bool> Bool(std::string_view key);
  std::optional<int64_t> Int(std::string_view key, int64_t min, int64_t max);
  std::optional<double> Number(std::string_view key, double min, double max);
  std::optional<std::string> String(std::string_view key);
  /// Absent is a failure.
  std::string RequiredString(std::string_view key);

  std::string Path(std::string_view key) const;
  /// Notes a failure about `key` unless there is one already.
  void Fail(std::string_view key, std::string_view what);
  const Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

 private:
  const Json* json_;
  std::string path_;
  Status status_;
};

/// A client's text inside an error: in quotes, in one line, and not much of it.
std::string Quoted(std::string_view text);

/// "path[index]".
std::string Indexed(std::string_view path, size_t index);

}  // namespace gptoss::server

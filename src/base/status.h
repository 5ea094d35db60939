// Errors as values. Everything below apps/ returns Status or Result<T>; nothing prints, nothing aborts on input.
// A message is one line that names what is at fault (file, tensor, flag, field) and what to do about it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace gptoss {

enum class StatusCode : uint8_t {
  kOk,
  kInvalidArgument,    // the caller's value is wrong
  kNotFound,           // a file, tensor or name is absent
  kCorruptData,        // bytes do not follow their format
  kUnsupported,        // legal, but not something this program handles
  kResourceExhausted,  // memory, disk, a limit
  kIo,                 // the operating system or the network said no
  kCancelled,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const& { return message_; }
  /// By value, so that `const auto& m = result.status().message()` does not outlive its Status.
  std::string message() && { return std::move(message_); }

  /// The same error with `context` and ": " before its message. No effect on success.
  Status WithContext(std::string_view context) const {
    return ok() ? *this : Status(code_, std::string(context) + ": " + message_);
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
inline Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status CorruptData(std::string m) { return {StatusCode::kCorruptData, std::move(m)}; }
inline Status Unsupported(std::string m) { return {StatusCode::kUnsupported, std::move(m)}; }
inline Status ResourceExhausted(std::string m) { return {StatusCode::kResourceExhausted, std::move(m)}; }
inline Status IoError(std::string m) { return {StatusCode::kIo, std::move(m)}; }
inline Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }

/// A value or the error that stands in its place.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) { GPTOSS_CHECK(!std::get<1>(state_).ok()); }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(state_); }

  T& operator*() & { return Value(); }
  const T& operator*() const& { return const_cast<Result*>(this)->Value(); }
  T&& operator*() && { return std::move(Value()); }
  T* operator->() { return &Value(); }
  const T* operator->() const { return &const_cast<Result*>(this)->Value(); }

 private:
  T& Value() {
    GPTOSS_CHECK(ok());
    return std::get<0>(state_);
  }
  std::variant<T, Status> state_;
};

}  // namespace gptoss

#define GPTOSS_CONCAT_INNER(a, b) a##b
#define GPTOSS_CONCAT(a, b) GPTOSS_CONCAT_INNER(a, b)

#define GPTOSS_RETURN_IF_ERROR(expr)                                                        \
  do {                                                                                      \
    if (::gptoss::Status gptoss_status = (expr); !gptoss_status.ok()) return gptoss_status; \
  } while (0)

/// GPTOSS_ASSIGN_OR_RETURN(auto x, Function());
#define GPTOSS_ASSIGN_OR_RETURN(lhs, expr) GPTOSS_ASSIGN_OR_RETURN_IMPL(GPTOSS_CONCAT(result_, __LINE__), lhs, expr)
#define GPTOSS_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                 \
  if (!result.ok()) return result.status();             \
  lhs = *std::move(result)

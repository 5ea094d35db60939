// SQLite behind values: connections and statements that close themselves, errors as Status.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace gptoss::server {

class Sqlite;

/// A prepared statement in use; ready for its next use when this goes out of scope.
class SqliteQuery {
 public:
  SqliteQuery(Sqlite* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
  ~SqliteQuery();
  SqliteQuery(SqliteQuery&& other) noexcept;
  SqliteQuery& operator=(SqliteQuery&&) = delete;

  /// Parameters from left to right. Text is copied.
  SqliteQuery& Bind(std::string_view text);
  SqliteQuery& Bind(int64_t value);

  /// True: a row is there. On failure: as Sqlite.
  Result<bool> Step();
  /// For statements without rows.
  Status Run();
  int64_t Int(int column) const;
  std::string Text(int column) const;

 private:
  Sqlite* db_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

/// One connection, used by one thread at a time. Errors: kCorruptData for a damaged file or one that is no database,
/// kResourceExhausted when the disk or the file's limit is full, kIo for the rest.
class Sqlite {
 public:
  /// `path` may be ":memory:". The file is made when it is absent, readable to its owner alone.
  static Result<std::unique_ptr<Sqlite>> Open(const std::string& path);
  ~Sqlite();

  /// Statements separated by ';', without parameters.
  Status Execute(const char* sql);
  /// Prepared once and kept. Broken SQL is a broken invariant, unless the file itself is at fault.
  Result<SqliteQuery> Query(const char* sql);
  int64_t LastRowId() const;
  Status Error(int code) const;

 private:
  Sqlite(sqlite3* db, std::string path) : db_(db), path_(std::move(path)) {}

  sqlite3* db_;
  std::string path_;
  std::unordered_map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace gptoss::server

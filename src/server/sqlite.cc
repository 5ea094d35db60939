#include "server/sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace gptoss::server {
namespace {

constexpr int kBusyMs = 10000;  // the other connection holds the lock for one commit at most

}  // namespace

SqliteQuery::SqliteQuery(SqliteQuery&& other) noexcept
    : db_(other.db_), statement_(std::exchange(other.statement_, nullptr)), bound_(other.bound_) {}

SqliteQuery::~SqliteQuery() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

SqliteQuery& SqliteQuery::Bind(std::string_view text) {
  // An empty view may have no address, which SQLite would take for NULL.
  const char* data = text.data() == nullptr ? "" : text.data();
  GPTOSS_CHECK(sqlite3_bind_text64(statement_, ++bound_, data, text.size(), SQLITE_TRANSIENT, SQLITE_UTF8) ==
               SQLITE_OK);
  return *this;
}

SqliteQuery& SqliteQuery::Bind(int64_t value) {
  GPTOSS_CHECK(sqlite3_bind_int64(statement_, ++bound_, value) == SQLITE_OK);
  return *this;
}

Result<bool> SqliteQuery::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return db_->Error(code);
}

Status SqliteQuery::Run() {
  while (true) {
    GPTOSS_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return {};
  }
}

int64_t SqliteQuery::Int(int column) const { return sqlite3_column_int64(statement_, column); }

std::string SqliteQuery::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text == nullptr ? std::string()
                         : std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

Result<std::unique_ptr<Sqlite>> Sqlite::Open(const std::string& path) {
  sqlite3* db = nullptr;
  if (path != ":memory:") {
    // SQLite itself would make it readable to everybody.
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) return IoError(path + ": " + std::strerror(errno));
    close(fd);
  }
  const int code =
      sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Sqlite> out(new Sqlite(db, path));
  if (code != SQLITE_OK) return out->Error(code);
  sqlite3_extended_result_codes(db, 0);
  sqlite3_busy_timeout(db, kBusyMs);
  return out;
}

Sqlite::~Sqlite() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

Status Sqlite::Error(int code) const {
  const std::string message = path_ + ": " + (db_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db_));
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return CorruptData(message);
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return ResourceExhausted(message);
    default:
      return IoError(message);
  }
}

Status Sqlite::Execute(const char* sql) {
  const int code = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Status() : Error(code);
}

Result<SqliteQuery> Sqlite::Query(const char* sql) {
  sqlite3_stmt*& statement = statements_[sql];
  if (statement == nullptr) {
    const int code = sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) return Error(code);
  }
  return SqliteQuery(this, statement);
}

int64_t Sqlite::LastRowId() const { return sqlite3_last_insert_rowid(db_); }

}  // namespace gptoss::server

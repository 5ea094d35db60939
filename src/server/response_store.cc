#include "server/response_store.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <iterator>
#include <set>

#include "json/json.h"
#include "server/api/clock.h"
#include "server/sqlite.h"

namespace gptoss::server {
namespace {

constexpr int64_t kSchemaVersion = 1;
constexpr int64_t kPageBytes = 4096;
constexpr int kEvictAtOnce = 64;
constexpr int64_t kMaxBytesInMemory = 128 << 20;

// Totals are kept by triggers, so that bounding costs no scan.
constexpr char kSchema[] = R"(
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS responses(
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, previous_id TEXT NOT NULL, status TEXT NOT NULL, created INTEGER NOT NULL,
  used INTEGER NOT NULL, bytes INTEGER NOT NULL, checksum INTEGER NOT NULL,
  body TEXT NOT NULL, input TEXT NOT NULL, events TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS responses_used ON responses(used);
CREATE INDEX IF NOT EXISTS responses_open ON responses(status) WHERE status IN ('queued', 'in_progress');
CREATE TABLE IF NOT EXISTS items(id TEXT PRIMARY KEY, response TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_response ON items(response);
CREATE TABLE IF NOT EXISTS turns(id INTEGER PRIMARY KEY AUTOINCREMENT, bytes INTEGER NOT NULL, blob TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS turn_keys(key TEXT PRIMARY KEY, turn INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS turn_keys_turn ON turn_keys(turn);
CREATE TRIGGER IF NOT EXISTS response_in AFTER INSERT ON responses BEGIN
  UPDATE meta SET value = value + 1 WHERE name = 'responses';
  UPDATE meta SET value = value + NEW.bytes WHERE name = 'response_bytes';
END;
CREATE TRIGGER IF NOT EXISTS response_out AFTER DELETE ON responses BEGIN
  UPDATE meta SET value = value - 1 WHERE name = 'responses';
  UPDATE meta SET value = value - OLD.bytes WHERE name = 'response_bytes';
  DELETE FROM items WHERE response = OLD.id;
END;
CREATE TRIGGER IF NOT EXISTS turn_in AFTER INSERT ON turns BEGIN
  UPDATE meta SET value = value + NEW.bytes WHERE name = 'turn_bytes';
END;
CREATE TRIGGER IF NOT EXISTS turn_out AFTER DELETE ON turns BEGIN
  UPDATE meta SET value = value - OLD.bytes WHERE name = 'turn_bytes';
  DELETE FROM turn_keys WHERE turn = OLD.id;
END;
INSERT OR IGNORE INTO meta VALUES('responses', 0), ('response_bytes', 0), ('turn_bytes', 0);
)";

constexpr char kColumns[] = "owner, previous_id, status, created, checksum, body, input, events";

/// FNV-1a: a page that was overwritten on the disk is still legal to SQLite.
int64_t Checksum(const StoredResponse& r) {
  uint64_t state = 0xcbf29ce484222325ull;
  for (const std::string* text : {&r.id, &r.owner, &r.body, &r.input, &r.events}) {
    for (const char c : *text) state = (state ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
    state = (state ^ 0x1ff) * 0x100000001b3ull;
  }
  return static_cast<int64_t>(state);
}

Result<int64_t> Meta(Sqlite& db, std::string_view name) {
  GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query("SELECT value FROM meta WHERE name = ?"));
  GPTOSS_ASSIGN_OR_RETURN(const bool found, query.Bind(name).Step());
  return found ? query.Int(0) : 0;
}

StoreLimits InMemory(StoreLimits limits) {
  limits.max_bytes = std::min(limits.max_bytes, kMaxBytesInMemory);
  limits.max_turn_bytes = 0;  // whoever keeps turns here has them in memory already
  return limits;
}

/// The ids of the items in a JSON array.
void AddItemIds(const Json* items, std::set<std::string>* ids) {
  if (items == nullptr || !items->is_array()) return;
  for (const Json& item : *items) {
    if (const std::string* id = FindString(item, "id")) ids->insert(*id);
  }
}

}  // namespace

ResponseStore::ResponseStore(std::string path, StoreLimits limits, Log log)
    : path_(std::move(path)), limits_(limits), log_(std::move(log)) {}

Result<std::unique_ptr<ResponseStore>> ResponseStore::Open(const std::string& path, StoreLimits limits, Log log) {
  std::unique_ptr<ResponseStore> store(
      new ResponseStore(path, path.empty() ? InMemory(limits) : limits, std::move(log)));
  Status status = store->Connect();
  if (status.code() == StatusCode::kCorruptData) status = store->SetAside(status);
  if (!status.ok()) return status.WithContext("response store");
  store->thread_ = std::thread([raw = store.get()] { raw->WriteLoop(); });
  return store;
}

ResponseStore::~ResponseStore() {
  {
    std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  queued_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Status ResponseStore::Connect() {
  reader_.reset();
  writer_.reset();
  const std::string name = path_.empty() ? ":memory:" : path_;
  GPTOSS_ASSIGN_OR_RETURN(writer_, Sqlite::Open(name));
  GPTOSS_RETURN_IF_ERROR(Prepare());
  GPTOSS_RETURN_IF_ERROR(LoadSealKey());
  GPTOSS_RETURN_IF_ERROR(FailInterrupted());
  if (!path_.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(reader_, Sqlite::Open(name));
  }
  return {};
}

Status ResponseStore::Prepare() {
  Sqlite& db = *writer_;
  int64_t version = 0;
  {
    GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query("PRAGMA user_version"));
    GPTOSS_RETURN_IF_ERROR(query.Step().status());
    version = query.Int(0);
  }
  if (version > kSchemaVersion) {
    return InvalidArgument(path_ + ": was written by a newer version of this program; name another file");
  }
  {
    GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query("PRAGMA quick_check(1)"));
    GPTOSS_ASSIGN_OR_RETURN(const bool row, query.Step());
    if (!row || query.Text(0) != "ok") return CorruptData(path_ + ": " + query.Text(0));
  }
  // FULL: a commit is on the disk when it returns. The log is cut back so that it does not stay at its greatest size.
  GPTOSS_RETURN_IF_ERROR(
      db.Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                 "PRAGMA journal_size_limit = 16777216;"));
  if (limits_.max_file_bytes > 0) {
    const std::string pages = std::to_string(std::max<int64_t>(1, limits_.max_file_bytes / kPageBytes));
    GPTOSS_RETURN_IF_ERROR(db.Execute(("PRAGMA max_page_count = " + pages).c_str()));
  }
  GPTOSS_RETURN_IF_ERROR(db.Execute(kSchema));
  return db.Execute(("PRAGMA user_version = " + std::to_string(kSchemaVersion)).c_str());
}

Status ResponseStore::LoadSealKey() {
  GPTOSS_ASSIGN_OR_RETURN(auto query, writer_->Query("SELECT value FROM meta WHERE name = 'seal_key'"));
  GPTOSS_ASSIGN_OR_RETURN(const bool found, query.Step());
  if (found) {
    const std::string hex = query.Text(0);
    if (hex.size() != 2 * seal_key_.size()) return CorruptData(path_ + ": the key in it is damaged");
    for (size_t i = 0; i < seal_key_.size(); ++i) {
      seal_key_[i] = static_cast<uint8_t>(std::strtoul(hex.substr(2 * i, 2).c_str(), nullptr, 16));
    }
    return {};
  }
  seal_key_ = NewSealKey();
  std::string hex;
  for (const uint8_t byte : seal_key_) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  GPTOSS_ASSIGN_OR_RETURN(auto insert, writer_->Query("INSERT INTO meta VALUES('seal_key', ?)"));
  return insert.Bind(hex).Run();
}

Status ResponseStore::FailInterrupted() {
  std::vector<std::string> ids;
  {
    GPTOSS_ASSIGN_OR_RETURN(auto query,
                            writer_->Query("SELECT id FROM responses WHERE status IN ('queued', 'in_progress')"));
    while (true) {
      GPTOSS_ASSIGN_OR_RETURN(const bool row, query.Step());
      if (!row) break;
      ids.push_back(query.Text(0));
    }
  }
  for (const std::string& id : ids) {
    GPTOSS_ASSIGN_OR_RETURN(auto owner, writer_->Query("SELECT owner FROM responses WHERE id = ?"));
    GPTOSS_RETURN_IF_ERROR(owner.Bind(id).Step().status());
    auto response = Read(*writer_, owner.Text(0), id);
    auto body = response.ok() ? ParseJson(response->body) : Result<Json>(response.status());
    if (!body.ok() || !body->is_object()) {
      GPTOSS_RETURN_IF_ERROR(RemoveResponse(id));
      continue;
    }
    (*body)["status"] = response->status = "failed";
    (*body)["error"] = {{"code", "server_error"}, {"message", "the server ended while it computed this response"}};
    response->body = WriteJson(*body);
    GPTOSS_RETURN_IF_ERROR(InsertResponse(*response));
  }
  return {};
}

Status ResponseStore::SetAside(const Status& why) {
  reader_.reset();
  writer_.reset();
  const std::string aside = path_ + ".damaged-" + std::to_string(NowSeconds());
  if (std::rename(path_.c_str(), aside.c_str()) != 0) return why;
  // A log of the damaged file must not be applied to the new one.
  for (const char* suffix : {"-wal", "-shm"}) std::rename((path_ + suffix).c_str(), (aside + suffix).c_str());
  if (log_) log_(why.message() + "; set aside as " + aside + ", a new file was begun");
  return Connect();
}

void ResponseStore::Enqueue(Op op) {
  {
    std::lock_guard lock(queue_mutex_);
    queue_.push_back(std::move(op));
  }
  queued_.notify_one();
}

void ResponseStore::Put(StoredResponse response, Done done) { Enqueue(PutOp{std::move(response), std::move(done)}); }

void ResponseStore::PutTurn(std::vector<std::string> keys, std::string blob) {
  if (path_.empty()) return;
  Enqueue(TurnOp{std::move(keys), std::move(blob)});
}

Result<bool> ResponseStore::Delete(std::string_view owner, std::string_view id) {
  std::promise<Result<bool>> promise;
  auto result = promise.get_future();
  Enqueue(DeleteOp{std::string(owner), std::string(id), [&](Result<bool> r) { promise.set_value(std::move(r)); }});
  return result.get();
}

void ResponseStore::Flush() {
  std::promise<void> promise;
  Enqueue(FlushOp{[&] { promise.set_value(); }});
  promise.get_future().get();
}

void ResponseStore::WriteLoop() {
  while (true) {
    std::vector<Op> batch;
    {
      std::unique_lock lock(queue_mutex_);
      queued_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      batch.swap(queue_);
    }
    WriteBatch(batch);
  }
}

void ResponseStore::WriteBatch(std::vector<Op>& batch) {
  std::vector<Status> statuses(batch.size());
  std::vector<bool> found(batch.size());
  {
    std::lock_guard lock(write_mutex_);
    Status status = Apply(batch, 0, batch.size(), &found);
    if (status.code() == StatusCode::kCorruptData && !path_.empty()) {
      std::lock_guard read_lock(read_mutex_);
      status = SetAside(status);
      if (status.ok()) status = Apply(batch, 0, batch.size(), &found);
    }
    // What fits alone is not to fail for what does not.
    for (size_t i = 0; i < batch.size() && !status.ok(); ++i) {
      statuses[i] = Apply(batch, i, i + 1, &found);
    }
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    if (auto* put = std::get_if<PutOp>(&batch[i]); put != nullptr && put->done) put->done(statuses[i]);
    if (auto* flush = std::get_if<FlushOp>(&batch[i])) flush->done();
    if (auto* erase = std::get_if<DeleteOp>(&batch[i])) {
      erase->done(statuses[i].ok() ? Result<bool>(found[i]) : Result<bool>(statuses[i]));
    }
    if (!statuses[i].ok() && log_) log_(statuses[i].WithContext("response store").message());
  }
}

Status ResponseStore::Apply(std::vector<Op>& ops, size_t begin, size_t end, std::vector<bool>* outcomes) {
  if (writer_ == nullptr) return IoError(path_ + ": could not be opened again");
  GPTOSS_RETURN_IF_ERROR(writer_->Execute("BEGIN IMMEDIATE"));
  Status status;
  for (size_t i = begin; i < end && status.ok(); ++i) {
    bool found = false;
    status = ApplyOne(ops[i], &found);
    (*outcomes)[i] = found;
  }
  if (status.ok()) status = Evict();
  if (status.ok()) status = writer_->Execute("COMMIT");
  // SQLite has rolled some failures back by itself; then there is nothing left to do and it says so.
  if (!status.ok()) (void)writer_->Execute("ROLLBACK");
  return status;
}

Status ResponseStore::ApplyOne(Op& op, bool* found) {
  if (auto* put = std::get_if<PutOp>(&op)) return InsertResponse(put->response);
  if (auto* turn = std::get_if<TurnOp>(&op)) return InsertTurn(*turn);
  if (auto* erase = std::get_if<DeleteOp>(&op)) {
    GPTOSS_ASSIGN_OR_RETURN(auto query, writer_->Query("SELECT 1 FROM responses WHERE id = ? AND owner = ?"));
    GPTOSS_ASSIGN_OR_RETURN(*found, query.Bind(erase->id).Bind(erase->owner).Step());
    return *found ? RemoveResponse(erase->id) : Status();
  }
  if (auto* touch = std::get_if<TouchOp>(&op)) {
    for (const std::string& id : touch->ids) {
      GPTOSS_ASSIGN_OR_RETURN(auto query, writer_->Query("UPDATE responses SET used = ? WHERE id = ?"));
      GPTOSS_RETURN_IF_ERROR(query.Bind(NowSeconds()).Bind(id).Run());
    }
  }
  return {};
}

Status ResponseStore::InsertResponse(const StoredResponse& r) {
  GPTOSS_RETURN_IF_ERROR(RemoveResponse(r.id));
  GPTOSS_ASSIGN_OR_RETURN(auto query, writer_->Query("INSERT INTO responses VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  const auto bytes = static_cast<int64_t>(r.body.size() + r.input.size() + r.events.size());
  query.Bind(r.id).Bind(r.owner).Bind(r.previous_id).Bind(r.status).Bind(r.created_s).Bind(NowSeconds()).Bind(bytes);
  GPTOSS_RETURN_IF_ERROR(query.Bind(Checksum(r)).Bind(r.body).Bind(r.input).Bind(r.events).Run());
  std::set<std::string> ids;
  if (const auto body = ParseJson(r.body); body.ok()) AddItemIds(FindField(*body, "output"), &ids);
  if (const auto input = ParseJson(r.input); input.ok()) AddItemIds(&*input, &ids);
  for (const std::string& id : ids) {
    // An item that was sent again belongs to the response that brought it first.
    GPTOSS_ASSIGN_OR_RETURN(auto item, writer_->Query("INSERT OR IGNORE INTO items VALUES(?, ?)"));
    GPTOSS_RETURN_IF_ERROR(item.Bind(id).Bind(r.id).Run());
  }
  return {};
}

Status ResponseStore::InsertTurn(const TurnOp& turn) {
  GPTOSS_ASSIGN_OR_RETURN(auto query, writer_->Query("INSERT INTO turns(bytes, blob) VALUES(?, ?)"));
  GPTOSS_RETURN_IF_ERROR(query.Bind(static_cast<int64_t>(turn.blob.size())).Bind(turn.blob).Run());
  const int64_t id = writer_->LastRowId();
  for (const std::string& key : turn.keys) {
    GPTOSS_ASSIGN_OR_RETURN(auto insert, writer_->Query("INSERT OR REPLACE INTO turn_keys VALUES(?, ?)"));
    GPTOSS_RETURN_IF_ERROR(insert.Bind(key).Bind(id).Run());
  }
  return {};
}

Status ResponseStore::RemoveResponse(std::string_view id) {
  GPTOSS_ASSIGN_OR_RETURN(auto query, writer_->Query("DELETE FROM responses WHERE id = ?"));
  return query.Bind(id).Run();
}

Status ResponseStore::Evict() {
  Sqlite& db = *writer_;
  {
    GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query("DELETE FROM responses WHERE used < ?"));
    GPTOSS_RETURN_IF_ERROR(query.Bind(NowSeconds() - limits_.max_age_s).Run());
  }
  while (true) {
    GPTOSS_ASSIGN_OR_RETURN(const int64_t count, Meta(db, "responses"));
    GPTOSS_ASSIGN_OR_RETURN(const int64_t bytes, Meta(db, "response_bytes"));
    // The newest stays, whatever its size: it is being acknowledged.
    if (count <= 1 || (count <= limits_.max_responses && bytes <= limits_.max_bytes)) break;
    const int64_t surplus = std::min<int64_t>(count - 1, std::max<int64_t>(1, count - limits_.max_responses));
    GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query("DELETE FROM responses WHERE rowid IN "
                                                 "(SELECT rowid FROM responses ORDER BY used, rowid LIMIT ?)"));
    GPTOSS_RETURN_IF_ERROR(query.Bind(std::min<int64_t>(surplus, kEvictAtOnce)).Run());
  }
  while (true) {
    GPTOSS_ASSIGN_OR_RETURN(const int64_t bytes, Meta(db, "turn_bytes"));
    if (bytes <= limits_.max_turn_bytes) return {};
    GPTOSS_ASSIGN_OR_RETURN(auto query,
                            db.Query("DELETE FROM turns WHERE id IN (SELECT id FROM turns ORDER BY id LIMIT 16)"));
    GPTOSS_RETURN_IF_ERROR(query.Run());
  }
}

template <typename F>
auto ResponseStore::WithReader(F read) {
  std::lock_guard lock(path_.empty() ? write_mutex_ : read_mutex_);
  Sqlite* db = path_.empty() ? writer_.get() : reader_.get();
  using R = decltype(read(*db));
  if (db == nullptr) return R(IoError("response store: " + path_ + " could not be opened again"));
  return read(*db);
}

Result<StoredResponse> ResponseStore::Read(Sqlite& db, std::string_view owner, std::string_view id) {
  static const std::string sql = std::string("SELECT ") + kColumns + " FROM responses WHERE id = ? AND owner = ?";
  GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query(sql.c_str()));
  GPTOSS_ASSIGN_OR_RETURN(const bool found, query.Bind(id).Bind(owner).Step());
  if (!found) return NotFound("Response with id '" + std::string(id) + "' not found.");
  StoredResponse r;
  r.id = id;
  r.owner = query.Text(0);
  r.previous_id = query.Text(1);
  r.status = query.Text(2);
  r.created_s = query.Int(3);
  r.body = query.Text(5);
  r.input = query.Text(6);
  r.events = query.Text(7);
  if (query.Int(4) != Checksum(r)) {
    return CorruptData("Response with id '" + std::string(id) + "' is damaged on the disk.");
  }
  return r;
}

Result<StoredResponse> ResponseStore::Get(std::string_view owner, std::string_view id) {
  return WithReader([&](Sqlite& db) { return Read(db, owner, id); });
}

Result<std::vector<StoredResponse>> ResponseStore::GetChain(std::string_view owner, std::string_view id, size_t max) {
  std::vector<StoredResponse> chain;
  TouchOp touch;
  for (std::string next(id); !next.empty();) {
    if (chain.size() == max) {
      return ResourceExhausted("previous_response_id: more than " + std::to_string(max) + " responses in a row");
    }
    GPTOSS_ASSIGN_OR_RETURN(StoredResponse response, Get(owner, next));
    next = response.previous_id;
    touch.ids.push_back(response.id);
    chain.push_back(std::move(response));
  }
  Enqueue(std::move(touch));
  return std::vector<StoredResponse>(std::make_move_iterator(chain.rbegin()), std::make_move_iterator(chain.rend()));
}

Result<StoredResponse> ResponseStore::GetByItem(std::string_view owner, std::string_view item_id) {
  return WithReader([&](Sqlite& db) -> Result<StoredResponse> {
    GPTOSS_ASSIGN_OR_RETURN(auto query, db.Query("SELECT response FROM items WHERE id = ?"));
    GPTOSS_ASSIGN_OR_RETURN(const bool found, query.Bind(item_id).Step());
    auto response = found ? Read(db, owner, query.Text(0)) : Result<StoredResponse>(NotFound(""));
    if (response.status().code() == StatusCode::kNotFound) {
      return NotFound("Item with id '" + std::string(item_id) + "' not found.");
    }
    return response;
  });
}

std::string ResponseStore::FindTurn(std::string_view key) {
  const auto blob = WithReader([&](Sqlite& db) -> Result<std::string> {
    GPTOSS_ASSIGN_OR_RETURN(auto query,
                            db.Query("SELECT blob FROM turns WHERE id = (SELECT turn FROM turn_keys WHERE key = ?)"));
    GPTOSS_ASSIGN_OR_RETURN(const bool found, query.Bind(key).Step());
    return found ? query.Text(0) : std::string();
  });
  return blob.ok() ? *blob : std::string();
}

}  // namespace gptoss::server

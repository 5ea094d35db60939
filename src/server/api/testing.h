// For the tests of the APIs: turns that follow a script instead of a model, and answers that can be looked at.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "json/json.h"
#include "server/api_context.h"
#include "server/http.h"
#include "server/turn.h"

namespace gptoss::server {

/// What the scripted model says.
struct ScriptedItem {
  TurnItem::Kind kind = TurnItem::Kind::kAnswer;
  std::vector<std::string> pieces;
  std::string tool;
  bool custom = false;
};

struct Script {
  Script(std::vector<ScriptedItem> said = {}, TurnEnd how = TurnEnd::kAnswered, Status why = {})
      : items(std::move(said)), end(how), status(std::move(why)) {}

  std::vector<ScriptedItem> items;
  TurnEnd end;
  Status status;
  std::string stop;  // the sequence that ended it
};

ScriptedItem Thinks(std::vector<std::string> pieces);
ScriptedItem Answers(std::vector<std::string> pieces);
ScriptedItem Says(std::vector<std::string> pieces);  // a preamble
ScriptedItem Calls(std::string tool, std::vector<std::string> pieces, bool custom = false);

/// Prompts are rendered as the real service does; turns follow Push()ed scripts, one each, on a thread of their own or
/// inside Start.
class FakeTurnService : public TurnService {
 public:
  FakeTurnService();
  ~FakeTurnService() override;

  void Push(Script script);
  /// From now on a turn stops after its first item until Cancel or Release.
  void Hold();
  void Release();
  /// Listeners are called before Start returns.
  void CallInsideStart() { inside_ = true; }
  void RefuseWith(Status status) { refusal_ = std::move(status); }
  void set_max_context(int tokens);
  std::vector<TurnRequest> requests();
  int cancelled();

  Result<RequestId> Start(TurnRequest request, std::shared_ptr<TurnListener> listener) override;
  void Cancel(RequestId id) override;
  Result<std::vector<TokenId>> Render(const TurnRequest& request) const override;
  Result<RequestId> StartRaw(std::vector<TokenId> prompt, TurnRequest limits,
                             std::shared_ptr<TurnListener> listener) override;
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  Engine& engine() override;

 private:
  void Play(const Script& script, RequestId id, int prompt_tokens, TurnListener& listener);
  Result<RequestId> Begin(TurnRequest request, int prompt_tokens, std::shared_ptr<TurnListener> listener);

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
  Status refusal_;
  bool inside_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Script> scripts_;
  std::vector<TurnRequest> requests_;
  std::map<RequestId, bool> cancelled_;
  std::vector<std::thread> threads_;
  bool hold_ = false;
  RequestId next_ = 1;
};

/// Keeps what a handler sends.
class FakeResponder : public Responder {
 public:
  void Send(int status, std::string_view content_type, std::string body, Headers headers) override;
  void BeginStream(int status, std::string_view content_type, Headers headers) override;
  bool Write(std::string_view bytes) override;
  void End() override;
  void OnClosed(std::function<void()> callback) override;

  /// The client leaves.
  void Close();
  /// Waits for Send or End, at most ten seconds. False: neither came.
  bool Wait();
  /// Waits until the stream holds `text`.
  bool WaitFor(std::string_view text);

  int status();
  std::string body();
  std::string content_type();
  Json json();
  /// The data of a stream's events; checks that each is named as its data says.
  std::vector<Json> events();
  /// Sent twice, or written to outside a stream.
  bool misused();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int status_ = 0;
  std::string body_, type_;
  bool streaming_ = false, done_ = false, closed_ = false, misused_ = false;
  std::function<void()> on_closed_;
};

/// A router with a fake service behind it.
struct ApiFixture {
  FakeTurnService turns;
  ApiContext api;
  Router router;

  ApiFixture();
  /// Without waiting. `target` may have a query: "/v1/responses/resp_1?stream=true".
  std::shared_ptr<FakeResponder> Call(const std::string& method, const std::string& target, const Json& body = nullptr,
                                      const std::string& key_name = "");
  /// Waits for the end.
  std::shared_ptr<FakeResponder> Run(const std::string& method, const std::string& target, const Json& body = nullptr,
                                     const std::string& key_name = "");
};

/// Empty when the events of a Responses stream are in legal order with right indices and numbers; else what is wrong.
std::string CheckResponseEvents(const std::vector<Json>& events);
/// The same for Anthropic's.
std::string CheckMessageEvents(const std::vector<Json>& events);

}  // namespace gptoss::server

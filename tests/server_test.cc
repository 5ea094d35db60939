// The whole server in one process: HTTP over real sockets, every API, keys, stores and the engine on a small model of
// random weights, used by many clients at once who also leave, poll, cancel and forget. The thread sanitizer runs it,
// too.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backends/registry.h"
#include "checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "server/access_keys.h"
#include "server/anthropic/messages.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/ollama/ollama.h"
#include "server/openai/chat_completions.h"
#include "server/openai/completions.h"
#include "server/openai/models.h"
#include "server/openai/responses.h"
#include "server/operation.h"
#include "tokenizer/tokenizer.h"

namespace gptoss::server {
namespace {

constexpr int kParallel = 4;

/// As `gptoss serve` puts it together.
class Server : public HttpObserver {
 public:
  explicit Server(const std::string& folder) : folder_(folder) {}
  ~Server() override {
    if (http_ != nullptr) http_->Stop();
    if (thread_.joinable()) thread_.join();
  }

  Status Start() {
    GPTOSS_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::FromFile(GPTOSS_NANO_TOKENIZER));
    SynthOptions synth;
    GPTOSS_ASSIGN_OR_RETURN(synth.config, NamedConfig("micro"));
    synth.config.vocab_size = static_cast<int>(tokenizer->size());
    GPTOSS_ASSIGN_OR_RETURN(auto checkpoint, MakeSyntheticCheckpoint(synth));
    GPTOSS_ASSIGN_OR_RETURN(const Ops* const ops, CpuOps("", Precision::kFast));
    GPTOSS_ASSIGN_OR_RETURN(
        weights_, LoadWeights(std::shared_ptr<const Checkpoint>(std::move(checkpoint)), DensePrecision::kDefault, pool_,
                              nullptr, {.layout = ops->weight_layout}));
    model_ = std::make_unique<GptOss>(weights_, *ops);
    RunnerOptions runner_options;
    runner_options.max_context = 1024;
    runner_options.max_sequences = kParallel;
    runner_options.chunk_tokens = 128;
    runner_options.cache_bytes = 4 << 20;
    GPTOSS_ASSIGN_OR_RETURN(runner_, ModelRunner::Create(*model_, pool_, runner_options));
    EngineOptions engine_options;
    engine_options.max_running = kParallel;
    engine_options.cache_bytes = runner_options.cache_bytes;
    engine_options.cache_dir = folder_ + "/cache";
    engine_options.cache_dir_bytes = 8 << 20;
    GPTOSS_ASSIGN_OR_RETURN(store_, ResponseStore::Open(folder_ + "/responses.db"));
    replay_ = std::make_unique<ReplayStore>(1 << 20, store_.get());
    GPTOSS_RETURN_IF_ERROR(Keys());
    HttpServerOptions http_options;
    http_options.port = 0;
    GPTOSS_ASSIGN_OR_RETURN(http_, HttpServer::Create(http_options, router_, *this));
    GPTOSS_ASSIGN_OR_RETURN(engine_, Engine::Create(*runner_, engine_options));
    GPTOSS_ASSIGN_OR_RETURN(turns_, TurnService::Create(*engine_, tokenizer, {}));
    counted_ = CountTurns(*turns_, metrics_);
    api_.turns = counted_.get();
    api_.options.model = "micro";
    AddChatCompletionsRoutes(router_, api_, replay_.get());
    AddCompletionsRoutes(router_, api_);
    AddModelRoutes(router_, api_);
    AddResponsesRoutes(router_, api_, *store_, *replay_);
    AddAnthropicRoutes(router_, api_, *replay_);
    AddOllamaRoutes(router_, api_, *replay_, ModelCard());
    AddOperationRoutes(router_, api_, hooks_);
    thread_ = std::thread([this] { http_->Run(); });
    return {};
  }

  /// What SIGHUP does.
  Status Keys() {
    GPTOSS_ASSIGN_OR_RETURN(auto keys, ParseAccessKeys("alice secret-a concurrent=64\nbob secret-b\n"));
    access_.SetKeys(std::move(keys));
    return {};
  }

  /// What SIGTERM does.
  void Drain() {
    ready_ = false;
    http_->Drain();
    engine_->Drain(std::chrono::steady_clock::now() + std::chrono::seconds(30));
    thread_.join();
  }

  std::optional<ApiError> Admit(HttpRequest& request) override { return access_.Admit(request); }
  void OnFinished(const RequestRecord& record) override {
    if (record.admitted) access_.Release(record.key_name);
    if (record.status >= 500) ++server_errors_;
    metrics_.OnRequest(record);
  }

  std::string address() const { return http_->address(); }
  Engine& engine() { return *engine_; }
  int server_errors() const { return server_errors_; }

 private:
  const std::string folder_;
  ThreadPool pool_{2};
  ModelWeights weights_;
  std::unique_ptr<GptOss> model_;
  std::unique_ptr<ModelRunner> runner_;
  Metrics metrics_;
  AccessControl access_;
  std::unique_ptr<ResponseStore> store_;
  std::unique_ptr<ReplayStore> replay_;
  Router router_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TurnService> turns_, counted_;
  ApiContext api_;
  std::atomic<bool> ready_{true};
  std::atomic<int> server_errors_{0};
  const OperationHooks hooks_{[this] { return ready_.load(); },
                              [this] { return metrics_.Text(engine_->stats(), http_->connections()); }};
  std::thread thread_;
};

/// One request on a connection of its own; the answer's bytes. With `leave_at` the client is gone once it has seen it.
std::string Ask(const std::string& address, const std::string& method, const std::string& target, const Json& body,
                const std::string& leave_at = "", const std::string& key = "secret-a") {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  inet_pton(AF_INET, "127.0.0.1", &name.sin_addr);
  const timeval patience = {120, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  std::string seen;
  if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0) {
    const std::string text = body.is_null() ? std::string() : WriteJson(body);
    const std::string request = method + " " + target +
                                " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + "Bearer " + key +
                                "\r\nContent-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
    EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
    std::array<char, 4096> bytes{};
    for (ssize_t n; (n = recv(fd, bytes.data(), bytes.size(), 0)) > 0;) {
      seen.append(bytes.data(), static_cast<size_t>(n));
      if (!leave_at.empty() && seen.find(leave_at) != std::string::npos) break;
    }
  }
  close(fd);
  return seen;
}

Json BodyOf(const std::string& answer) {
  const size_t end = answer.find("\r\n\r\n");
  auto json = ParseJson(end == std::string::npos ? "" : answer.substr(end + 4));
  EXPECT_TRUE(json.ok()) << answer;
  return json.ok() ? *std::move(json) : Json::object();
}

class WholeServerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    server_ = std::make_unique<Server>(folder_);
    const Status status = server_->Start();
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  void ExpectOk(const std::string& answer, const std::string& end) {
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK")) << answer;
    EXPECT_NE(answer.find(end), std::string::npos) << answer;
  }

  Json Chat(int seed, bool stream) {
    return {{"messages", Json::array({{{"role", "user"}, {"content", "Say " + std::to_string(seed % 5)}}})},
            {"seed", seed},
            {"max_tokens", 24},
            {"reasoning_budget", 4},
            {"stream", stream}};
  }

  /// A background response is asked for until it is over, or ended, or forgotten.
  void Background(int seed) {
    const std::string& address = server_->address();
    const Json begun = BodyOf(Ask(address, "POST", "/v1/responses",
                                  {{"input", "x"}, {"background", true}, {"max_output_tokens", 200}, {"seed", seed}}));
    ASSERT_TRUE(begun.contains("id")) << begun;
    const std::string path = "/v1/responses/" + begun["id"].get<std::string>();
    EXPECT_TRUE(Ask(address, "GET", path, nullptr, "", "secret-b").starts_with("HTTP/1.1 404")) << "another's";
    if (seed % 3 == 0) {
      const Json cancelled = BodyOf(Ask(address, "POST", path + "/cancel", nullptr));
      EXPECT_TRUE(cancelled["status"] == "cancelled" || cancelled["status"] == "completed" ||
                  cancelled["status"] == "incomplete")
          << cancelled;
    } else if (seed % 3 == 1) {
      EXPECT_EQ(BodyOf(Ask(address, "DELETE", path, nullptr))["deleted"], true);
      EXPECT_TRUE(Ask(address, "GET", path, nullptr).starts_with("HTTP/1.1 404"));
      return;
    }
    std::string status = "queued";
    for (int i = 0; i < 6000 && (status == "queued" || status == "in_progress"); ++i) {
      status = BodyOf(Ask(address, "GET", path, nullptr))["status"].get<std::string>();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(status == "completed" || status == "incomplete" || status == "cancelled") << status;
  }

  void OneOfEach(int client, int round) {
    const std::string address = server_->address();
    const int seed = client * 100 + round;
    switch ((client + round) % 8) {
      case 0:
        ExpectOk(Ask(address, "POST", "/v1/chat/completions", Chat(seed, true)), "data: [DONE]\n\n\r\n0\r\n\r\n");
        break;
      case 1: {
        Json chat = Chat(seed, false);
        chat["tools"] = Json::array(
            {{{"type", "function"},
              {"function",
               {{"name", "look"},
                {"strict", true},
                {"parameters", {{"properties", {{"n", {{"type", "integer"}}}}}, {"additionalProperties", false}}}}}}});
        chat["tool_choice"] = "required";
        const Json answer = BodyOf(Ask(address, "POST", "/v1/chat/completions", chat));
        const Json& choice = answer["choices"][0];
        if (choice["finish_reason"] != "tool_calls") break;
        const auto arguments =
            ParseJson(choice["message"]["tool_calls"][0]["function"]["arguments"].get<std::string>());
        EXPECT_TRUE(arguments.ok() && arguments->is_object()) << choice;
        break;
      }
      case 2:  // the client leaves in the middle of its stream
        Ask(address, "POST", "/v1/chat/completions", Chat(seed, true), "data: ");
        break;
      case 3: {
        const std::string answer =
            Ask(address, "POST", "/v1/responses",
                {{"input", "again"}, {"stream", true}, {"max_output_tokens", 20}, {"seed", seed}});
        const bool ended = answer.find("event: response.incomplete") != std::string::npos ||
                           answer.find("event: response.completed") != std::string::npos;
        EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK") && ended) << answer;
        break;
      }
      case 4:
        Background(seed);
        break;
      case 5:
        ExpectOk(Ask(address, "POST", "/v1/messages",
                     {{"max_tokens", 20},
                      {"stream", true},
                      {"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})}}),
                 "event: message_stop");
        break;
      case 6:
        ExpectOk(Ask(address, "POST", "/api/chat",
                     {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})},
                      {"options", {{"num_predict", 20}}}}),
                 "\"done\":true");
        break;
      default:
        EXPECT_TRUE(server_->Keys().ok());
        ExpectOk(Ask(address, "GET", "/metrics", nullptr), "gptoss_cached_prompts_total");
        EXPECT_TRUE(Ask(address, "GET", "/v1/models", nullptr, "", "wrong").starts_with("HTTP/1.1 401"));
    }
  }

  const std::string folder_ = testing::TempDir() + "gptoss_server_test_" + std::to_string(getpid());
  std::unique_ptr<Server> server_;
};

TEST_F(WholeServerTest, ManyClientsDoEverythingAtOnce) {
  constexpr int kClients = 8, kRounds = 8;
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([this, client] {
      for (int round = 0; round < kRounds; ++round) OneOfEach(client, round);
    });
  }
  for (std::thread& client : clients) client.join();
  // Whoever is still there drains; then nothing is left over, and what begins alike was computed once.
  server_->Drain();
  const EngineStats stats = server_->engine().stats();
  EXPECT_EQ(stats.requests, stats.finished);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_GT(stats.cached_prompts, 0u);
  EXPECT_LE(stats.cached_prompts, stats.prompts);
  EXPECT_GT(stats.cache_bytes, 0u);
  EXPECT_EQ(server_->server_errors(), 0);
}

}  // namespace
}  // namespace gptoss::server

#include "server/metrics.h"

#include <algorithm>
#include <cstdio>

namespace gptoss::server {
namespace {

std::string Number(double value) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.9g", value);
  return text.data();
}

void Head(const std::string& name, const std::string& help, const char* type, std::string* out) {
  *out += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void Sample(const std::string& name, const std::string& labels, double value, std::string* out) {
  *out += name + (labels.empty() ? "" : "{" + labels + "}") + " " + Number(value) + "\n";
}

void Single(const std::string& name, const std::string& help, const char* type, double value, std::string* out) {
  Head(name, help, type, out);
  Sample(name, {}, value, out);
}

class CountingListener : public TurnListener {
 public:
  CountingListener(std::shared_ptr<TurnListener> inner, Metrics& metrics)
      : inner_(std::move(inner)), metrics_(metrics) {}
  void OnItemStart(size_t index, const TurnItem& item) override { inner_->OnItemStart(index, item); }
  void OnDelta(size_t index, std::string_view text, std::span<const ItemLogprob> logprobs) override {
    inner_->OnDelta(index, text, logprobs);
  }
  void OnItemEnd(size_t index, const TurnItem& item) override { inner_->OnItemEnd(index, item); }
  void OnFinish(const TurnResult& result) override {
    metrics_.OnTurn(result);
    inner_->OnFinish(result);
  }

 private:
  const std::shared_ptr<TurnListener> inner_;
  Metrics& metrics_;
};

class CountedTurns : public TurnService {
 public:
  CountedTurns(TurnService& turns, Metrics& metrics) : turns_(turns), metrics_(metrics) {}
  Result<RequestId> Start(TurnRequest request, std::shared_ptr<TurnListener> listener) override {
    return turns_.Start(std::move(request), Counted(std::move(listener)));
  }
  void Cancel(RequestId id) override { turns_.Cancel(id); }
  Result<std::vector<TokenId>> Render(const TurnRequest& request) const override { return turns_.Render(request); }
  Result<RequestId> StartRaw(std::vector<TokenId> prompt, TurnRequest limits,
                             std::shared_ptr<TurnListener> listener) override {
    return turns_.StartRaw(std::move(prompt), std::move(limits), Counted(std::move(listener)));
  }
  const Tokenizer& tokenizer() const override { return turns_.tokenizer(); }
  Engine& engine() override { return turns_.engine(); }

 private:
  std::shared_ptr<TurnListener> Counted(std::shared_ptr<TurnListener> listener) {
    return std::make_shared<CountingListener>(std::move(listener), metrics_);
  }
  TurnService& turns_;
  Metrics& metrics_;
};

}  // namespace

void Histogram::Add(double value) {
  ++counts_[static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin())];
  sum_ += value;
}

void Histogram::Write(const std::string& name, const std::string& help, std::string* out) const {
  Head(name, help, "histogram", out);
  uint64_t total = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    total += counts_[i];
    Sample(name + "_bucket", "le=\"" + Number(bounds_[i]) + "\"", static_cast<double>(total), out);
  }
  total += counts_.back();
  Sample(name + "_bucket", "le=\"+Inf\"", static_cast<double>(total), out);
  Sample(name + "_sum", {}, sum_, out);
  Sample(name + "_count", {}, static_cast<double>(total), out);
}

Metrics::Metrics()
    : request_seconds_({0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}),
      queue_seconds_({0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30, 60}),
      prefill_seconds_({0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120}),
      token_seconds_({0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1}) {}

void Metrics::OnRequest(const RequestRecord& record) {
  const std::lock_guard lock(mutex_);
  // Paths that no route has are one, so that strangers cannot make the text grow.
  ++requests_[{record.route.empty() ? "other" : record.route, record.status}];
  request_seconds_.Add(record.seconds);
}

void Metrics::OnTurn(const TurnResult& result) {
  const std::lock_guard lock(mutex_);
  ++turns_[TurnEndName(result.end)];
  reasoning_tokens_ += static_cast<uint64_t>(result.reasoning_tokens);
  queue_seconds_.Add(result.usage.queue_s);
  prefill_seconds_.Add(result.usage.prefill_s);
  if (result.usage.output_tokens > 1) token_seconds_.Add(result.usage.decode_s / (result.usage.output_tokens - 1));
}

std::string Metrics::Text(const EngineStats& engine, size_t connections) const {
  std::string out;
  const auto count = [](uint64_t n) { return static_cast<double>(n); };
  const auto counter = [&](const char* name, const char* help, uint64_t n) {
    Single(name, help, "counter", count(n), &out);
  };
  const auto gauge = [&](const char* name, const char* help, double n) { Single(name, help, "gauge", n, &out); };
  gauge("gptoss_running_requests", "Requests that are being computed.", engine.running);
  gauge("gptoss_waiting_requests", "Requests in the queue.", engine.waiting);
  gauge("gptoss_connections", "Open connections.", count(connections));
  gauge("gptoss_kv_blocks", "Blocks of the key-value cache.", engine.kv_blocks);
  gauge("gptoss_kv_blocks_used", "Blocks of the key-value cache that hold something.", engine.kv_blocks_used);
  counter("gptoss_prompt_tokens_total", "Tokens of prompts.", engine.prompt_tokens);
  counter("gptoss_cached_tokens_total", "Tokens of prompts that were not computed anew.", engine.cached_tokens);
  counter("gptoss_prompts_total", "Prompts that were begun.", engine.prompts);
  counter("gptoss_cached_prompts_total", "Prompts whose beginning was not computed anew.", engine.cached_prompts);
  gauge("gptoss_prefix_cache_prefixes", "Places in earlier prompts where a later one can go on.",
        engine.cache_checkpoints);
  gauge("gptoss_prefix_cache_bytes", "Memory that earlier prompts take.", count(engine.cache_bytes));
  gauge("gptoss_prefix_cache_disk_bytes", "Bytes in the folder of --cache-dir.", count(engine.stored_bytes));
  gauge("gptoss_prefix_cache_disk_files", "Files in the folder of --cache-dir.", count(engine.stored_files));
  counter("gptoss_prefix_cache_rejected_files_total", "Files of --cache-dir that were damaged.",
          engine.stored_rejected);
  counter("gptoss_output_tokens_total", "Tokens sampled.", engine.output_tokens);
  counter("gptoss_engine_steps_total", "Forward passes.", engine.steps);
  counter("gptoss_preemptions_total", "Requests that had to make room and were computed again.", engine.preemptions);
  const std::lock_guard lock(mutex_);
  counter("gptoss_reasoning_tokens_total", "Tokens of reasoning.", reasoning_tokens_);
  Head("gptoss_turns_total", "Turns by how they ended.", "counter", &out);
  for (const auto& [end, n] : turns_) Sample("gptoss_turns_total", "end=\"" + end + "\"", count(n), &out);
  Head("gptoss_http_requests_total", "Requests by route and status (0: the client left first).", "counter", &out);
  for (const auto& [key, n] : requests_) {
    Sample("gptoss_http_requests_total", "route=\"" + key.first + "\",status=\"" + std::to_string(key.second) + "\"",
           count(n), &out);
  }
  request_seconds_.Write("gptoss_http_request_seconds", "From the end of a request's headers to its end.", &out);
  queue_seconds_.Write("gptoss_queue_seconds", "Time in the queue.", &out);
  prefill_seconds_.Write("gptoss_prefill_seconds", "Computing the prompt.", &out);
  token_seconds_.Write("gptoss_token_seconds", "Mean time between the tokens of a turn.", &out);
  return out;
}

std::unique_ptr<TurnService> CountTurns(TurnService& turns, Metrics& metrics) {
  return std::make_unique<CountedTurns>(turns, metrics);
}

}  // namespace gptoss::server

// Several adapters side by side: each sequence of a batch has its own, and the cache keeps them apart.
#include <gtest/gtest.h>

#include <array>
#include <future>

#include "backends/registry.h"
#include "engine/engine.h"
#include "lively.h"
#include "served.h"
#include "tiny.h"

namespace gptoss {
namespace {

/// Hears one request to its end.
class Output : public EngineListener {
 public:
  bool OnToken(const SampledToken& token) override {
    tokens_.push_back(token.id);
    return true;
  }
  void OnFinish(const EngineFinish& finish) override { finish_.set_value(finish); }
  /// To be called once, and before tokens().
  EngineFinish Wait() { return finish_.get_future().get(); }
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  std::vector<int32_t> tokens_;
  std::promise<EngineFinish> finish_;
};

class AdapterChoice : public testing::Test {
 protected:
  void SetUp() override {
    const FlatLayout layout(TinyConfig());
    base_ = LoadBase(layout, LivelyParameters(layout, 3), directory_ / "base", pool_);
  }

  /// The adapters of `values` under their owners.
  std::unique_ptr<AdapterWeights> Weights(const std::vector<std::vector<float>>& values,
                                          const std::vector<uint8_t>& owners) const {
    return AdapterWeights::Make(std::vector<AdapterLayout>(values.size(), layout_), values, owners);
  }

  static std::vector<int32_t> Prompt(int length) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < length; ++i) tokens.push_back('a' + i * 7 % 26);
    return tokens;
  }

  const ScopedDirectory directory_;
  ThreadPool pool_{2};
  Base base_;
  const AdapterLayout layout_{TinyConfig(), Options({"all"})};
  const std::vector<float> one_ = LivelyAdapter(layout_, 5), two_ = LivelyAdapter(layout_, 6),
                           always_ = LivelyAdapter(layout_, 7);
};

TEST_F(AdapterChoice, EachSequenceOfABatchHasItsOwn) {
  // Owner 0 takes part everywhere; 1 and 2 are chosen.
  const auto all = Weights({always_, one_, two_}, {0, 1, 2});
  EXPECT_EQ(all->owners(), 3);
  const std::array<std::unique_ptr<AdapterWeights>, 3> alone = {Weights({always_}, {}), Weights({always_, one_}, {}),
                                                                Weights({always_, two_}, {})};
  std::vector<const Ops*> tables = {&ReferenceOps()};
  for (const CpuTarget& target : ListCpuTargets()) {
    if (target.available) tables.push_back(*CpuOps(target.name, Precision::kExact));
  }
  for (const Ops* ops : tables) {
    const GptOss model(base_.weights, *ops, all.get());
    auto runner = ModelRunner::Create(model, pool_, {.max_context = 64, .max_sequences = 3, .kv_dtype = DType::kF32});
    ASSERT_TRUE(runner.ok()) << runner.status().message();
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<StepItem> items;
    for (const int adapter : {2, 0, 1}) {
      sequences.push_back((*runner)->NewSequence(adapter));
      const int length = 20 + 5 * adapter;
      sequences.back()->Append(Prompt(length));
      items.push_back({sequences.back().get(), length, length});
    }
    std::array<std::vector<float>, 3> logits;
    const Status status = (*runner)->Advance(items, {.on_logits =
                                                         [&](size_t item, int, LogitRow& logit_row) {
                                                           const std::span<float> row = *logit_row.OnHost();
                                                           auto& of =
                                                               logits[static_cast<size_t>(sequences[item]->adapter())];
                                                           of.insert(of.end(), row.begin(), row.end());
                                                           return Status();
                                                         },
                                                     .on_computed = nullptr});
    ASSERT_TRUE(status.ok()) << status.message();
    for (size_t adapter = 0; adapter < 3; ++adapter) {
      const GptOss other(base_.weights, *ops, alone[adapter].get());
      const auto want = ServedLogits(other, pool_, Prompt(20 + 5 * static_cast<int>(adapter)));
      // The bound between two float computations that sum in another order.
      EXPECT_LE(Relative(want, logits[adapter]), 2e-5) << ops->name << " adapter " << adapter;
      const GptOss wrong(base_.weights, *ops, alone[(adapter + 1) % 3].get());
      const auto others = ServedLogits(wrong, pool_, Prompt(20 + 5 * static_cast<int>(adapter)));
      EXPECT_GT(Relative(others, logits[adapter]), 0.05) << ops->name << " adapter " << adapter;
    }
  }
}

TEST_F(AdapterChoice, TheCacheKeepsThemApart) {
  const auto both = Weights({one_, two_}, {1, 2});
  const GptOss model(base_.weights, **CpuOps("", Precision::kFast), both.get());
  const auto run = [&](bool cached, const std::vector<int>& adapters) {
    const uint64_t cache_bytes = cached ? 1 << 20 : 0;
    auto runner = ModelRunner::Create(
        model, pool_, {.max_context = 200, .max_sequences = 2, .chunk_tokens = 32, .cache_bytes = cache_bytes});
    EXPECT_TRUE(runner.ok());
    auto engine = Engine::Create(**runner, {.max_running = 2, .cache_bytes = cache_bytes});
    EXPECT_TRUE(engine.ok());
    std::vector<std::vector<int32_t>> outputs;
    std::vector<int> reused;
    for (const int adapter : adapters) {
      EngineRequest request;
      request.prompt = Prompt(100);
      request.sampling.temperature = 0;
      request.max_tokens = 20;
      request.adapter = adapter;
      request.detect_repetition = false;
      auto output = std::make_shared<Output>();
      const auto id = (*engine)->Submit(std::move(request), output);
      EXPECT_TRUE(id.ok()) << id.status().message();
      const EngineFinish finish = output->Wait();
      EXPECT_TRUE(finish.status.ok()) << finish.status.message();
      outputs.push_back(output->tokens());
      reused.push_back(finish.usage.cached_tokens);
    }
    if (cached) {
      EXPECT_EQ(reused, (std::vector<int>{0, 0, 0, 99, 99}));
    }
    return outputs;
  };
  const std::vector<int> adapters = {1, 2, 0, 2, 1};
  const auto want = run(false, adapters), got = run(true, adapters);
  EXPECT_EQ(want, got);
  EXPECT_NE(want[0], want[1]);
  EXPECT_NE(want[1], want[2]);

  auto runner = ModelRunner::Create(model, pool_, {.max_context = 64, .max_sequences = 1});
  ASSERT_TRUE(runner.ok());
  auto engine = Engine::Create(**runner, {.max_running = 1});
  ASSERT_TRUE(engine.ok());
  EngineRequest request;
  request.prompt = Prompt(3);
  request.adapter = 3;
  const auto refused = (*engine)->Submit(std::move(request), std::make_shared<Output>());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().message(), "adapter 3: there are 2");
}

}  // namespace
}  // namespace gptoss

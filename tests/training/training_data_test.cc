// What training sees: masks, borders, order, and complaints about data that cannot be trained on.
#include <algorithm>
#include <cmath>
#include <set>

#include "tiny.h"
#include "training/adamw.h"
#include "training/batches.h"
#include "training/schedule.h"

namespace gptoss {
namespace {

Dataset Read(const std::string& text) {
  DatasetOptions options;
  options.vocab_size = kTinyVocabulary;
  options.max_tokens = 120;
  return ReadDataset(ByteRenderer(), text, options);
}

/// The text with what is trained on in brackets.
std::string Marked(const Renderer& renderer, const Example& example) {
  std::string text;
  bool trained = false;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    if ((example.weights[i] != 0.0f) != trained) text += trained ? "]" : "[";
    trained = example.weights[i] != 0.0f;
    text += renderer.tokenizer().Decode({&example.tokens[i], 1});
  }
  return text + (trained ? "]" : "");
}

TEST(Dataset, OnlyWhatTheAssistantWritesHasLoss) {
  const Renderer renderer = ByteRenderer();
  const Dataset data =
      Read(R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","channel":"final","content":"a"}]})"
           "\n\n"
           R"({"conversation":{"messages":[{"role":"user","content":"q"},)"
           R"({"role":"assistant","channel":"analysis","content":"t"},)"
           R"({"role":"assistant","channel":"commentary","recipient":"functions.f","content":"{}"},)"
           R"({"role":"tool","name":"functions.f","channel":"commentary","content":"r"},)"
           R"({"role":"assistant","channel":"final","content":"a"}]}})"
           "\n");
  ASSERT_EQ(data.bad_lines.size(), 0u) << data.bad_lines[0].reason;
  ASSERT_EQ(data.examples.size(), 2u);
  EXPECT_EQ(Marked(renderer, data.examples[0]),
            "<|start|>user<|message|>q<|end|><|start|>assistant[<|channel|>final<|message|>a<|return|>]");
  // The last turn keeps its analysis, from before and after a call.
  EXPECT_EQ(data.examples[1].line, 3);
  EXPECT_EQ(Marked(renderer, data.examples[1]),
            "<|start|>user<|message|>q<|end|><|start|>assistant[<|channel|>analysis<|message|>t<|end|>"
            "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|>]"
            "<|start|>functions.f<|channel|>commentary<|message|>r<|end|>"
            "<|start|>assistant[<|channel|>final<|message|>a<|return|>]");
}

TEST(Dataset, EarlierTurnsLoseTheirAnalysisAndThenTheirWeight) {
  const Renderer renderer = ByteRenderer();
  const Dataset data =
      Read(R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","channel":"final","content":"a"},)"
           R"({"role":"user","content":"r"},{"role":"assistant","channel":"analysis","content":"t"},)"
           R"({"role":"assistant","channel":"final","content":"b"},)"
           R"({"role":"user","content":"s"},{"role":"assistant","channel":"analysis","content":"u"},)"
           R"({"role":"assistant","channel":"final","content":"c"}]})");
  ASSERT_EQ(data.bad_lines.size(), 0u) << data.bad_lines[0].reason;
  EXPECT_EQ(Marked(renderer, data.examples[0]),
            "<|start|>user<|message|>q<|end|><|start|>assistant[<|channel|>final<|message|>a<|end|>]"
            "<|start|>user<|message|>r<|end|><|start|>assistant<|channel|>final<|message|>b<|end|>"
            "<|start|>user<|message|>s<|end|><|start|>assistant[<|channel|>analysis<|message|>u<|end|>"
            "<|start|>assistant<|channel|>final<|message|>c<|return|>]");
}

TEST(Dataset, AMessageAfterTheModelsOwnIsOpenedByTheModel) {
  const Renderer renderer = ByteRenderer();
  const Dataset data =
      Read(R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","channel":"analysis","content":"t"},)"
           R"({"role":"assistant","channel":"commentary","recipient":"functions.f","content":"{}"}]})");
  ASSERT_EQ(data.examples.size(), 1u);
  EXPECT_EQ(Marked(renderer, data.examples[0]),
            "<|start|>user<|message|>q<|end|><|start|>assistant[<|channel|>analysis<|message|>t<|end|>"
            "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|>]");
}

TEST(Dataset, ChannelWeights) {
  DatasetOptions options;
  options.vocab_size = kTinyVocabulary;
  options.analysis_weight = 0.0f;
  options.commentary_weight = 0.5f;
  const Dataset data = ReadDataset(
      ByteRenderer(),
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","channel":"analysis","content":"t"},)"
      R"({"role":"assistant","channel":"commentary","recipient":"functions.f","content":"{}"}]})",
      options);
  ASSERT_EQ(data.examples.size(), 1u);
  const std::set<float> weights(data.examples[0].weights.begin(), data.examples[0].weights.end());
  EXPECT_EQ(weights, (std::set<float>{0.0f, 0.5f}));
}

TEST(Dataset, BadLinesAreListedWithNumberAndReason) {
  const std::string good =
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","channel":"final","content":"a"}]})";
  const std::string call = R"({"role":"assistant","channel":"commentary","recipient":"functions.f","content":"{}"})";
  const std::string user = R"({"role":"user","content":"q"})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{\"messages\":[", "byte"},
      {"[]", "messages"},
      {R"({"messages":[{"role":"robot","content":"q"}]})", "role"},
      {"{\"messages\":[" + user + "]}", "nothing to learn"},
      {"{\"messages\":[" + user + "," + call + "," + user + "]}", "no result"},
      {"{\"messages\":[" + user + R"(,{"role":"tool","name":"functions.f","content":"r"}]})", "without a call"},
      {R"({"messages":[{"role":"user","content":")" + std::string(200, 'x') +
           R"("},{"role":"assistant","channel":"final","content":"a"}]})",
       "more than the 120"},
  };
  std::string text = good + "\n";
  for (const auto& [line, reason] : cases) text += line + "\n";
  text += good;
  const Dataset data = Read(text);
  EXPECT_EQ(data.examples.size(), 2u);
  EXPECT_EQ(data.examples[1].line, static_cast<int64_t>(cases.size()) + 2);
  ASSERT_EQ(data.bad_lines.size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(data.bad_lines[i].line, static_cast<int64_t>(i) + 2);
    EXPECT_NE(data.bad_lines[i].reason.find(cases[i].second), std::string::npos) << data.bad_lines[i].reason;
  }
}

TEST(Dataset, OpenAiChatFormatBecomesHarmony) {
  DatasetOptions options;
  options.vocab_size = kTinyVocabulary;
  options.max_tokens = 2000;
  const Renderer renderer = ByteRenderer();
  const Dataset data = ReadDataset(
      renderer,
      R"({"reasoning_effort":"high","tools":[{"type":"function","function":{"name":"f","description":"d",)"
      R"("parameters":{"type":"object","properties":{"x":{"type":"number"}}}}}],"messages":[)"
      R"({"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"q"}]},)"
      R"({"role":"assistant","reasoning_content":"t","content":"p","tool_calls":[)"
      R"({"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},)"
      R"({"id":"2","type":"function","function":{"name":"f","arguments":"{\"x\":2}"}}]},)"
      R"({"role":"tool","tool_call_id":"2","content":"two"},{"role":"tool","tool_call_id":"1","content":"one"},)"
      R"({"role":"assistant","content":"a"}]})"
      "\n"
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","weight":0},)"
      R"({"role":"user","content":"r"},{"role":"assistant","content":"b","weight":1}]})",
      options);
  ASSERT_TRUE(data.bad_lines.empty()) << data.bad_lines[0].reason;
  const std::string tools = Marked(renderer, data.examples[0]);
  EXPECT_NE(tools.find("Reasoning: high"), std::string::npos) << tools;
  EXPECT_NE(tools.find("# Instructions\n\nBe brief."), std::string::npos) << tools;
  EXPECT_NE(tools.find("namespace functions {\n\n// d\ntype f = (_: {\nx?: number,\n}) => any;"), std::string::npos)
      << tools;
  EXPECT_NE(tools.find("<|start|>user<|message|>q<|end|><|start|>assistant[<|channel|>analysis<|message|>t<|end|>"
                       "<|start|>assistant<|channel|>commentary<|message|>p<|end|>"
                       "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{\"x\":1}"
                       "<|call|>]<|start|>functions.f to=assistant<|channel|>commentary<|message|>one<|end|>"
                       "<|start|>assistant["),
            std::string::npos)
      << tools;
  EXPECT_NE(tools.find("{\"x\":2}<|call|>]<|start|>functions.f to=assistant<|channel|>commentary<|message|>two<|end|>"
                       "<|start|>assistant[<|channel|>final<|message|>a<|return|>]"),
            std::string::npos)
      << tools;
  const std::string weighted = Marked(renderer, data.examples[1]);
  EXPECT_NE(weighted.find("<|start|>assistant<|channel|>final<|message|>a<|end|><|start|>user"), std::string::npos)
      << weighted;
  EXPECT_TRUE(weighted.ends_with("<|start|>assistant[<|channel|>final<|message|>b<|return|>]")) << weighted;
}

TEST(Dataset, BadLinesOfOpenAiChatFormatAreListed) {
  const std::string user = R"({"role":"user","content":"q"})", end = R"({"role":"assistant","content":"a"})";
  const auto call = [](const std::string& function) {
    return R"({"role":"assistant","tool_calls":[{"id":"1","function":)" + function + "}]}";
  };
  const std::string result = R"({"role":"tool","tool_call_id":"1","content":"r"})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {user + "," + call(R"({"name":"f","arguments":"{"})") + "," + result, "arguments"},
      {user + "," + call(R"({"arguments":"{}"})") + "," + result, "messages[1].tool_calls[0].function.name"},
      {user + "," + call(R"({"name":"f","arguments":"{}"})") + "," + end, "tool_call_id \"1\""},
      {user + "," + call(R"({"name":"f","arguments":"{}"})") + "," + result + "," + result, "belong to no call"},
      {user + "," + result + "," + end, "without a call"},
      {user + "," + end + R"(,{"role":"system","content":"s"})", "before all others"},
      {R"({"role":"robot","content":"q"},)" + end, "robot"},
      {R"({"role":"user","content":[{"type":"image_url"}]},)" + end, "messages[0].content[0]"},
      {user + R"(,{"role":"assistant","content":"a","weight":"x"})", "weight"},
  };
  std::string text;
  for (const auto& [messages, reason] : cases) text += "{\"messages\":[" + messages + "]}\n";
  const Dataset data = Read(text);
  ASSERT_EQ(data.bad_lines.size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(data.bad_lines[i].line, static_cast<int64_t>(i) + 1);
    EXPECT_NE(data.bad_lines[i].reason.find(cases[i].second), std::string::npos) << data.bad_lines[i].reason;
  }
}

TEST(Batches, PackingKeepsBordersAndShiftsTargets) {
  const Example a{1, {10, 11, 12}, {0, 0, 1}}, b{2, {20, 21, 22, 23}, {1, 0.5f, 0, 1}};
  const TrainingBatch batch = PackExamples({&a, &b});
  EXPECT_EQ(batch.tokens, (std::vector<int32_t>{10, 11, 12, 20, 21, 22, 23}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3}));
  // Token 20 has nothing before it: predicting it from the other conversation's end would cross the border.
  EXPECT_EQ(batch.target_rows, (std::vector<int32_t>{1, 3, 5}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{12, 21, 23}));
  EXPECT_EQ(batch.weights, (std::vector<float>{1, 0.5f, 1}));
  ASSERT_EQ(batch.sequences.size(), 2u);
  EXPECT_EQ(batch.sequences[1].first_row, 3);
  EXPECT_EQ(batch.sequences[1].num_rows, 4);
}

TEST(Batches, AnEpochHasEveryConversationOnceInAnOrderOfItsOwn) {
  Dataset data;
  for (int i = 0; i < 20; ++i) data.examples.push_back({i, {i, i + 100, i + 200}, {0, 1, 1}});
  BatchStream stream(data, 8, 3), again(data, 8, 3);
  std::vector<std::vector<int32_t>> orders(2);
  for (std::vector<int32_t>& order : orders) {
    const int64_t epoch = stream.position().epoch;
    while (stream.position().epoch == epoch) {
      const TrainingBatch batch = stream.Next();
      EXPECT_EQ(batch.tokens, again.Next().tokens);
      EXPECT_LE(batch.rows(), 8);
      for (const SequenceSpan& span : batch.sequences) order.push_back(batch.tokens[span.first_row]);
    }
  }
  EXPECT_NE(orders[0], orders[1]);
  for (std::vector<int32_t>& order : orders) {
    std::sort(order.begin(), order.end());
    for (int i = 0; i < 20; ++i) EXPECT_EQ(order[i], i);
  }
  BatchStream sought(data, 8, 3);
  for (int i = 0; i < 13; ++i) sought.Next();
  BatchStream jumped(data, 8, 3);
  ASSERT_TRUE(jumped.Seek(sought.position()).ok());
  EXPECT_EQ(jumped.Next().tokens, sought.Next().tokens);
  EXPECT_FALSE(jumped.Seek({0, 20}).ok());
}

TEST(Schedule, WarmUpThenDecayToTheFloor) {
  Schedule s{.kind = ScheduleKind::kLinear, .peak = 1.0, .warmup_steps = 4, .total_steps = 14, .floor = 0.2};
  EXPECT_DOUBLE_EQ(LearningRate(s, 0), 0.25);
  EXPECT_DOUBLE_EQ(LearningRate(s, 3), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(s, 4), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(s, 9), 0.6);
  EXPECT_DOUBLE_EQ(LearningRate(s, 14), 0.2);
  EXPECT_DOUBLE_EQ(LearningRate(s, 99), 0.2);
  s.kind = ScheduleKind::kCosine;
  EXPECT_DOUBLE_EQ(LearningRate(s, 4), 1.0);
  EXPECT_NEAR(LearningRate(s, 9), 0.6, 1e-12);
  EXPECT_DOUBLE_EQ(LearningRate(s, 14), 0.2);
  s.kind = ScheduleKind::kConstant;
  EXPECT_DOUBLE_EQ(LearningRate(s, 99), 1.0);
}

TEST(AdamW, FollowsThePaperInDouble) {
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .weight_decay = 0.1};
  std::vector<float> values = {1.0f, -2.0f, 0.5f}, m(3, 0.0f), v(3, 0.0f);
  std::vector<double> want(values.begin(), values.end()), dm(3, 0.0), dv(3, 0.0);
  for (int step = 1; step <= 5; ++step) {
    const std::vector<float> g = {0.3f * static_cast<float>(step), -1.0f, 0.01f};
    AdamWUpdate(options, step, 0.05, 0.5, /*decay=*/true, g, m, v, values);
    for (size_t i = 0; i < 3; ++i) {
      const double gi = 0.5 * g[i];
      dm[i] = 0.9 * dm[i] + 0.1 * gi;
      dv[i] = 0.99 * dv[i] + 0.01 * gi * gi;
      const double m_hat = dm[i] / (1 - std::pow(0.9, step)), v_hat = dv[i] / (1 - std::pow(0.99, step));
      want[i] -= 0.05 * (m_hat / (std::sqrt(v_hat) + 1e-6) + 0.1 * want[i]);
      EXPECT_NEAR(values[i], want[i], 2e-6) << step;
    }
  }
}

}  // namespace
}  // namespace gptoss

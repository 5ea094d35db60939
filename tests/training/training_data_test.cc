// What training sees: masks, borders, order, and complaints about data that cannot be trained on.
#include <algorithm>
#include <cmath>
#include <set>
#include <span>

#include "base/rng.h"
#include "tiny.h"
#include "training/adamw.h"
#include "training/batches.h"
#include "training/byte_moments.h"
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
  s.kind = ScheduleKind::kWsd;
  s.decay_steps = 5;
  EXPECT_DOUBLE_EQ(LearningRate(s, 2), 0.75);
  EXPECT_DOUBLE_EQ(LearningRate(s, 9), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(s, 10), 0.84);
  EXPECT_DOUBLE_EQ(LearningRate(s, 14), 0.2);
  for (const std::string_view name : {"constant", "linear", "cosine", "wsd"}) {
    ASSERT_TRUE(ScheduleFromName(name).has_value()) << name;
    EXPECT_EQ(ScheduleName(*ScheduleFromName(name)), name);
  }
}

TEST(Split, IsAShareChosenByTheSeedAndKeepsEqualConversationsTogether) {
  const auto make = [] {
    Dataset data;
    for (int i = 0; i < 400; ++i) data.examples.push_back({i + 1, {i / 2, 7}, {0, 1}});
    return data;
  };
  const auto lines = [](const Dataset& data) {
    std::vector<int64_t> out;
    for (const Example& example : data.examples) out.push_back(example.line);
    return out;
  };
  Dataset first = make(), second = make(), other = make(), none = make();
  const Dataset held = SplitOff(&first, 0.25, 3), again = SplitOff(&second, 0.25, 3), third = SplitOff(&other, 0.25, 4);
  EXPECT_EQ(lines(held), lines(again));
  EXPECT_NE(lines(held), lines(third));
  EXPECT_EQ(first.examples.size() + held.examples.size(), 400u);
  // 200 draws: five standard deviations are 31 pairs.
  EXPECT_NEAR(static_cast<double>(held.examples.size()), 100, 62);
  std::set<int32_t> kept;
  for (const Example& example : first.examples) kept.insert(example.tokens[0]);
  for (const Example& example : held.examples) EXPECT_FALSE(kept.contains(example.tokens[0])) << example.line;
  EXPECT_TRUE(std::is_sorted(first.examples.begin(), first.examples.end(),
                             [](const Example& a, const Example& b) { return a.line < b.line; }));
  EXPECT_TRUE(SplitOff(&none, 0.0, 3).examples.empty());
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

TEST(ByteMoments, CodesAreDenseNearZeroAndNeverLoseASecondMoment) {
  std::vector<float> values(kMomentBlock), back(kMomentBlock);
  for (size_t i = 0; i < values.size(); ++i) {  // from 1e-7 of the largest up, of both signs
    values[i] = 3e-4f * static_cast<float>(std::pow(10.0, -7.0 * static_cast<double>(i) / 255)) * (i % 2 == 0 ? 1 : -1);
  }
  std::vector<int8_t> codes(values.size());
  float scale = 0;
  EncodeSigned(values, codes, &scale);
  DecodeSigned(codes, scale, back);
  EXPECT_EQ(scale, values[0]);
  EXPECT_EQ(back[0], values[0]);
  for (size_t i = 0; i < values.size(); ++i) {
    const float size = std::abs(values[i]), error = std::abs(back[i] - values[i]);
    if (size >= 0.1f * scale) {
      EXPECT_LE(error, 0.03f * size) << i;
    }
    if (size >= 1e-4f * scale) {
      EXPECT_LE(error, 0.2f * size) << i;
    }
    EXPECT_GE(back[i] * values[i], 0.0f) << i;
  }
  for (float& v : values) v = std::abs(v);
  values[7] = 0.0f;
  std::vector<uint8_t> bytes(values.size());
  EncodeUnsigned(values, bytes, &scale);
  DecodeUnsigned(bytes, scale, back);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(back[i] > 0.0f, values[i] > 0.0f) << i;
    if (values[i] >= 0.1f * scale) {
      EXPECT_LE(std::abs(back[i] - values[i]), 0.015f * values[i]) << i;
    }
    if (values[i] >= 1e-4f * scale) {
      EXPECT_LE(std::abs(back[i] - values[i]), 0.1f * values[i]) << i;
    }
  }
  std::fill(values.begin(), values.end(), 0.0f);
  EncodeUnsigned(values, bytes, &scale);
  DecodeUnsigned(bytes, scale, back);
  EXPECT_EQ(back, values);
}

TEST(ByteMoments, StepsAreCloseToThoseOfFloatMoments) {
  constexpr size_t kCount = kMomentBlock + 50;
  const RandomStream random(5, "gradients");
  std::vector<float> values(kCount, 0.0f), in_bytes(kCount, 0.0f), m(kCount), v(kCount), gradient(kCount);
  std::vector<int8_t> m_codes(kCount);
  std::vector<uint8_t> v_codes(kCount);
  std::vector<float> m_scale(MomentBlocks(kCount)), v_scale(MomentBlocks(kCount));
  for (int step = 1; step <= 40; ++step) {
    for (size_t i = 0; i < kCount; ++i) {
      const double noise = random.Uniform(static_cast<uint64_t>(step) * kCount + i) - 0.5;
      gradient[i] = static_cast<float>((i % 2 == 0 ? 1.0 : 0.1) * (0.3 + noise));
    }
    AdamWUpdate({}, step, 1e-2, 1.0, false, gradient, m, v, values);
    AdamWUpdate({}, step, 1e-2, 1.0, false, gradient, ByteMoments{m_codes, v_codes, m_scale, v_scale}, in_bytes);
  }
  double error = 0, norm = 0;
  for (size_t i = 0; i < kCount; ++i) {
    error += std::pow(static_cast<double>(in_bytes[i]) - static_cast<double>(values[i]), 2);
    norm += std::pow(static_cast<double>(values[i]), 2);
  }
  // Of a block's smaller half, m is off by up to 3 % and the root of v (a hundredth of its scale) by up to 1.5 %.
  EXPECT_LE(std::sqrt(error / norm), 0.045);
  EXPECT_GT(error, 0);
}

}  // namespace
}  // namespace gptoss

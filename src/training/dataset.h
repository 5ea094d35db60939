// Training data: one harmony conversation a line of JSON, as tokens with a weight for each.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harmony/render.h"

namespace gptoss {

struct DatasetOptions {
  int max_tokens = 131072;  // a longer conversation is an error
  int vocab_size = 201088;  // of the model: a token beyond it is an error
  /// Weight of the loss on an assistant's tokens, by the channel of their message.
  float analysis_weight = 1.0f;
  float commentary_weight = 1.0f;
  float final_weight = 1.0f;  // and of messages without channel
};

/// A conversation as the model sees it. weights[i] is that of predicting tokens[i]: 0 but for what an assistant says.
/// Of an assistant's message the opening "<|start|>assistant" counts only where the model itself goes on after one of
/// its own messages; elsewhere the program writes it.
struct Example {
  int64_t line = 0;  // from 1
  std::vector<int32_t> tokens;
  std::vector<float> weights;  // [tokens]
};

struct BadLine {
  int64_t line = 0;
  std::string reason;
};

struct Dataset {
  std::vector<Example> examples;   // in the order of their lines
  std::vector<BadLine> bad_lines;  // likewise; nothing is dropped without being listed here
  /// Of all tokens and weights: tells whether a run is resumed on the data that it began with.
  uint64_t Fingerprint() const;
  int64_t TotalTokens() const;
  int64_t TrainedTokens() const;
};

/// One conversation: {"messages": [...]} or {"conversation": {"messages": [...]}}, in the form of message_json.h.
/// The last turn is whole and a last final ends in <|return|>; analysis of earlier turns is dropped as it is when the
/// model runs, and what the assistant said because of it has no weight.
/// On failure: kInvalidArgument saying what is wrong: a field, a call without result, a result without call, no
/// message of an assistant, a conversation longer than the context.
/// `message_weights` multiply the weights of the messages they stand for; empty: 1.
Result<Example> MakeExample(const Renderer& renderer, const Conversation& conversation, const DatasetOptions& options,
                            std::span<const float> message_weights = {});

/// All lines of a JSONL text, of harmony's form or of OpenAI's chat fine-tuning format (training/openai_chat.h); blank
/// lines are skipped.
Dataset ReadDataset(const Renderer& renderer, std::string_view text, const DatasetOptions& options);

/// On failure: kNotFound or kIo naming the file. Bad lines are no failure here.
Result<Dataset> ReadDatasetFile(const Renderer& renderer, const std::string& path, const DatasetOptions& options);

/// Takes about this share of the conversations out of `dataset`. Which, depends on the seed and their tokens alone, so
/// that equal conversations stay together.
Dataset SplitOff(Dataset* dataset, double share, uint64_t seed);

}  // namespace gptoss

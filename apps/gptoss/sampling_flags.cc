#include "sampling_flags.h"

#include <charconv>
#include <vector>

namespace gptoss::cli {
namespace {

constexpr char kGroup[] = "Sampling";

/// Tokens proposed at most when the flag is not given. Past 8 a pass has little left to save.
constexpr int kDefaultProposals = 8;

template <typename Number>
bool ParseWhole(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Result<std::pair<int32_t, float>> ParseLogitBias(const std::string& text) {
  const size_t equals = text.find('=');
  std::pair<int32_t, float> bias;
  if (equals == std::string::npos || !ParseWhole(std::string_view(text).substr(0, equals), &bias.first) ||
      !ParseWhole(std::string_view(text).substr(equals + 1), &bias.second)) {
    return InvalidArgument("--logit-bias " + text + ": expected ID=VALUE, for example 1234=-100");
  }
  if (bias.first < 0) return InvalidArgument("--logit-bias " + text + ": token ids are not negative");
  if (!(bias.second >= -100 && bias.second <= 100)) {
    return InvalidArgument("--logit-bias " + text + ": the value must be from -100 to 100");
  }
  return bias;
}

Result<int> ParseSpeculate(const std::string& text) {
  if (text == "off") return 0;
  int count = 0;
  if (!ParseWhole(text, &count) || count < 0 || count > 32) {
    return InvalidArgument("--speculate " + text + ": expected off, or 0 to 32 tokens");
  }
  return count;
}

void AddSamplingFlags(CLI::App& command, SamplingParams* sampling) {
  command.add_option("--temperature", sampling->temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--top-p", sampling->top_p, "Only the likeliest tokens that make up this share")
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--top-k", sampling->top_k, "Only so many of the likeliest tokens; 0: all")
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--min-p", sampling->min_p, "Only tokens this likely relative to the likeliest")
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--repetition-penalty", sampling->repetition_penalty, "Above 1: less of what was there before")
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--frequency-penalty", sampling->frequency_penalty, "-2 to 2, per occurrence in the output")
      ->capture_default_str()
      ->group(kGroup);
  command.add_option("--presence-penalty", sampling->presence_penalty, "-2 to 2, once for what the output has")
      ->capture_default_str()
      ->group(kGroup);
  command
      .add_option_function<std::vector<std::string>>(
          "--logit-bias",
          [sampling](const std::vector<std::string>& all) {
            for (const std::string& text : all) {
              const auto bias = ParseLogitBias(text);
              if (!bias.ok()) throw CLI::ValidationError(bias.status().message());
              sampling->logit_bias.push_back(*bias);
            }
          },
          "Added to the logit of a token id, -100 to 100; may be repeated")
      ->type_name("ID=VALUE")
      ->allow_extra_args(false)
      ->group(kGroup);
}

void AddSpeculateFlag(CLI::App& command, SpeculationOptions* speculation) {
  speculation->max_tokens = kDefaultProposals;
  command
      .add_option_function<std::string>(
          "--speculate",
          [speculation](const std::string& text) {
            const auto count = ParseSpeculate(text);
            if (!count.ok()) throw CLI::ValidationError(count.status().message());
            speculation->max_tokens = *count;
          },
          "Tokens tried ahead where the text repeats itself, or off; the output is the same")
      ->type_name("N|off")
      ->default_str(std::to_string(kDefaultProposals))
      ->group(kGroup);
}

}  // namespace gptoss::cli

#include "train_preview.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace gptoss::cli {
namespace {

constexpr size_t kMostBadLines = 20;

}  // namespace

bool PrintBadLines(const std::string& path, const Dataset& dataset) {
  const size_t count = dataset.bad_lines.size();
  for (size_t i = 0; i < std::min(count, kMostBadLines); ++i) {
    std::fprintf(stderr, "gptoss: %s:%lld: %s\n", path.c_str(), static_cast<long long>(dataset.bad_lines[i].line),
                 dataset.bad_lines[i].reason.c_str());
  }
  if (count > kMostBadLines) {
    std::fprintf(stderr, "gptoss: %s: %zu more lines cannot be used\n", path.c_str(), count - kMostBadLines);
  }
  return count > 0;
}

void PrintStatistics(const std::string& path, const Dataset& dataset) {
  size_t longest = 0;
  for (const Example& example : dataset.examples) longest = std::max(longest, example.tokens.size());
  std::fprintf(stderr, "%s: %zu conversations, %lld tokens, %lld trained on, the longest has %zu\n", path.c_str(),
               dataset.examples.size(), static_cast<long long>(dataset.TotalTokens()),
               static_cast<long long>(dataset.TrainedTokens()), longest);
}

void PrintPreview(const Renderer& renderer, const Dataset& dataset, int count) {
  const bool colour = ::isatty(STDOUT_FILENO) != 0;
  const char *begin = colour ? "\x1b[32m" : "⟦", *end = colour ? "\x1b[0m" : "⟧";
  const size_t shown = std::min(dataset.examples.size(), static_cast<size_t>(count));
  for (size_t n = 0; n < shown; ++n) {
    const Example& example = dataset.examples[n];
    const auto trained = [&](size_t i) { return example.weights[i] != 0.0f; };
    std::printf("--- line %lld, %zu tokens, %lld trained on\n", static_cast<long long>(example.line),
                example.tokens.size(),
                static_cast<long long>(
                    std::count_if(example.weights.begin(), example.weights.end(), [](float w) { return w != 0.0f; })));
    // Runs of equal kind are decoded together, so that characters of several tokens stay whole.
    for (size_t first = 0; first < example.tokens.size();) {
      size_t last = first + 1;
      while (last < example.tokens.size() && trained(last) == trained(first)) ++last;
      const std::string text = renderer.tokenizer().Decode(std::span(example.tokens).subspan(first, last - first));
      std::printf("%s%s%s", trained(first) ? begin : "", text.c_str(), trained(first) ? end : "");
      first = last;
    }
    std::printf("\n");
  }
}

}  // namespace gptoss::cli

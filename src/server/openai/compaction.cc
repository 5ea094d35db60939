#include "server/openai/compaction.h"

#include <utility>

#include "server/api/clock.h"
#include "server/api/history.h"
#include "server/openai/errors.h"
#include "server/openai/responses_builder.h"

namespace gptoss::server {
namespace {

constexpr char kRequest[] =
    "The conversation so far is about to be replaced by a summary, from which you will go on. Write this summary now: "
    "what is wanted and what was decided, what has been done and found out (names, paths, numbers and texts that will "
    "be needed, as they are), and what is left to do. My own messages will be kept; everything else will be gone.";
constexpr char kLead[] = "What happened before, in your own summary:\n\n";

class CompactionOutput : public TurnOutput {
 public:
  CompactionOutput(const SealKey& key, Json kept, std::shared_ptr<Responder> responder)
      : key_(key), kept_(std::move(kept)), responder_(std::move(responder)) {}

  void Begin() override {}
  void ItemStart(const TurnItem&) override {}
  bool Delta(const TurnItem&, std::string_view, std::span<const ItemLogprob>) override { return true; }
  void ItemEnd(const TurnItem& item) override {
    if (item.kind == TurnItem::Kind::kAnswer) summary_ = item.text;
  }

  void Finish(const TurnResult& result) override {
    if (result.end == TurnEnd::kFailed) {
      return SendError(*responder_, {500, "server_error", result.status.message(), {}, {}, 0});
    }
    // Half a summary is better than none, but none would lose the conversation.
    if (summary_.empty()) {
      const std::string why = TurnEndName(result.end);
      return SendError(*responder_, {503, "server_error", "the model ended without a summary: " + why, {}, why, 1});
    }
    kept_.push_back({{"id", NewId("cmp_")}, {"type", "compaction"}, {"encrypted_content", Seal(key_, summary_)}});
    SendJson(*responder_, 200,
             {{"id", NewId("resp_")},
              {"object", "response.compaction"},
              {"created_at", NowSeconds()},
              {"output", std::move(kept_)},
              {"usage", ResponseUsageJson(result)}});
  }

 private:
  const SealKey key_;
  Json kept_;
  const std::shared_ptr<Responder> responder_;
  std::string summary_;
};

}  // namespace

void AskForSummary(TurnRequest* turn) {
  turn->history.push_back({UserText(kRequest), {}});
  // The tools stay declared: the prompt begins as it did before, and need not be computed again.
  turn->tool_choice = {ToolChoice::Kind::kNone, {}};
  turn->format = {};
  turn->stops.clear();
}

void KeepUserMessages(const Json& items, Json* kept) {
  for (const Json& item : items) {
    const std::string* type = FindString(item, "type");
    const std::string* role = FindString(item, "role");
    if (type != nullptr && *type == "message" && role != nullptr && *role == "user") kept->push_back(item);
  }
}

std::unique_ptr<TurnOutput> MakeCompactionOutput(const SealKey& key, Json kept, std::shared_ptr<Responder> responder) {
  return std::make_unique<CompactionOutput>(key, std::move(kept), std::move(responder));
}

std::optional<std::string> CompactedText(const SealKey& key, const std::string& encrypted_content) {
  auto text = Unseal(key, encrypted_content);
  if (text) text->insert(0, kLead);
  return text;
}

}  // namespace gptoss::server

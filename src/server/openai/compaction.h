// POST /v1/responses/compact: a conversation becomes its user messages and one item that stands for all the rest, which
// the model has summed up. The summary is sealed, since clients only carry it. Source: CompactedResponse in the types
// of the npm package openai.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "server/api/ids.h"
#include "server/api/simple_run.h"
#include "server/http.h"
#include "server/turn.h"

namespace gptoss::server {

/// Makes of a conversation's turn the one that sums it up: no calls, a plain answer.
void AskForSummary(TurnRequest* turn);

/// Appends the user messages among `items` to `kept`.
void KeepUserMessages(const Json& items, Json* kept);

/// Sends the compacted response once the turn has ended. `kept`: an array of messages.
std::unique_ptr<TurnOutput> MakeCompactionOutput(const SealKey& key, Json kept, std::shared_ptr<Responder> responder);

/// What a sealed item says to the model that goes on from it. Nothing where this server did not seal it.
std::optional<std::string> CompactedText(const SealKey& key, const std::string& encrypted_content);

}  // namespace gptoss::server

// A turn that answers one request and leaves nothing behind but its tokens for replay: what the APIs without stored
// responses have in common.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"
#include "server/replay/replay_store.h"
#include "server/turn.h"

namespace gptoss::server {

/// An API's form of a turn. Calls come one at a time, in the order of TurnListener, after Begin.
class TurnOutput {
 public:
  virtual ~TurnOutput() = default;
  /// The turn has been accepted: a stream begins.
  virtual void Begin() = 0;
  virtual void ItemStart(const TurnItem& item) = 0;
  /// False: the client has left.
  virtual bool Delta(const TurnItem& item, std::string_view text, std::span<const ItemLogprob> logprobs) = 0;
  virtual void ItemEnd(const TurnItem& item) = 0;
  virtual void Finish(const TurnResult& result) = 0;
  /// Ids that were given out, under which the turn is to be found again.
  virtual std::vector<std::string> replay_ids() const { return {}; }
};

/// Starts the turn; it is cancelled when the client leaves. On failure, as TurnService::Start: `output` was not called.
/// `turns` and `replay` must outlive the turn; `replay` may be null.
Status RunTurn(TurnService& turns, ReplayStore* replay, std::string owner, TurnRequest request,
               std::shared_ptr<Responder> responder, std::unique_ptr<TurnOutput> output);
/// The same without harmony and without replay, as TurnService::StartRaw.
Status RunRawTurn(TurnService& turns, std::vector<TokenId> prompt, TurnRequest limits,
                  std::shared_ptr<Responder> responder, std::unique_ptr<TurnOutput> output);

}  // namespace gptoss::server

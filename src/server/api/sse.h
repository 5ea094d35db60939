// Server-sent events, as all streaming APIs here send them. Source: html.spec.whatwg.org/multipage/server-sent-events.
#pragma once

#include <string>
#include <string_view>

#include "json/json.h"
#include "server/http.h"

namespace gptoss::server {

inline constexpr char kEventStream[] = "text/event-stream";

/// JSON is one line, so that an event is two.
inline std::string NamedEvent(std::string_view name, const Json& data) {
  return "event: " + std::string(name) + "\ndata: " + WriteJson(data) + "\n\n";
}

inline void BeginEvents(Responder& responder) {
  responder.BeginStream(200, kEventStream, {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}});
}

}  // namespace gptoss::server

#pragma once
// The OpenAI-compatible API over one engine: routes and what they do. Knows nothing of sockets.

#include <memory>
#include <string>
#include <vector>

#include "engine/engine_loop.h"
#include "engine/model_package.h"
#include "server/http.h"
#include "text/harmony.h"

namespace gov::server {

struct ApiOptions {
  std::string model_name;  // as /v1/models lists it; requests may name it or anything if `any_model`
  bool any_model = true;
  std::string reasoning_effort = "medium";
  HarmonyTemplate chat_template = HarmonyTemplate::kHarmony;  // and the order of a call's header, for harmony models
  HarmonyRenderOptions::Order render_order = HarmonyRenderOptions::Order::kChannelFirst;
  bool remote_images = false;            // fetch https image URLs
  std::vector<std::string> image_hosts;  // allowed hosts; empty: any public one
  double response_ttl_seconds = 3600;    // of stored responses
  std::size_t stored_bytes = 256u << 20;
  bool ignore_unknown_tools = false;
};

class Api {
 public:
  // All must outlive the Api. `loop` runs the engine in its own thread.
  Api(const ModelPackage& package, EngineLoop& loop, ApiOptions options);
  ~Api();
  std::vector<Route> routes();
  std::string metrics() const;  // Prometheus text of the API and the engine; the network adds its own

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gov::server

// serve in builds without the server.

#include "base/error.h"
#include "cli/commands.h"

namespace gov::cli {

void add_serve(CLI::App& root, Program& program) {
  CLI::App& app = *root.add_subcommand("serve", "Serve the model over HTTP (not in this build)");
  app.allow_extras();
  app.callback([&program] {
    program.action = []() -> int {
      fail(ErrorCode::kUnsupported, "this program was built without the server (GOV_SERVER=OFF)");
    };
  });
}

}  // namespace gov::cli

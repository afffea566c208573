#pragma once
// Documents made from the tables of parameters (params.h).

#include <string>

#include "server/http.h"

namespace gov::server {

// The OpenAPI 3.1 document of these routes.
std::string openapi_document(const std::vector<Route>& routes);

// The parameters of all routes as Markdown tables: the generated part of docs/api.md.
std::string parameter_markdown();

}  // namespace gov::server

// What a constraint costs a step: the mask of allowed tokens (TokenConstraint::allowed) and the token taken (accept),
// on o200k_harmony's 201,088 ids, over random walks under the schemas of tests/text/data/schemas.jsonl. One JSON row
// for each kind of walk, as in bench/log:
//   first:  every walk under a schema that was not used before, so nothing of it is cached
//   again:  the same schemas once more
//   bench_constraint O200K_BASE.tiktoken [walks per schema]     (the tests unpack it into the build folder)

#include <time.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/philox.h"
#include "text/token_constraint.h"

namespace {

using namespace gov;

// Processor time of this thread, which other programs on the machine do not change much.
class Timer {
 public:
  double seconds() const { return now() - start_; }

 private:
  static double now() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  double start_ = now();
};

struct Times {
  std::vector<double> mask, accept, compile, begin;
};

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

void print(const char* work, const std::vector<double>& seconds) {
  JsonWriter row;
  row.begin_object().field("work", work).field("model", "o200k_harmony").field("unit", "us");
  row.field("value", quantile(seconds, 0.5) * 1e6).field("p99", quantile(seconds, 0.99) * 1e6);
  row.field("max", quantile(seconds, 1) * 1e6).field("count", static_cast<std::int64_t>(seconds.size())).end_object();
  std::puts(row.str().c_str());
}

void walk(const Tokenizer& tokenizer, const HarmonyTokens& tokens, const Json& schema, const Philox& random,
          std::uint64_t& draws, Times& times) {
  Timer timer;
  OutputRules rules;
  rules.in_header = false;
  rules.final_format = Grammar::json_schema(schema);
  times.compile.push_back(timer.seconds());
  const std::int32_t end = tokens.return_token;
  timer = Timer();
  TokenConstraint constraint(tokenizer, tokens, std::span(&end, 1), std::move(rules));
  times.begin.push_back(timer.seconds());
  std::vector<std::uint32_t> words((static_cast<std::size_t>(tokenizer.vocab_size()) + 31) / 32);
  std::vector<std::int32_t> allowed;
  for (int step = 0; step < 60 && !constraint.ended(); ++step) {
    timer = Timer();
    constraint.allowed(words);
    times.mask.push_back(timer.seconds());
    allowed.clear();
    for (std::size_t i = 0; i < words.size(); ++i) {
      for (std::uint32_t bits = words[i]; bits != 0; bits &= bits - 1)
        allowed.push_back(static_cast<std::int32_t>(i * 32) + std::countr_zero(bits));
    }
    const std::int32_t token = allowed[random(draws++)[0] % allowed.size()];
    timer = Timer();
    constraint.accept(token);
    times.accept.push_back(timer.seconds());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: bench_constraint O200K_BASE.tiktoken [walks per schema]\n", stderr);
    return 2;
  }
  const int walks = argc > 2 ? std::atoi(argv[2]) : 3;
  const std::string source = GOV_SOURCE_DIR;
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  const HarmonyTokens tokens = *HarmonyTokens::find(tokenizer);
  std::vector<Json> schemas;
  std::ifstream file(source + "/tests/text/data/schemas.jsonl");
  for (std::string line; std::getline(file, line);) schemas.push_back(*Json::parse(line).find("schema"));

  Times tables, first, again;
  std::uint64_t draws = 0;
  const Philox random{7};
  walk(tokenizer, tokens, Json(true), random, draws, tables);
  print("constraint_tables", {tables.begin[0]});
  for (int round = 0; round < walks; ++round) {
    for (const Json& schema : schemas) walk(tokenizer, tokens, schema, random, draws, round == 0 ? first : again);
  }
  print("constraint_compile", first.compile);
  print("constraint_begin", first.begin);
  print("constraint_mask_first", first.mask);
  print("constraint_mask_again", again.mask);
  print("constraint_accept", first.accept);
}

#include <cmath>

#include "tests/ops/attention_setup.h"
#include "tests/ops/backward_setup.h"

namespace gov::test {
namespace {

// The parts of a packed tensor [T, ...] that belong to the sequences.
std::vector<Doubles> by_sequence(const Doubles& all, const std::vector<std::int32_t>& rows) {
  std::int32_t total = 0;
  for (const std::int32_t n : rows) total += n;
  const std::size_t width = total > 0 ? all.size() / std::size_t(total) : 0;
  std::vector<Doubles> parts;
  auto from = all.begin();
  for (const std::int32_t n : rows) {
    const auto to = from + std::ptrdiff_t(std::size_t(n) * width);
    parts.emplace_back(from, to);
    from = to;
  }
  return parts;
}

// The derivatives of one sequence, row by row in double: complex steps cost the square of this. attention_by_steps()
// says that they are the same.
struct AttentionGradients {
  Doubles dq, dk, dv, dsinks;
  Doubles lse;
};
AttentionGradients attention_gradients(const Doubles& q, const Doubles& k, const Doubles& v, const Doubles& sinks,
                                       const Doubles& dout, const reference::AttentionShape& s) {
  AttentionGradients g{Doubles(q.size()), Doubles(k.size()), Doubles(v.size()), Doubles(sinks.size()), {}};
  const std::size_t rows = q.size() / (s.heads * s.dim), group = s.heads / s.kv_heads;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t h = 0; h < s.heads; ++h) {
      const std::size_t at = (i * s.heads + h) * s.dim;
      const std::size_t first = s.window > 0 && i + 1 > s.window ? i + 1 - s.window : 0, last = s.causal ? i + 1 : rows;
      const auto key = [&](std::size_t j) { return (j * s.kv_heads + h / group) * s.dim; };
      Doubles p, slope;
      double most = sinks.empty() ? -INFINITY : sinks[h];
      for (std::size_t j = first; j < last; ++j) {
        double score = 0, value = 0;
        for (std::size_t d = 0; d < s.dim; ++d) {
          score += q[at + d] * k[key(j) + d];
          value += dout[at + d] * v[key(j) + d];
        }
        p.push_back(score * s.scale);
        slope.push_back(value);
        most = std::max(most, p.back());
      }
      double sum = sinks.empty() ? 0 : std::exp(sinks[h] - most);
      for (double& score : p) sum += score = std::exp(score - most);
      double shift = 0;
      for (std::size_t j = 0; j < p.size(); ++j) shift += (p[j] /= sum) * slope[j];
      g.lse.push_back(std::log(sum) + most);
      if (!sinks.empty()) g.dsinks[h] -= std::exp(sinks[h] - most) / sum * shift;
      for (std::size_t j = 0; j < p.size(); ++j)
        for (std::size_t d = 0; d < s.dim; ++d) {
          const double ds = p[j] * (slope[j] - shift) * s.scale;
          g.dq[at + d] += ds * k[key(first + j) + d];
          g.dk[key(first + j) + d] += ds * q[at + d];
          g.dv[key(first + j) + d] += p[j] * dout[at + d];
        }
    }
  return g;
}

struct Run {
  Tensor out, dout, dq, dk, dv;
  std::optional<Added> dsinks;
  Run(Context& ctx, Memory& memory, AttentionSetup& setup) {
    const AttentionProblem& p = setup.problem();
    ops::AttentionArgs& args = setup.args;
    args.lse = memory.make(DType::kF32, {args.q.shape[0], p.heads});
    out = setup.output();
    call(ctx, ops::attention, args, out);
    dout = memory.normal(p.act, args.q.shape);
    dq = memory.make(p.act, args.q.shape);
    dk = memory.make(p.act, args.k.shape);
    dv = memory.make(p.act, args.k.shape);
    if (p.sinks) dsinks.emplace(memory, Shape{p.heads});
    call(ctx, ops::attention_backward, args, out, dout, dq, dk, dv, p.sinks ? dsinks->t : Tensor());
  }
};

Doubles attention_case(Context& ctx, const AttentionProblem& p) {
  Memory memory(131);
  memory.aligned = p.act == DType::kBF16;
  AttentionSetup setup(memory, p);
  Run run(ctx, memory, setup);
  const Doubles sinks = p.sinks ? values(setup.args.sinks) : Doubles{};
  const auto q = by_sequence(values(setup.args.q), p.rows), k = by_sequence(values(setup.args.k), p.rows),
             v = by_sequence(values(setup.args.v), p.rows), dout = by_sequence(values(run.dout), p.rows);
  AttentionGradients want{{}, {}, {}, Doubles(sinks.size()), {}};
  double longest = 1;
  for (std::size_t s = 0; s < p.rows.size(); ++s) {
    const AttentionGradients part = attention_gradients(q[s], k[s], v[s], sinks, dout[s], setup.shape());
    for (auto [all, one] :
         {std::pair(&want.dq, &part.dq), {&want.dk, &part.dk}, {&want.dv, &part.dv}, {&want.lse, &part.lse}})
      all->insert(all->end(), one->begin(), one->end());
    want.dsinks = plus(want.dsinks, part.dsinks);
    longest = std::max(longest, double(p.rows[s]));
  }
  const double terms = double(p.dim) + longest;
  EXPECT_TRUE(close(values(setup.args.lse), want.lse, gradient_tolerance(terms, want.lse, p.act)));
  for (const auto& [name, got, wanted] :
       {std::tuple("dq", &run.dq, &want.dq), {"dk", &run.dk, &want.dk}, {"dv", &run.dv, &want.dv}})
    EXPECT_TRUE(close(values(*got), *wanted, gradient_tolerance(terms, *wanted, p.act))) << name;
  Doubles all = values(run.dq);
  for (const Tensor& t : {run.dk, run.dv, setup.args.lse}) append(all, t);
  if (!p.sinks) return all;
  // Few terms of both signs: the error is that of the terms.
  Tolerance of_sinks = gradient_tolerance(terms * 10, want.dsinks, p.act);
  of_sinks.relative_l2 *= 4;
  of_sinks.absolute *= 4;
  EXPECT_TRUE(run.dsinks->is(want.dsinks, of_sinks));
  append(all, run.dsinks->t);
  // Frozen sinks.
  const Tensor dq = memory.make(p.act, run.dq.shape), dk = memory.make(p.act, run.dk.shape),
               dv = memory.make(p.act, run.dk.shape);
  call(ctx, ops::attention_backward, setup.args, run.out, run.dout, dq, dk, dv, Tensor());
  EXPECT_TRUE(same_bits(values(dq), values(run.dq)));
  EXPECT_TRUE(same_bits(values(dk), values(run.dk)));
  return all;
}

Doubles attention_by_steps(Context& ctx, const AttentionProblem& p) {
  Memory memory(132);
  AttentionSetup setup(memory, p);
  const Run run(ctx, memory, setup);
  const auto want =
      gradients({values(setup.args.q), values(setup.args.k), values(setup.args.v), values(setup.args.sinks)},
                [&](const auto& in) {
                  return dot(reference::attention(in[0], in[1], in[2], in[3], setup.shape()), values(run.dout));
                });
  const double terms = 64;
  EXPECT_TRUE(close(values(run.dq), want[0], gradient_tolerance(terms, want[0], p.act)));
  EXPECT_TRUE(close(values(run.dk), want[1], gradient_tolerance(terms, want[1], p.act)));
  EXPECT_TRUE(close(values(run.dv), want[2], gradient_tolerance(terms, want[2], p.act)));
  EXPECT_TRUE(run.dsinks->is(want[3], gradient_tolerance(terms * 10, want[3], p.act)));
  return values(run.dq);
}

}  // namespace

std::vector<OpCase> backward_attention_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](const std::string& name, std::vector<std::int32_t> rows, AttentionProblem p) {
    p.contiguous = true;
    p.rows = p.keys = rows;
    cases.push_back({"attention_backward_" + name, [p](Context& c) { return attention_case(c, p); }});
    p.act = DType::kBF16;
    cases.push_back(
        {"attention_backward_" + name + "_act_bf16", [p](Context& c) { return attention_case(c, p); }, true});
  };
  const auto steps = [&](const std::string& name, std::vector<std::int32_t> rows, AttentionProblem p) {
    p.contiguous = true;
    p.rows = p.keys = rows;
    cases.push_back({"attention_backward_steps_" + name, [p](Context& c) { return attention_by_steps(c, p); }});
  };
  steps("causal", {5}, {.rows = {}, .keys = {}, .dim = 4});
  steps("window", {6}, {.rows = {}, .keys = {}, .heads = 3, .kv_heads = 1, .dim = 6, .window = 3});
  steps("bidirectional", {4}, {.rows = {}, .keys = {}, .heads = 2, .kv_heads = 2, .dim = 4, .causal = false});
  add("packed", {5, 1, 70}, {.rows = {}, .keys = {}});
  add("empty_sequence", {3, 0, 2}, {.rows = {}, .keys = {}});
  add("bidirectional", {66, 3},
      {.rows = {}, .keys = {}, .heads = 2, .kv_heads = 2, .dim = 16, .causal = false, .sinks = false});
  add("window_bidirectional", {100}, {.rows = {}, .keys = {}, .causal = false, .window = 10});
  add("no_sinks", {40, 9}, {.rows = {}, .keys = {}, .sinks = false});
  for (const std::int64_t dim : {2, 18, 32, 80, 100, 128, 256})
    add(fmt::format("dim_{}", dim), {9, 30}, {.rows = {}, .keys = {}, .dim = dim});
  for (const int window : {1, 8, 64, 65, 128})
    add(fmt::format("window_{}", window), {150, 20, 1, 129}, {.rows = {}, .keys = {}, .window = window});
  add("groups_of_3", {30, 80}, {.rows = {}, .keys = {}, .heads = 6, .kv_heads = 2, .dim = 32});
  add("groups_of_8", {130, 7}, {.rows = {}, .keys = {}, .heads = 16, .kv_heads = 2});
  add("multi_query", {70}, {.rows = {}, .keys = {}, .heads = 5, .kv_heads = 1, .dim = 8});
  add("long", {300}, {.rows = {}, .keys = {}, .heads = 8, .kv_heads = 1});
  return cases;
}

}  // namespace gov::test

#pragma once
// The operations of GPT-OSS-Vision as scalar templates on T: the readable specification that the fast ops are tested
// against. T is double for values, std::complex<double> for derivatives by the complex step (Im f(x + ih) / h): every
// branch looks at the real part only, and there is no conjugate, modulus or norm. Tensors are flat row-major vectors.

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace gov::reference {

using Complex = std::complex<double>;
template <class T>
using Vec = std::vector<T>;
using Index = std::size_t;

inline double real_part(double x) { return x; }
inline double real_part(const Complex& x) { return x.real(); }

// erf to first order in the imaginary part, which is all that a complex step of 1e-50 can see.
inline double erf_of(double x) { return std::erf(x); }
inline Complex erf_of(const Complex& x) {
  const double slope = 2 / std::sqrt(M_PI) * std::exp(-x.real() * x.real());
  return {std::erf(x.real()), slope * x.imag()};
}

template <class T>
T sigmoid(const T& x) {
  // Both forms are the same function; each is used where its exponential cannot overflow.
  if (real_part(x) >= 0) return T(1) / (T(1) + std::exp(-x));
  const T e = std::exp(x);
  return e / (T(1) + e);
}

// ---- rows ----

template <class T>
Vec<T> rms_norm(const Vec<T>& x, const Vec<T>& weight, double eps) {
  const Index width = weight.size();
  Vec<T> out(x.size());
  for (Index row = 0; row < x.size(); row += width) {
    T sum(0);
    for (Index i = 0; i < width; ++i) sum += x[row + i] * x[row + i];
    const T root = std::sqrt(sum / double(width) + eps);
    for (Index i = 0; i < width; ++i) out[row + i] = weight[i] * x[row + i] / root;
  }
  return out;
}

template <class T>
Vec<T> layer_norm(const Vec<T>& x, const Vec<T>& weight, const Vec<T>& bias, double eps) {
  const Index width = weight.size();
  Vec<T> out(x.size());
  for (Index row = 0; row < x.size(); row += width) {
    T mean(0), variance(0);
    for (Index i = 0; i < width; ++i) mean += x[row + i] / double(width);
    for (Index i = 0; i < width; ++i) variance += (x[row + i] - mean) * (x[row + i] - mean) / double(width);
    const T root = std::sqrt(variance + eps);
    for (Index i = 0; i < width; ++i) out[row + i] = weight[i] * (x[row + i] - mean) / root + bias[i];
  }
  return out;
}

// x [T, in], weight [out, in], bias [out] or empty.
template <class T>
Vec<T> linear(const Vec<T>& x, const Vec<T>& weight, const Vec<T>& bias, Index in) {
  const Index tokens = x.size() / in, outputs = weight.size() / in;
  Vec<T> out(tokens * outputs);
  for (Index t = 0; t < tokens; ++t)
    for (Index o = 0; o < outputs; ++o) {
      T sum(0);
      for (Index i = 0; i < in; ++i) sum += x[t * in + i] * weight[o * in + i];
      out[t * outputs + o] = bias.empty() ? sum : sum + bias[o];
    }
  return out;
}

// ---- positions ----

struct RopeTable {
  Vec<double> cos, sin;
};

// The angle is the binary32 product, as in the reference model.
inline RopeTable rope_table(const Vec<std::int32_t>& positions, const Vec<double>& inv_freq, double factor) {
  RopeTable table;
  for (const std::int32_t p : positions)
    for (const double f : inv_freq) {
      const double angle = static_cast<double>(static_cast<float>(p) * static_cast<float>(f));
      table.cos.push_back(std::cos(angle) * factor);
      table.sin.push_back(std::sin(angle) * factor);
    }
  return table;
}

// x [T, heads, dim]; cos, sin [T, dim / 2].
template <class T>
Vec<T> rope(const Vec<T>& x, const Vec<double>& cos, const Vec<double>& sin, Index heads, Index dim) {
  Vec<T> out(x.size());
  const Index half = dim / 2;
  for (Index t = 0; t < x.size() / (heads * dim); ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < half; ++i) {
        const Index a = (t * heads + h) * dim + i, b = a + half;
        const double c = cos[t * half + i], s = sin[t * half + i];
        out[a] = x[a] * c - x[b] * s;
        out[b] = x[b] * c + x[a] * s;
      }
  return out;
}

// ---- attention of one sequence ----

struct AttentionShape {
  Index heads, kv_heads, dim;
  double scale = 1;
  bool causal = true;
  Index window = 0;
};

// q [n, heads, dim]; k, v [keys, kv_heads, dim], the last query aligned to the last key; sinks [heads] or empty.
template <class T>
Vec<T> attention(const Vec<T>& q, const Vec<T>& k, const Vec<T>& v, const Vec<T>& sinks, const AttentionShape& s) {
  const Index rows = q.size() / (s.heads * s.dim), keys = k.size() / (s.kv_heads * s.dim), group = s.heads / s.kv_heads;
  Vec<T> out(q.size(), T(0));
  for (Index row = 0; row < rows; ++row) {
    const Index position = keys - rows + row;
    const Index first = s.window > 0 && position + 1 > s.window ? position + 1 - s.window : 0;
    const Index last = s.causal ? position + 1 : keys;
    for (Index h = 0; h < s.heads; ++h) {
      const T* query = &q[(row * s.heads + h) * s.dim];
      Vec<T> scores;
      double largest = sinks.empty() ? -std::numeric_limits<double>::infinity() : real_part(sinks[h]);
      for (Index j = first; j < last; ++j) {
        const T* key = &k[(j * s.kv_heads + h / group) * s.dim];
        T dot(0);
        for (Index d = 0; d < s.dim; ++d) dot += query[d] * key[d];
        scores.push_back(dot * s.scale);
        largest = std::max(largest, real_part(scores.back()));
      }
      T sum = sinks.empty() ? T(0) : std::exp(sinks[h] - largest);
      for (T& score : scores) sum += score = std::exp(score - largest);
      T* to = &out[(row * s.heads + h) * s.dim];
      for (Index j = first; j < last; ++j)
        for (Index d = 0; d < s.dim; ++d) {
          to[d] += scores[j - first] / sum * v[(j * s.kv_heads + h / group) * s.dim + d];
        }
    }
  }
  return out;
}

// ---- experts ----

template <class T>
struct Routing {
  Vec<T> logits;              // [T, E]
  Vec<std::int32_t> indices;  // [T, K]
  Vec<T> weights;             // [T, K]
};

// logits [T, E] with all biases inside -> the K largest, ties to the lower index, softmax over them.
template <class T>
Routing<T> top_k_softmax(const Vec<T>& logits, Index experts, Index count) {
  Routing<T> r{logits, {}, {}};
  for (Index row = 0; row < logits.size(); row += experts) {
    Vec<bool> taken(experts);
    Vec<T> chosen;
    for (Index k = 0; k < count; ++k) {
      Index best = experts;
      for (Index e = 0; e < experts; ++e) {
        if (!taken[e] && (best == experts || real_part(logits[row + e]) > real_part(logits[row + best]))) best = e;
      }
      taken[best] = true;
      r.indices.push_back(static_cast<std::int32_t>(best));
      chosen.push_back(logits[row + best]);
    }
    const double largest = real_part(chosen[0]);
    T sum(0);
    for (T& c : chosen) sum += c = std::exp(c - largest);
    for (const T& c : chosen) r.weights.push_back(c / sum);
  }
  return r;
}

// vision_bias is added on rows whose modality is not 0; either may be empty.
template <class T>
Routing<T> router(const Vec<T>& x, const Vec<T>& weight, const Vec<T>& bias, const Vec<T>& vision_bias,
                  const Vec<std::uint8_t>& modality, Index in, Index count) {
  Vec<T> logits = linear(x, weight, bias, in);
  const Index experts = bias.size();
  for (Index i = 0; i < logits.size(); ++i) {
    if (!vision_bias.empty() && !modality.empty() && modality[i / experts] != 0) logits[i] += vision_bias[i % experts];
  }
  return top_k_softmax(logits, experts, count);
}

template <class T>
Vec<T> swiglu(const Vec<T>& h, double alpha, double limit) {
  Vec<T> out;
  for (Index i = 0; i + 1 < h.size(); i += 2) {
    const T gate = real_part(h[i]) > limit ? T(limit) : h[i];
    const T up = real_part(h[i + 1]) > limit ? T(limit) : real_part(h[i + 1]) < -limit ? T(-limit) : h[i + 1];
    out.push_back((up + T(1)) * gate * sigmoid(alpha * gate));
  }
  return out;
}

// Weights [E, out, in], biases [E, out] or empty.
template <class T>
struct Experts {
  Vec<T> gate_up, gate_up_bias, down, down_bias;
  Index count, hidden, inner;
};

template <class T>
Vec<T> slice(const Vec<T>& all, Index part, Index size) {
  if (all.empty()) return {};
  return Vec<T>(all.begin() + std::ptrdiff_t(part * size), all.begin() + std::ptrdiff_t((part + 1) * size));
}

// What the experts add to each token: sum over k of weights[t, k] * expert indices[t, k] (x[t]).
template <class T>
Vec<T> moe(const Vec<T>& x, const Vec<std::int32_t>& indices, const Vec<T>& weights, const Experts<T>& e, double alpha,
           double limit) {
  const Index tokens = x.size() / e.hidden, per_token = indices.size() / tokens;
  Vec<T> out(x.size(), T(0));
  for (Index i = 0; i < indices.size(); ++i) {
    const Index expert = Index(indices[i]), token = i / per_token;
    const Vec<T> h = linear(slice(x, token, e.hidden), slice(e.gate_up, expert, 2 * e.inner * e.hidden),
                            slice(e.gate_up_bias, expert, 2 * e.inner), e.hidden);
    const Vec<T> y = linear(swiglu(h, alpha, limit), slice(e.down, expert, e.hidden * e.inner),
                            slice(e.down_bias, expert, e.hidden), e.inner);
    for (Index c = 0; c < e.hidden; ++c) out[token * e.hidden + c] += weights[i] * y[c];
  }
  return out;
}

// ---- vision and loss ----

enum class Gelu { kErf, kTanh, kQuick };

template <class T>
Vec<T> gelu(const Vec<T>& x, Gelu kind) {
  Vec<T> out;
  for (const T& v : x) {
    if (kind == Gelu::kErf) {
      // For large negative x, 1 + erf would cancel: the tail through erfc keeps its digits (values only).
      if constexpr (std::is_same_v<T, double>) out.push_back(v * 0.5 * std::erfc(-v / std::sqrt(2.0)));
      else out.push_back(v * 0.5 * (T(1) + erf_of(v / std::sqrt(2.0))));
    } else if (kind == Gelu::kTanh) {
      out.push_back(v * sigmoid(2 * std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    } else {
      out.push_back(v * sigmoid(1.702 * v));
    }
  }
  return out;
}

// x [N, P, D] behind `token` [D] or nothing, image after image, plus positions [P', D] or nothing.
template <class T>
Vec<T> prepend_token(const Vec<T>& token, const Vec<T>& x, const Vec<T>& positions, Index images) {
  const Index inner = x.size() / images;
  Vec<T> out;
  for (Index n = 0; n < images; ++n) {
    Vec<T> rows = token;
    for (Index i = 0; i < inner; ++i) rows.push_back(x[n * inner + i]);
    for (Index i = 0; i < positions.size(); ++i) rows[i] += positions[i];
    out.insert(out.end(), rows.begin(), rows.end());
  }
  return out;
}

struct PatchShape {
  Index images, channels, height, width, patch, outputs;
};

// pixels [N, C, height, width], weight [D, C, p, p], bias [D] or empty -> [N, patches, D].
template <class T>
Vec<T> patch_embed(const Vec<T>& pixels, const Vec<T>& weight, const Vec<T>& bias, const PatchShape& s) {
  Vec<T> out;
  for (Index n = 0; n < s.images; ++n)
    for (Index y = 0; y + s.patch <= s.height; y += s.patch)
      for (Index x = 0; x + s.patch <= s.width; x += s.patch)
        for (Index o = 0; o < s.outputs; ++o) {
          T sum = bias.empty() ? T(0) : bias[o];
          for (Index c = 0; c < s.channels; ++c)
            for (Index i = 0; i < s.patch; ++i)
              for (Index j = 0; j < s.patch; ++j) {
                sum += pixels[((n * s.channels + c) * s.height + y + i) * s.width + x + j] *
                       weight[((o * s.channels + c) * s.patch + i) * s.patch + j];
              }
          out.push_back(sum);
        }
  return out;
}

// logits [T, V]; a negative target has loss 0.
template <class T>
Vec<T> cross_entropy(const Vec<T>& logits, const Vec<std::int32_t>& targets) {
  const Index vocabulary = logits.size() / targets.size();
  Vec<T> losses;
  for (Index t = 0; t < targets.size(); ++t) {
    double largest = -std::numeric_limits<double>::infinity();
    for (Index i = 0; i < vocabulary; ++i) largest = std::max(largest, real_part(logits[t * vocabulary + i]));
    T sum(0);
    for (Index i = 0; i < vocabulary; ++i) sum += std::exp(logits[t * vocabulary + i] - largest);
    losses.push_back(targets[t] < 0 ? T(0) : std::log(sum) + largest - logits[t * vocabulary + Index(targets[t])]);
  }
  return losses;
}

}  // namespace gov::reference

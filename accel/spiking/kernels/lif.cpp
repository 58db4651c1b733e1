// Leaky integrate-and-fire over a whole sequence, forward and backward, for the CPU. Plain C ABI, no dependency.
//
// Equations and names are those of accel/spiking/functional.py, and the forward pass rounds like its loop, bit for bit
// (compiled with -ffp-contract=off). A tensor is seen as [time][outer][lane]: `lane` contiguous, the other two with a
// stride. Lanes are independent, so they are cut into blocks; a block walks through time with its membranes in cache.
// The backward pass recomputes the membranes of its block into a scratch that fits the second-level cache: one
// [T, ...] tensor is never written to memory.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

extern "C" {
struct Shape {
    int64_t time, outer, lanes;            // sizes
    int64_t time_stride, outer_stride;     // in elements, of every [time][outer][lane] tensor of the call
    int64_t threads;
};
struct Neuron {
    double tau, threshold, rest, surrogate_parameter;
    int32_t decay_input, soft_reset, detach_reset, surrogate;
};
}

namespace {

template <class IO> struct Compute { using type = float; };
template <> struct Compute<double> { using type = double; };

INLINE double exp_minus(double z) { return std::exp(-z); }
INLINE float exp_minus(float z) {
    // exp(-z) for z >= 0 to 2 ulp, in arithmetic the compiler can vectorise: 2^n * polynomial on |r| <= ln2/2.
    float x = -std::min(z, 87.0f);
    float n = std::floor(x * 1.44269504f + 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float y = p * r * r + r + 1.0f;
    int32_t power = (int32_t(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &power, 4);
    return y * scale;
}

// g(u) of accel/spiking/surrogate.py, u = h - threshold; Code is that of the file, known here so that the arithmetic
// stays in the loop around it.
template <int Code, class C> INLINE C surrogate(C u, C a) {
    const C one = 1;
    if (Code == 0) {
        const C z = C(1.5707963267948966) * a * u;
        return (a / 2) / (one + z * z);
    }
    if (Code == 1) {
        const C e = exp_minus(std::abs(a * u));
        return a * e / ((one + e) * (one + e));
    }
    if (Code == 2) {
        const C z = one + a * std::abs(u);
        return one / (z * z);
    }
    if (Code == 3) return std::abs(u) < a ? one / (2 * a) : C(0);
    const C z = one - std::abs(u) / a;
    return (z > 0 ? z : C(0)) / a;
}

template <class C> struct Constants {
    C tau, decay, threshold, rest, parameter;
    bool decay_input, soft, detach;
    explicit Constants(const Neuron& p)
        : tau(C(p.tau)), decay(C(1.0 - 1.0 / p.tau)), threshold(C(p.threshold)), rest(C(p.rest)),
          parameter(C(p.surrogate_parameter)), decay_input(p.decay_input), soft(p.soft_reset), detach(p.detach_reset) {}
};

// h from x and the membrane before; v from h.
template <bool DecayInput, class C> INLINE C charge(C x, C v, const Constants<C>& k) {
    if (DecayInput) return v + (x - (v - k.rest)) / k.tau;
    return (v - k.rest) * k.decay + (x + k.rest);
}
template <class C> INLINE C reset(C h, const Constants<C>& k) {
    C after = k.soft ? h - k.threshold : k.rest;
    return h >= k.threshold ? after : h;
}

// Asks for a row of a step that comes soon: rows lie a whole step apart, often on another page, where no hardware
// prefetcher follows.
constexpr int64_t AHEAD = 4;
template <class IO> INLINE void fetch(const IO* row, int64_t n) {
    if (n * int64_t(sizeof(IO)) > 2048) return;
    const char* bytes = reinterpret_cast<const char*>(row);
    for (int64_t i = 0; i < n * int64_t(sizeof(IO)); i += 64) __builtin_prefetch(bytes + i);
}

// A result is made in pieces of CHUNK lanes and written past the caches where the tensor is larger than a core's own: the
// processor would read every line of it first, which is a third of all traffic.
constexpr int64_t CHUNK = 512;
template <class IO> INLINE bool past_caches(const Shape& z) {
    return z.time * z.outer * z.lanes * int64_t(sizeof(IO)) > (1 << 20);
}
template <class IO> INLINE void write(const IO* from, IO* to, int64_t n, bool past) {
#if defined(__SSE2__)
    if (past && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
        const int64_t whole = n * int64_t(sizeof(IO)) / 16;
        const __m128i* a = reinterpret_cast<const __m128i*>(from);
        __m128i* b = reinterpret_cast<__m128i*>(to);
        for (int64_t i = 0; i < whole; ++i) _mm_stream_si128(b + i, _mm_load_si128(a + i));
        const int64_t done = whole * 16 / int64_t(sizeof(IO));
        from += done, to += done, n -= done;
    }
#endif
    std::memcpy(to, from, n * sizeof(IO));
}
INLINE void written() {  // what was written past the caches is there for other threads
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

template <bool DecayInput, class IO, class C>
INLINE void forward_rows(const Shape& z, const Constants<C>& k, int64_t n, const IO* x, IO* s, C* v) {
    alignas(64) IO piece[CHUNK];
    const bool past = past_caches<IO>(z);
    for (int64_t t = 0; t < z.time; ++t) {
        const IO* x_t = x + t * z.time_stride;
        IO* s_t = s + t * z.time_stride;
        if (t + AHEAD < z.time) fetch(x_t + AHEAD * z.time_stride, n);
        for (int64_t c = 0; c < n; c += CHUNK) {
            const int64_t m = std::min(CHUNK, n - c);
            const IO* __restrict x_c = x_t + c;
            C* __restrict v_c = v + c;
            for (int64_t j = 0; j < m; ++j) {
                C h = charge<DecayInput>(C(up(x_c[j])), v_c[j], k);
                down(h >= k.threshold ? C(1) : C(0), piece[j]);
                v_c[j] = reset(h, k);
            }
            write(piece, s_t + c, m, past);
        }
    }
    written();
}

// The membranes of all steps of a block before they are reset, again.
template <bool DecayInput, class IO, class C>
INLINE void charge_rows(const Shape& z, const Constants<C>& k, int64_t n, const IO* x, const C* v0, C* h) {
    for (int64_t t = 0; t < z.time; ++t) {
        const IO* __restrict x_t = x + t * z.time_stride;
        const C* __restrict before = t ? h + (t - 1) * n : v0;
        C* __restrict h_t = h + t * n;
        if (t + AHEAD < z.time) fetch(x_t + AHEAD * z.time_stride, n);
        for (int64_t j = 0; j < n; ++j) {
            C v = t ? reset(before[j], k) : before[j];
            h_t[j] = charge<DecayInput>(C(up(x_t[j])), v, k);
        }
    }
}

// What one step adds to -tau^2 dL/dtau, from dL/dh.
template <bool DecayInput, class IO, class C>
INLINE double tau_row(const Constants<C>& k, int64_t n, const IO* x_t, const C* before, bool first, const C* dh) {
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) {
        C v = first ? before[j] : reset(before[j], k);
        sum += double(dh[j]) * double(DecayInput ? (v - k.rest) - C(up(x_t[j])) : v - k.rest);
    }
    return sum;
}

// dL/dx and dL/dv0 of one block from its membranes h; returns this block's dL/dtau, 0 unless it is wanted.
template <int Code, class IO, class C>
INLINE double backward_rows(const Shape& z, const Constants<C>& k, int64_t n, const IO* x, const C* v0, const IO* gs,
                            C* __restrict g, IO* gx, const C* h, bool want_tau) {
    alignas(64) IO piece[CHUNK];
    alignas(64) C slope[CHUNK];
    const bool past = past_caches<IO>(z);
    const C input_gain = k.decay_input ? C(1) / k.tau : C(1);
    double g_tau = 0;
    C carry = 1;  // g holds dL/dv of the last step, then dL/dh of the step after, of which `decay` arrives
    for (int64_t t = z.time - 1; t >= 0; --t) {
        const IO* gs_t = gs + t * z.time_stride;
        IO* gx_t = gx + t * z.time_stride;
        const C* h_t = h + t * n;
        if (t >= AHEAD) fetch(gs_t - AHEAD * z.time_stride, n);
        for (int64_t c = 0; c < n; c += CHUNK) {
            const int64_t m = std::min(CHUNK, n - c);
            const IO* __restrict gs_c = gs_t + c;
            const C* __restrict h_c = h_t + c;
            C* __restrict g_c = g + c;
            for (int64_t j = 0; j < m; ++j) slope[j] = surrogate<Code>(h_c[j] - k.threshold, k.parameter);
            for (int64_t j = 0; j < m; ++j) {
                C ds = C(up(gs_c[j])), dv = g_c[j] * carry;
                bool fired = h_c[j] >= k.threshold;
                C through_reset = k.detach ? C(0) : dv * (k.soft ? -k.threshold : k.rest - h_c[j]);
                C dh = (ds + through_reset) * slope[j] + ((fired && !k.soft) ? C(0) : dv);
                down(dh * input_gain, piece[j]);
                g_c[j] = dh;
            }
            write(piece, gx_t + c, m, past);
        }
        carry = k.decay;
        if (want_tau) {
            const IO* x_t = x + t * z.time_stride;
            const C* before = t ? h_t - n : v0;
            g_tau += k.decay_input ? tau_row<true>(k, n, x_t, before, t == 0, g)
                                   : tau_row<false>(k, n, x_t, before, t == 0, g);
        }
    }
    written();
    if (z.time)
        for (int64_t j = 0; j < n; ++j) g[j] *= k.decay;
    return g_tau / (double(k.tau) * double(k.tau));
}

// `all` is the value of every lane, or null where `row` holds one each.
template <class C> INLINE void spread(const double* all, int64_t n, C* row) {
    if (all) std::fill(row, row + n, C(*all));
}

template <class IO, class C>
INLINE void forward_block(const Shape& z, const Neuron& p, int64_t n, const IO* x, IO* s, C* v, const double* v_all) {
    Constants<C> k(p);
    spread(v_all, n, v);
    if (k.decay_input) forward_rows<true, IO, C>(z, k, n, x, s, v);
    else forward_rows<false, IO, C>(z, k, n, x, s, v);
}
template <class IO, class C>
INLINE double backward_block(const Shape& z, const Neuron& p, int64_t n, const IO* x, const C* v0, const double* v0_all,
                             const IO* gs, C* g, const double* gv_all, IO* gx, C* scratch, bool want_tau) {
    Constants<C> k(p);
    C* h = scratch;
    if (v0_all) {
        C* row = h + z.time * n;
        spread(v0_all, n, row);
        v0 = row;
    }
    spread(gv_all, n, g);
    if (k.decay_input) charge_rows<true>(z, k, n, x, v0, h);
    else charge_rows<false>(z, k, n, x, v0, h);
    switch (p.surrogate) {
        case 0: return backward_rows<0>(z, k, n, x, v0, gs, g, gx, h, want_tau);
        case 1: return backward_rows<1>(z, k, n, x, v0, gs, g, gx, h, want_tau);
        case 2: return backward_rows<2>(z, k, n, x, v0, gs, g, gx, h, want_tau);
        case 3: return backward_rows<3>(z, k, n, x, v0, gs, g, gx, h, want_tau);
        default: return backward_rows<4>(z, k, n, x, v0, gs, g, gx, h, want_tau);
    }
}

// Widest block whose scratch of `bytes_per_lane` stays within a second-level cache of 1 MB, while every thread
// still gets work.
int64_t block_width(const Shape& z, int64_t bytes_per_lane) {
    const int64_t budget = 640 * 1024;
    int64_t width = std::max<int64_t>(64, budget / bytes_per_lane / 16 * 16);
    int64_t blocks_wanted = std::max<int64_t>(1, (z.threads + z.outer - 1) / z.outer);
    int64_t fair = ((z.lanes + blocks_wanted - 1) / blocks_wanted + 15) / 16 * 16;
    return std::max<int64_t>(16, std::min({width, fair, z.lanes}));
}

}  // namespace

// One library holds one element type, named on the command line: SPIKELOOM_IO is what memory holds, SPIKELOOM_COMPUTE
// what membranes are kept in. Threads live outside the cloned functions: a clone may not hold a parallel region.
using IO = SPIKELOOM_IO;
using C = SPIKELOOM_COMPUTE;

CLONES void forward_clone(const Shape& z, const Neuron& p, int64_t n, const IO* x, IO* s, C* v, const double* v_all) {
    forward_block<IO, C>(z, p, n, x, s, v, v_all);
}
CLONES double backward_clone(const Shape& z, const Neuron& p, int64_t n, const IO* x, const C* v0, const double* v0_all,
                             const IO* gs, C* gv, const double* gv_all, IO* gx, C* scratch, bool want_tau) {
    return backward_block<IO, C>(z, p, n, x, v0, v0_all, gs, gv, gv_all, gx, scratch, want_tau);
}

// s and the membranes v [outer][lane] (in: initial, out: final) from x. All initial membranes are *v_all if that is
// given; v is then not read.
extern "C" void lif_forward(const Shape* shape, const Neuron* p, const IO* x, IO* s, C* v, const double* v_all) {
    const Shape z = *shape;
    const int64_t width = block_width(z, 3 * sizeof(C)), per_row = (z.lanes + width - 1) / width;
    #pragma omp parallel for schedule(static) num_threads(z.threads) if (z.threads > 1)
    for (int64_t b = 0; b < z.outer * per_row; ++b) {
        const int64_t row = b / per_row, lane = (b % per_row) * width, at = row * z.outer_stride + lane;
        forward_clone(z, *p, std::min(width, z.lanes - lane), x + at, s + at, v + row * z.lanes + lane, v_all);
    }
}

// gx, and gv [outer][lane] (in: dL/dv_final, out: dL/dv_initial); v0_all and gv_all as in the forward pass. g_tau may be
// null; else it receives dL/dtau, summed in block order, so that it does not depend on which thread finished first.
extern "C" void lif_backward(const Shape* shape, const Neuron* p, const IO* x, const C* v0, const double* v0_all,
                             const IO* gs, C* gv, const double* gv_all, IO* gx, double* g_tau) {
    const Shape z = *shape;
    const int64_t width = block_width(z, (z.time + 4) * sizeof(C)), per_row = (z.lanes + width - 1) / width;
    const int64_t blocks = z.outer * per_row;
    std::vector<double> parts(g_tau ? blocks : 0);
    #pragma omp parallel num_threads(z.threads) if (z.threads > 1)
    {
        const std::unique_ptr<C[]> scratch(new C[(z.time + 1) * width]);  // not cleared: written before it is read
        #pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t row = b / per_row, lane = (b % per_row) * width, at = row * z.outer_stride + lane;
            const double part = backward_clone(z, *p, std::min(width, z.lanes - lane), x + at,
                                               v0 ? v0 + row * z.lanes + lane : nullptr, v0_all, gs + at,
                                               gv + row * z.lanes + lane, gv_all, gx + at, scratch.get(),
                                               g_tau != nullptr);
            if (g_tau) parts[b] = part;
        }
    }
    if (g_tau) {
        *g_tau = 0;
        for (double part : parts) *g_tau += part;
    }
}

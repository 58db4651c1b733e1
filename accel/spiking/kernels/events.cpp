// Products with a matrix that is mostly zeros, as spikes are, for the CPU: the zeros are skipped. Plain C ABI.
//
//     forward           y[m][n]  = bias[n] + sum over k with x[m][k] != 0 of x[m][k] w[k][n]
//     weight gradient   gw[k][n] = sum over m with x[m][k] != 0 of x[m][k] gy[m][n]
//
// Both are sums of rows. A sum of up to eight vectors stays in registers; vectors are as long as the processor's
// registers, since longer ones spill. The rows it is made of are copied side by side first: where they lie a power of two
// apart, few sets of the cache hold them all. Every sum has one order, whatever the number of threads. N is a multiple
// of 16, K at most 65536.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

namespace {

constexpr int AVX512_LANES = 16, OTHER_LANES = 8;  // floats in a vector

// V vectors of L floats each, in registers.
template <int L, int V> struct Sum {
    typedef float Vector __attribute__((vector_size(L * sizeof(float))));
    static constexpr int WIDTH = L * V;
    Vector v[V] = {};

    INLINE_LAMBDA void load(const float* from) { std::memcpy(v, from, sizeof v); }
    INLINE_LAMBDA void store(float* to) const { std::memcpy(to, v, sizeof v); }

    // += value[i] * rows[at[i]] for all i < n, rows of WIDTH floats one after another.
    INLINE_LAMBDA void add_rows(int64_t n, const uint16_t* at, const float* value, const float* rows) {
        for (int64_t i = 0; i < n; ++i) {
            const float* row = rows + int64_t(at[i]) * WIDTH;
            for (int j = 0; j < V; ++j) {
                Vector w;
                std::memcpy(&w, row + L * j, sizeof w);
                v[j] += value[i] * w;
            }
        }
    }
};

// Bit i is set where x[i] is not 0, i < n <= 64.
INLINE uint64_t nonzero_bits(const float* x, int64_t n) {
    uint8_t set[64] = {};
    for (int64_t i = 0; i < n; ++i) set[i] = x[i] != 0;
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) {
        uint64_t eight;
        std::memcpy(&eight, set + 8 * i, 8);
        bits |= (eight * 0x0102040810204080u >> 56) << 8 * i;
    }
    return bits;
}

// f(sum, column) over all columns, the widest pieces first.
template <int L, class F> INLINE void over_columns(int64_t N, const F& f) {
    int64_t c = 0;
    for (; c + 8 * L <= N; c += 8 * L) f(Sum<L, 8>(), c);
    for (; c + 4 * L <= N; c += 4 * L) f(Sum<L, 4>(), c);
    for (; c < N; c += L) f(Sum<L, 1>(), c);
}

// Rows of x whose events are listed at a time, so that the lists and a piece of the other matrix stay in cache.
constexpr int64_t FORWARD_ROWS = 32, BACKWARD_ROWS = 64;
// Columns of x whose rows of the other matrix are added to all sums before the next ones are: they stay in the second-level
// cache, and a sum has enough of them to be worth the way to memory and back.
constexpr int64_t COLUMNS = 256;

// Handed on by value: a number behind a reference would be read again after every event that is written.
struct Forward {
    int64_t M, K, N;
    const float *x, *w, *bias;
    float *packed, *y;  // packed: [K][WIDTH] for each piece of w's columns
};

struct WeightGradient {
    int64_t M, K, N;
    const float *x, *gy;
    float* gw;
};

// Where one thread lists events.
struct Events {
    std::unique_ptr<uint16_t[]> at;  // row of the other matrix
    std::unique_ptr<float[]> value;
    std::unique_ptr<int64_t[]> starts;  // of each sum in the lists
    std::unique_ptr<uint64_t[]> bits;

    Events(int64_t sums, int64_t each)
        : at(new uint16_t[sums * each]), value(new float[sums * each]), starts(new int64_t[sums * (each / COLUMNS + 1) + 1]),
          bits(new uint64_t[sums]) {}
};

// The rows [first, first + count) of w into their places in `packed`.
template <int L> INLINE void pack_rows(Forward p, int64_t first, int64_t count) {
    over_columns<L>(p.N, [&](auto zero, int64_t c) INLINE_LAMBDA {
        for (int64_t k = first; k < first + count; ++k)
            std::memcpy(p.packed + c * p.K + k * zero.WIDTH, p.w + k * p.N + c, zero.WIDTH * sizeof(float));
    });
}

// Events of the rows [first, first + rows), up to FORWARD_ROWS of them, then their sums.
template <int L> INLINE void forward_rows(Forward p, int64_t first, int64_t rows, const Events& events) {
    const float* x = p.x + first * p.K;
    const auto starts = events.starts.get();
    const auto at = events.at.get();
    const auto value = events.value.get();
    int64_t n = 0, sums = 0;
    for (int64_t m = 0; m < rows; ++m)
        for (int64_t k = 0; k < p.K; k += 64) {
            if (k % COLUMNS == 0) starts[sums++] = n;
            for (uint64_t bits = nonzero_bits(x + m * p.K + k, std::min<int64_t>(64, p.K - k)); bits; bits &= bits - 1) {
                const int64_t one = k + __builtin_ctzll(bits);
                at[n] = uint16_t(one);
                value[n++] = x[m * p.K + one];
            }
        }
    starts[sums] = n;
    const int64_t blocks = sums / rows;
    over_columns<L>(p.N, [&](auto zero, int64_t c) INLINE_LAMBDA {
        for (int64_t block = 0; block < blocks; ++block)
            for (int64_t m = 0; m < rows; ++m) {
                const int64_t from = starts[m * blocks + block], until = starts[m * blocks + block + 1];
                float* to = p.y + (first + m) * p.N + c;
                auto sum = zero;
                if (block)
                    sum.load(to);
                else if (p.bias)
                    sum.load(p.bias + c);
                sum.add_rows(until - from, at + from, value + from, p.packed + c * p.K);
                sum.store(to);
            }
    });
}

// What all rows add to gw of the columns [first, first + count) of x.
template <int L>
INLINE void weight_gradient_columns(WeightGradient p, int64_t first, int64_t count, const Events& events) {
    const auto starts = events.starts.get();
    const auto at = events.at.get();
    const auto value = events.value.get();
    const auto bits = events.bits.get();
    for (int64_t block = 0; block < p.M; block += BACKWARD_ROWS) {
        const int64_t rows = std::min(BACKWARD_ROWS, p.M - block);
        const float* x = p.x + block * p.K + first;
        std::fill(bits, bits + count, 0);
        for (int64_t m = 0; m < rows; ++m)
            for (int64_t k = 0; k < count; ++k) bits[k] |= uint64_t(x[m * p.K + k] != 0) << m;
        int64_t n = 0;
        for (int64_t k = 0; k < count; ++k) {
            starts[k] = n;
            for (uint64_t left = bits[k]; left; left &= left - 1) {
                const int64_t m = __builtin_ctzll(left);
                at[n] = uint16_t(m);
                value[n++] = x[m * p.K + k];
            }
        }
        starts[count] = n;
        over_columns<L>(p.N, [&](auto zero, int64_t c) INLINE_LAMBDA {
            float packed[BACKWARD_ROWS * decltype(zero)::WIDTH];
            for (int64_t m = 0; m < rows; ++m)
                std::memcpy(packed + m * zero.WIDTH, p.gy + (block + m) * p.N + c, zero.WIDTH * sizeof(float));
            for (int64_t k = 0; k < count; ++k) {
                float* to = p.gw + (first + k) * p.N + c;
                auto sum = zero;
                if (block) sum.load(to);
                sum.add_rows(starts[k + 1] - starts[k], at + starts[k], value + starts[k], packed);
                sum.store(to);
            }
        });
    }
}

}  // namespace

AVX512 void pack_rows_wide(const Forward& p, int64_t first, int64_t count) {
    pack_rows<AVX512_LANES>(p, first, count);
}
CLONES void pack_rows_narrow(const Forward& p, int64_t first, int64_t count) {
    pack_rows<OTHER_LANES>(p, first, count);
}
AVX512 void forward_rows_wide(const Forward& p, int64_t first, int64_t rows, const Events& events) {
    forward_rows<AVX512_LANES>(p, first, rows, events);
}
CLONES void forward_rows_narrow(const Forward& p, int64_t first, int64_t rows, const Events& events) {
    forward_rows<OTHER_LANES>(p, first, rows, events);
}
AVX512 void weight_gradient_wide(const WeightGradient& p, int64_t first, int64_t count, const Events& events) {
    weight_gradient_columns<AVX512_LANES>(p, first, count, events);
}
CLONES void weight_gradient_narrow(const WeightGradient& p, int64_t first, int64_t count, const Events& events) {
    weight_gradient_columns<OTHER_LANES>(p, first, count, events);
}

CLONES int64_t count_nonzero(const float* x, int64_t n) {
    int64_t count = 0;
    while (n > 0) {  // in pieces that an int holds, which is what the compiler adds fastest
        const int64_t piece = std::min<int64_t>(n, 4096);
        int32_t c = 0;
        for (int64_t i = 0; i < piece; ++i) c += x[i] != 0;
        count += c, x += piece, n -= piece;
    }
    return count;
}

// How many of the n numbers are not 0.
extern "C" int64_t events_count(const float* x, int64_t n, int64_t threads) {
    constexpr int64_t PIECE = 1 << 16;
    int64_t count = 0;
    #pragma omp parallel for schedule(static) reduction(+ : count) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += PIECE) count += count_nonzero(x + i, std::min(PIECE, n - i));
    return count;
}

// Floats in a vector of this processor's, 0 where it has neither AVX-512 nor AVX2.
extern "C" int64_t events_lanes() { return HAS_AVX512 ? AVX512_LANES : HAS_AVX2 ? OTHER_LANES : 0; }

// x [M][K], w [K][N], bias [N] or null -> y [M][N].
extern "C" void events_forward(int64_t M, int64_t K, int64_t N, const float* x, const float* w, const float* bias,
                               float* y, int64_t threads) {
    const std::unique_ptr<float[]> packed(new float[K * N]);
    const Forward product = {M, K, N, x, w, bias, packed.get(), y};
    const auto pack = HAS_AVX512 ? pack_rows_wide : pack_rows_narrow;
    const auto some_rows = HAS_AVX512 ? forward_rows_wide : forward_rows_narrow;
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        #pragma omp for schedule(static)
        for (int64_t k = 0; k < K; k += 16) pack(product, k, std::min<int64_t>(16, K - k));
        const Events events(FORWARD_ROWS, K);
        #pragma omp for schedule(static)
        for (int64_t m = 0; m < M; m += FORWARD_ROWS) some_rows(product, m, std::min(FORWARD_ROWS, M - m), events);
    }
}

// x [M][K], gy [M][N] -> gw [K][N].
extern "C" void events_weight_gradient(int64_t M, int64_t K, int64_t N, const float* x, const float* gy, float* gw,
                                       int64_t threads) {
    const WeightGradient product = {M, K, N, x, gy, gw};
    const auto some_columns = HAS_AVX512 ? weight_gradient_wide : weight_gradient_narrow;
    const int64_t width = std::min<int64_t>(512, (K + threads - 1) / threads);
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Events events(width, BACKWARD_ROWS);
        #pragma omp for schedule(static)
        for (int64_t k = 0; k < K; k += width) some_columns(product, k, std::min(width, K - k), events);
    }
}

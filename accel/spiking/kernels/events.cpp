// Products with a matrix that is mostly zeros, as spikes are, for the CPU: the zeros are skipped. Plain C ABI.
//
//     forward           y[m][n]  = bias[n] + sum over k with x[m][k] != 0 of x[m][k] w[k][n]
//     weight gradient   gw[k][n] = sum over m with x[m][k] != 0 of x[m][k] gy[m][n]
//
// Both are sums of rows. A sum of up to 128 columns stays in registers while the rows it is made of stream from the
// second-level cache. Every sum has one order, whatever the number of threads. N is a multiple of 16,
// K at most 65536.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

namespace {

constexpr int64_t LANES = 16;
typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));

INLINE Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
INLINE void store(float* to, const Vector& v) { std::memcpy(to, &v, sizeof v); }

// sum[0 .. 16 V) += value[i] * rows[at[i]][0 .. 16 V) for all i; `at` counts rows of `stride` floats.
template <int V>
INLINE void add_rows(int64_t n, const uint16_t* at, const float* value, const float* rows, int64_t stride, Vector* sum) {
    Vector s[V];
    for (int j = 0; j < V; ++j) s[j] = sum[j];
    for (int64_t i = 0; i < n; ++i) {
        const float* row = rows + int64_t(at[i]) * stride;
        for (int j = 0; j < V; ++j) s[j] += value[i] * load(row + LANES * j);
    }
    for (int j = 0; j < V; ++j) sum[j] = s[j];
}

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

// f(V, column) over all columns, 16 V of them at a time, the widest pieces first.
template <class F> INLINE void over_columns(int64_t N, const F& f) {
    int64_t c = 0;
    for (; c + 8 * LANES <= N; c += 8 * LANES) f(std::integral_constant<int, 8>(), c);
    for (; c + 4 * LANES <= N; c += 4 * LANES) f(std::integral_constant<int, 4>(), c);
    for (; c < N; c += LANES) f(std::integral_constant<int, 1>(), c);
}

// Rows of x whose events are listed at a time, so that the lists and a piece of the other matrix stay in cache.
constexpr int64_t FORWARD_ROWS = 32, BACKWARD_ROWS = 64;

}  // namespace

// Events of up to FORWARD_ROWS rows, then their sums; `at` and `value` hold FORWARD_ROWS * K.
CLONES void forward_rows(int64_t rows, int64_t K, int64_t N, const float* x, const float* w, const float* bias, float* y,
                         uint16_t* at, float* value) {
    int64_t starts[FORWARD_ROWS + 1] = {0}, n = 0;
    for (int64_t m = 0; m < rows; ++m) {
        for (int64_t k = 0; k < K; k += 64)
            for (uint64_t bits = nonzero_bits(x + m * K + k, std::min<int64_t>(64, K - k)); bits; bits &= bits - 1) {
                const int64_t one = k + __builtin_ctzll(bits);
                at[n] = uint16_t(one);
                value[n++] = x[m * K + one];
            }
        starts[m + 1] = n;
    }
    over_columns(N, [&](auto width, int64_t c) INLINE_LAMBDA {
        constexpr int V = decltype(width)::value;
        for (int64_t m = 0; m < rows; ++m) {
            Vector sum[V] = {};
            if (bias)
                for (int j = 0; j < V; ++j) sum[j] = load(bias + c + LANES * j);
            add_rows<V>(starts[m + 1] - starts[m], at + starts[m], value + starts[m], w + c, N, sum);
            for (int j = 0; j < V; ++j) store(y + m * N + c + LANES * j, sum[j]);
        }
    });
}

// What all rows add to gw of the columns [first, first + count) of x; `at` and `value` hold count * BACKWARD_ROWS, `bits`
// and `starts` count + 1.
CLONES void weight_gradient_columns(int64_t first, int64_t count, int64_t M, int64_t K, int64_t N, const float* x,
                                    const float* gy, float* gw, uint16_t* at, float* value, uint64_t* bits,
                                    int64_t* starts) {
    for (int64_t block = 0; block < M; block += BACKWARD_ROWS) {
        const int64_t rows = std::min(BACKWARD_ROWS, M - block);
        const float* x_block = x + block * K + first;
        std::fill(bits, bits + count, 0);
        for (int64_t m = 0; m < rows; ++m)
            for (int64_t k = 0; k < count; ++k) bits[k] |= uint64_t(x_block[m * K + k] != 0) << m;
        int64_t n = 0;
        for (int64_t k = 0; k < count; ++k) {
            starts[k] = n;
            for (uint64_t left = bits[k]; left; left &= left - 1) {
                const int64_t m = __builtin_ctzll(left);
                at[n] = uint16_t(m);
                value[n++] = x_block[m * K + k];
            }
        }
        starts[count] = n;
        over_columns(N, [&](auto width, int64_t c) INLINE_LAMBDA {
            constexpr int V = decltype(width)::value;
            for (int64_t k = 0; k < count; ++k) {
                float* to = gw + (first + k) * N + c;
                Vector sum[V] = {};
                if (block)
                    for (int j = 0; j < V; ++j) sum[j] = load(to + LANES * j);
                add_rows<V>(starts[k + 1] - starts[k], at + starts[k], value + starts[k], gy + block * N + c, N, sum);
                for (int j = 0; j < V; ++j) store(to + LANES * j, sum[j]);
            }
        });
    }
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

// x [M][K], w [K][N], bias [N] or null -> y [M][N].
extern "C" void events_forward(int64_t M, int64_t K, int64_t N, const float* x, const float* w, const float* bias,
                               float* y, int64_t threads) {
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const std::unique_ptr<uint16_t[]> at(new uint16_t[FORWARD_ROWS * K]);
        const std::unique_ptr<float[]> value(new float[FORWARD_ROWS * K]);
        #pragma omp for schedule(static)
        for (int64_t m = 0; m < M; m += FORWARD_ROWS)
            forward_rows(std::min(FORWARD_ROWS, M - m), K, N, x + m * K, w, bias, y + m * N, at.get(), value.get());
    }
}

// x [M][K], gy [M][N] -> gw [K][N].
extern "C" void events_weight_gradient(int64_t M, int64_t K, int64_t N, const float* x, const float* gy, float* gw,
                                       int64_t threads) {
    const int64_t width = std::min<int64_t>(512, (K + threads - 1) / threads);
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const std::unique_ptr<uint16_t[]> at(new uint16_t[width * BACKWARD_ROWS]);
        const std::unique_ptr<float[]> value(new float[width * BACKWARD_ROWS]);
        const std::unique_ptr<uint64_t[]> bits(new uint64_t[width]);
        const std::unique_ptr<int64_t[]> starts(new int64_t[width + 1]);
        #pragma omp for schedule(static)
        for (int64_t k = 0; k < K; k += width)
            weight_gradient_columns(k, std::min(width, K - k), M, K, N, x, gy, gw, at.get(), value.get(), bits.get(),
                                    starts.get());
    }
}

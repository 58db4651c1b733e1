// Convolutions of maps that are mostly zeros, as spikes are, for the CPU: the zeros are skipped. Plain C ABI.
//
//     forward           y[h][w][n]     = bias[n] + sum over i, j, k with x[h+i-r][w+j-r][k] != 0 of x[..] kernel[i][j][k][n]
//     weight gradient   g[i][j][k][n]  = sum over h, w with x[h+i-r][w+j-r][k] != 0 of x[..] gy[h][w][n]
//
// stride 1, side 2r + 1, zeros beyond the borders, channels last. A linear map is a kernel of side 1 on a map of width 1.
// Both are sums of rows. A sum of up to eight vectors stays in registers; vectors are as long as the processor's
// registers, since longer ones spill. The rows it is made of are copied side by side first: where they lie a power of two
// apart, few sets of the cache hold them all. Every sum has one order, whatever the number of threads. N is a multiple
// of 8, K at most 65536.

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

// Sets `bit` in bits[k] where x[k] is not 0, k < n.
INLINE void mark_nonzero(int64_t n, const float* x, uint32_t bit, uint32_t* bits) {
    for (int64_t k = 0; k < n; ++k) bits[k] |= x[k] != 0 ? bit : 0;
}

// f(sum, column) over all columns, the widest pieces first.
template <int L, class F> INLINE void over_columns(int64_t N, const F& f) {
    int64_t c = 0;
    for (; c + 8 * L <= N; c += 8 * L) f(Sum<L, 8>(), c);
    for (; c + 4 * L <= N; c += 4 * L) f(Sum<L, 4>(), c);
    for (; c + 2 * L <= N; c += 2 * L) f(Sum<L, 2>(), c);
    for (; c + L <= N; c += L) f(Sum<L, 1>(), c);
    if (c < N) f(Sum<8, 1>(), c);
}

// Positions of x whose events are listed at a time: lists and sums of the piece of columns at hand stay in the second-level
// cache. Of them, those whose rows of dL/dy stay in the first-level cache while they are added; a larger kernel uses every
// list several times, and has more sums to fetch.
constexpr int64_t LISTED = 256;
INLINE int64_t packed_positions(int64_t side) { return side == 1 ? 128 : LISTED; }
// Channels of x whose rows of the kernel stay in the first-level cache while they are added to all sums; of two such blocks
// at a time if fewer than one channel in SPARSE is active, when fetching a sum takes longer than its few rows.
constexpr int64_t CHANNELS = 128, SPARSE = 5;

// Handed on by value: a number behind a reference would be read again after every event that is written.
struct Maps {
    int64_t images, H, W, K, N, side;

    int64_t reach() const { return side / 2; }
    int64_t taps() const { return side * side; }
    int64_t padded_width() const { return W + 2 * reach(); }
    int64_t rows_of(int64_t positions) const { return std::min(H, std::max<int64_t>(1, positions / W)); }
};

// A kernel of side 1 knows no neighbours: all positions are one column.
INLINE Maps maps_of(int64_t images, int64_t H, int64_t W, int64_t K, int64_t N, int64_t side) {
    return side == 1 ? Maps{1, images * H * W, 1, K, N, 1} : Maps{images, H, W, K, N, side};
}

struct Forward : Maps {
    const float *x, *kernel, *bias;  // kernel: [taps][K][N]
    float *packed, *y;               // packed: [taps][K][WIDTH] for each piece of the N columns
};

struct WeightGradient : Maps {
    const float *x, *gy;
    float* g;  // [taps][K][N]
};

// Rows of floats that begin where a line of the cache does: a vector that lies in two lines is read twice.
class Rows {
    struct alignas(64) Line {
        float floats[16];
    };
    std::unique_ptr<Line[]> lines;

  public:
    explicit Rows(int64_t floats) : lines(new Line[(floats + 15) / 16]) {}
    float* get() const { return lines[0].floats; }
};

// Where one thread lists events.
struct Events {
    std::unique_ptr<uint16_t[]> at;  // row of the other matrix
    std::unique_ptr<float[]> value;
    std::unique_ptr<int64_t[]> starts;  // of each sum in the lists
    std::unique_ptr<uint32_t[]> bits;
    Rows rows;

    Events(int64_t events, int64_t sums, int64_t words, int64_t floats)
        : at(new uint16_t[events]), value(new float[events]), starts(new int64_t[sums + 1]), bits(new uint32_t[words]),
          rows(floats) {}
};

// The rows [first, first + count) of the kernel [taps K][N] into their places in `packed`.
template <int L> INLINE void pack_rows(Forward p, int64_t first, int64_t count) {
    const int64_t K = p.taps() * p.K;
    over_columns<L>(p.N, [&](auto zero, int64_t c) INLINE_LAMBDA {
        for (int64_t k = first; k < first + count; ++k)
            std::memcpy(p.packed + c * K + k * zero.WIDTH, p.kernel + k * p.N + c, zero.WIDTH * sizeof(float));
    });
}

// Events of the rows [top - reach, top + rows + reach) of one image, then the sums of the rows [top, top + rows).
template <int L> INLINE void forward_rows(Forward p, int64_t image, int64_t top, int64_t rows, const Events& events) {
    const int64_t reach = p.reach(), padded_width = p.padded_width(), side = p.side;
    const int64_t blocks = (p.K + CHANNELS - 1) / CHANNELS;
    const auto starts = events.starts.get();
    const auto at = events.at.get();
    const auto value = events.value.get();
    int64_t n = 0, sums = 0;
    for (int64_t h = top - reach; h < top + rows + reach; ++h)
        for (int64_t w = -reach; w < p.W + reach; ++w) {
            const bool inside = h >= 0 && h < p.H && w >= 0 && w < p.W;
            const float* x = p.x + ((image * p.H + h) * p.W + w) * p.K;
            for (int64_t k = 0; k < p.K; k += 64) {
                if (k % CHANNELS == 0) starts[sums++] = n;
                if (!inside) continue;
                for (uint64_t bits = nonzero_bits(x + k, std::min<int64_t>(64, p.K - k)); bits; bits &= bits - 1) {
                    const int64_t one = k + __builtin_ctzll(bits);
                    at[n] = uint16_t(one);
                    value[n++] = x[one];
                }
            }
        }
    starts[sums] = n;
    const int64_t together = n * SPARSE < sums / blocks * p.K ? 2 : 1;
    over_columns<L>(p.N, [&](auto zero, int64_t c) INLINE_LAMBDA {
        const float* kernel = p.packed + c * p.taps() * p.K;
        for (int64_t block = 0; block < blocks; block += together)
            for (int64_t h = 0; h < rows; ++h)
                for (int64_t w = 0; w < p.W; ++w) {
                    float* to = p.y + ((image * p.H + top + h) * p.W + w) * p.N + c;
                    auto sum = zero;
                    if (block)
                        sum.load(to);
                    else if (p.bias)
                        sum.load(p.bias + c);
                    const float* tap = kernel;
                    for (int64_t i = 0; i < side; ++i)
                        for (int64_t j = 0; j < side; ++j, tap += p.K * zero.WIDTH) {
                            const int64_t lists = ((h + i) * padded_width + w + j) * blocks;
                            const int64_t from = starts[lists + block], until = starts[lists + std::min(block + together, blocks)];
                            sum.add_rows(until - from, at + from, value + from, tap);
                        }
                    sum.store(to);
                }
    });
}

// What the rows [top, top + rows) of one image of x add to g of the channels [first, first + count).
template <int L, bool ONE>
INLINE void weight_gradient_rows(WeightGradient p, int64_t image, int64_t top, int64_t rows, int64_t first, int64_t count,
                                 bool fresh, const Events& events) {
    const int64_t side = ONE ? 1 : p.side, reach = side / 2, padded_width = p.W + 2 * reach;
    const int64_t strip = p.rows_of(packed_positions(side));
    const auto starts = events.starts.get();
    const auto at = events.at.get();
    const auto value = events.value.get();
    const auto bits = events.bits.get();
    const auto packed = events.rows.get();
    int64_t n = 0, sums = 0;
    for (int64_t row = 0; row < rows; row += strip) {
        const int64_t positions = std::min(strip, rows - row) * p.W, words = (positions + 31) / 32;
        const float* x = p.x + (image * p.H + top + row) * p.W * p.K + first;
        std::fill(bits, bits + words * count, 0);
        for (int64_t m = 0; m < positions; ++m)
            mark_nonzero(count, x + m * p.K, uint32_t(1) << m % 32, bits + m / 32 * count);
        for (int64_t k = 0; k < count; ++k) {
            starts[sums++] = n;
            for (int64_t word = 0; word < words; ++word)
                for (uint32_t left = bits[word * count + k]; left; left &= left - 1) {
                    const int64_t m = 32 * word + __builtin_ctz(left);
                    at[n] = uint16_t(m + m / p.W * 2 * reach);
                    value[n++] = x[m * p.K + k];
                }
        }
    }
    starts[sums] = n;
    over_columns<L>(p.N, [&](auto zero, int64_t c) INLINE_LAMBDA {
        const int64_t* start = starts;
        for (int64_t row = 0; row < rows; row += strip) {
            const int64_t bottom = top + std::min(row + strip, rows);
            float* to_row = packed;
            for (int64_t h = top + row - reach; h < bottom + reach; ++h)
                for (int64_t w = -reach; w < p.W + reach; ++w, to_row += zero.WIDTH)
                    if (h >= 0 && h < p.H && w >= 0 && w < p.W)
                        std::memcpy(to_row, p.gy + ((image * p.H + h) * p.W + w) * p.N + c, zero.WIDTH * sizeof(float));
                    else
                        std::fill(to_row, to_row + zero.WIDTH, 0.0f);
            for (int64_t k = 0; k < count; ++k, ++start)
                for (int64_t i = 0; i < side; ++i)
                    for (int64_t j = 0; j < side; ++j) {
                        float* to = p.g + ((i * side + j) * p.K + first + k) * p.N + c;
                        auto sum = zero;
                        if (row || !fresh) sum.load(to);
                        const float* shifted = packed + ((2 * reach - i) * padded_width + 2 * reach - j) * zero.WIDTH;
                        sum.add_rows(start[1] - start[0], at + start[0], value + start[0], shifted);
                        sum.store(to);
                    }
        }
    });
}

}  // namespace

AVX512 void pack_rows_wide(const Forward& p, int64_t first, int64_t count) {
    pack_rows<AVX512_LANES>(p, first, count);
}
CLONES void pack_rows_narrow(const Forward& p, int64_t first, int64_t count) { pack_rows<OTHER_LANES>(p, first, count); }
AVX512 void forward_rows_wide(const Forward& p, int64_t image, int64_t top, int64_t rows, const Events& events) {
    forward_rows<AVX512_LANES>(p, image, top, rows, events);
}
CLONES void forward_rows_narrow(const Forward& p, int64_t image, int64_t top, int64_t rows, const Events& events) {
    forward_rows<OTHER_LANES>(p, image, top, rows, events);
}
AVX512 void weight_gradient_wide(const WeightGradient& p, int64_t image, int64_t top, int64_t rows, int64_t first,
                                 int64_t count, bool fresh, const Events& events) {
    if (p.side == 1)
        weight_gradient_rows<AVX512_LANES, true>(p, image, top, rows, first, count, fresh, events);
    else
        weight_gradient_rows<AVX512_LANES, false>(p, image, top, rows, first, count, fresh, events);
}
CLONES void weight_gradient_narrow(const WeightGradient& p, int64_t image, int64_t top, int64_t rows, int64_t first,
                                   int64_t count, bool fresh, const Events& events) {
    if (p.side == 1)
        weight_gradient_rows<OTHER_LANES, true>(p, image, top, rows, first, count, fresh, events);
    else
        weight_gradient_rows<OTHER_LANES, false>(p, image, top, rows, first, count, fresh, events);
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

// x [images][H][W][K], kernel [side][side][K][N], bias [N] or null -> y [images][H][W][N].
extern "C" void events_forward(int64_t images, int64_t H, int64_t W, int64_t K, int64_t N, int64_t side, const float* x,
                               const float* kernel, const float* bias, float* y, int64_t threads) {
    const Maps maps = maps_of(images, H, W, K, N, side);
    const int64_t kernel_rows = maps.taps() * K;
    int64_t rows = maps.rows_of(LISTED);
    if (side == 1) {  // every thread gets as much of the column
        const int64_t pieces = (maps.H + rows - 1) / rows;
        const int64_t shared = (pieces + threads - 1) / threads * threads;
        rows = (maps.H + shared - 1) / shared;
    }
    const int64_t listed = (rows + 2 * maps.reach()) * maps.padded_width();
    const Rows packed(kernel_rows * N);
    const Forward p = {maps, x, kernel, bias, packed.get(), y};
    const auto pack = HAS_AVX512 ? pack_rows_wide : pack_rows_narrow;
    const auto some_rows = HAS_AVX512 ? forward_rows_wide : forward_rows_narrow;
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        #pragma omp for schedule(static)
        for (int64_t k = 0; k < kernel_rows; k += 16) pack(p, k, std::min<int64_t>(16, kernel_rows - k));
        const Events events(listed * K, listed * ((K + CHANNELS - 1) / CHANNELS), 0, 0);
        #pragma omp for schedule(static) collapse(2)
        for (int64_t image = 0; image < p.images; ++image)
            for (int64_t top = 0; top < p.H; top += rows) some_rows(p, image, top, std::min(rows, p.H - top), events);
    }
}

// x [images][H][W][K], gy [images][H][W][N] -> g [side][side][K][N].
extern "C" void events_weight_gradient(int64_t images, int64_t H, int64_t W, int64_t K, int64_t N, int64_t side,
                                       const float* x, const float* gy, float* g, int64_t threads) {
    const Maps maps = maps_of(images, H, W, K, N, side);
    const WeightGradient p = {maps, x, gy, g};
    const auto some_rows = HAS_AVX512 ? weight_gradient_wide : weight_gradient_narrow;
    const int64_t width = std::min<int64_t>(512, (K + threads - 1) / threads);
    const int64_t rows = maps.rows_of(LISTED), strip = maps.rows_of(packed_positions(side));
    const int64_t listed = rows * maps.W, strips = (rows + strip - 1) / strip;
    const int64_t packed = (strip + 2 * maps.reach()) * maps.padded_width() * 8 * (HAS_AVX512 ? AVX512_LANES : OTHER_LANES);
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const Events events(listed * width, strips * width, (strip * maps.W + 31) / 32 * width, packed);
        #pragma omp for schedule(static)
        for (int64_t k = 0; k < K; k += width)
            for (int64_t image = 0; image < p.images; ++image)
                for (int64_t top = 0; top < p.H; top += rows)
                    some_rows(p, image, top, std::min(rows, p.H - top), k, std::min(width, K - k), !image && !top, events);
    }
}

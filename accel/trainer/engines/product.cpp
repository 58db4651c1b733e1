// The matrix product of the training engines: FP16 products, folds of `rows` terms summed by a tree, folds in order.
// Bit for bit `folded` of arithmetic.py, which has the equations. Values are floats that hold FP16 numbers.

#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define WIDE_HALVES 1
#endif

namespace {

constexpr int64_t WIDE = 64, MOST_ROWS = 64;  // outputs of a block; terms of a fold
constexpr int64_t DEEP = 256;                 // terms that a block reads before the next row of a: they stay in the cache

struct Product {
    int64_t m, k, n, rows;
    const float *a, *b;  // [m][k], [k][n]
    float* c;            // [m][n]
};

// The nearest FP16 number, ties to even, as a float. Branch-free, so that a loop over it becomes vector code.
INLINE float round16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits & 0x80000000u, magnitude = bits & 0x7fffffffu;
    const uint32_t rounded = (magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & ~0x1fffu;  // 10 bits of mantissa are left
    float normal, size;
    std::memcpy(&normal, &rounded, 4);
    std::memcpy(&size, &magnitude, 4);
    const float tiny = (size + 0.5f) - 0.5f;  // below 2^-14 numbers are 2^-24 apart, which is the spacing at 0.5
    float y = size < 6.103515625e-05f ? tiny : normal;
    y = y > 65504.0f ? __builtin_inff() : y;
    y = magnitude > 0x7f800000u ? size : y;  // NaN
    uint32_t out;
    std::memcpy(&out, &y, 4);
    out |= sign;
    std::memcpy(&y, &out, 4);
    return y;
}

// Outputs n0 to n0 + wide of row i, the terms k0 to k1 added to what they hold.
template <bool HALF>
INLINE void piece(const Product& p, int64_t i, int64_t n0, int64_t wide, int64_t k0, int64_t k1) {
    float terms[MOST_ROWS][WIDE];
    float* total = p.c + i * p.n + n0;
    for (; k0 < k1; k0 += p.rows) {
        const int64_t deep = std::min(p.rows, k1 - k0);
        bool any = false;
        for (int64_t r = 0; r < deep; ++r) {
            const float factor = p.a[i * p.k + k0 + r];
            any |= factor != 0.0f;
            const float* line = p.b + (k0 + r) * p.n + n0;
            if (factor == 0.0f)
                std::memset(terms[r], 0, wide * sizeof(float));
            else if (factor == 1.0f)  // a spike selects, nothing is multiplied
                std::memcpy(terms[r], line, wide * sizeof(float));
            else
                for (int64_t n = 0; n < wide; ++n) terms[r][n] = round16(factor * line[n]);
        }
        if (!any) continue;  // all terms are zero, and so is their sum
        for (int64_t stride = 1; stride < deep; stride *= 2)
            for (int64_t r = 0; r + stride < deep; r += 2 * stride)
                for (int64_t n = 0; n < wide; ++n) {
                    const float sum = terms[r][n] + terms[r + stride][n];
                    terms[r][n] = HALF ? round16(sum) : sum;
                }
        for (int64_t n = 0; n < wide; ++n) {
            const float sum = total[n] + terms[0][n];
            total[n] = HALF ? round16(sum) : sum;
        }
    }
}

CLONES void block_single(const Product& p, int64_t n0, int64_t wide, int64_t k0, int64_t k1) {
    for (int64_t i = 0; i < p.m; ++i) piece<false>(p, i, n0, wide, k0, k1);
}
CLONES void block_half(const Product& p, int64_t n0, int64_t wide, int64_t k0, int64_t k1) {
    for (int64_t i = 0; i < p.m; ++i) piece<true>(p, i, n0, wide, k0, k1);
}
CLONES void round_all(int64_t n, const float* x, float* y) {
    for (int64_t i = 0; i < n; ++i) y[i] = round16(x[i]);
}

#ifdef WIDE_HALVES
// The same with the processor's own conversion, a fold in registers: V vectors of 16 outputs, the last one cut by `last`.
template <int V> struct Vectors {
    __m512 v[V];
};

INLINE __attribute__((target("arch=x86-64-v4"))) __m512 round_wide(__m512 x) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Terms of N rows from a[0] and b[0] on, summed by a tree; all of them, or those in `used`, which are not zero (one at least).
template <int V, int N, bool HALF, bool ALL>
INLINE __attribute__((target("arch=x86-64-v4"))) Vectors<V> tree(const float* a, const float* b, int64_t stride,
                                                               uint32_t used, __mmask16 last);

// Half a fold as a call: a whole tree with all its ways in one function takes the compiler five times as long.
template <int V, bool HALF>
__attribute__((noinline)) AVX512 Vectors<V> half_tree(const float* a, const float* b, int64_t stride, uint32_t used,
                                                      __mmask16 last) {
    return tree<V, 8, HALF, false>(a, b, stride, used, last);
}

template <int V, int N, bool HALF, bool ALL>
INLINE __attribute__((target("arch=x86-64-v4"))) Vectors<V> tree(const float* a, const float* b, int64_t stride,
                                                               uint32_t used, __mmask16 last) {
    Vectors<V> out;
    if constexpr (N == 1) {
        for (int i = 0; i < V; ++i) out.v[i] = _mm512_maskz_loadu_ps(i + 1 < V ? 0xffff : last, b + 16 * i);
        if (ALL || *a != 1.0f) {
            const __m512 factor = _mm512_set1_ps(*a);
            for (int i = 0; i < V; ++i) out.v[i] = round_wide(_mm512_mul_ps(factor, out.v[i]));
        }
        return out;
    } else {
        constexpr int M = N / 2;
        constexpr auto part = N == 16 && !ALL ? half_tree<V, HALF> : tree<V, M, HALF, ALL>;
        const uint32_t low = used & ((1u << M) - 1), high = used >> M;
        if (!ALL && !high) return part(a, b, stride, low, last);
        if (!ALL && !low) return part(a + M, b + M * stride, stride, high, last);
        out = part(a, b, stride, low, last);
        const Vectors<V> other = part(a + M, b + M * stride, stride, high, last);
        for (int i = 0; i < V; ++i) {
            out.v[i] = _mm512_add_ps(out.v[i], other.v[i]);
            if (HALF) out.v[i] = round_wide(out.v[i]);
        }
        return out;
    }
}

template <int V, bool HALF>
AVX512 void block_wide(const Product& p, int64_t n0, __mmask16 last, int64_t k0, int64_t k1) {
    for (int64_t i = 0; i < p.m; ++i) {
        const float* a = p.a + i * p.k;
        float* c = p.c + i * p.n + n0;
        __m512 total[V];
        for (int j = 0; j < V; ++j) total[j] = _mm512_maskz_loadu_ps(j + 1 < V ? 0xffff : last, c + 16 * j);
        for (int64_t k = k0; k < k1; k += p.rows) {
            const int64_t deep = std::min(p.rows, k1 - k);
            const __mmask16 there = deep < 16 ? (1u << deep) - 1 : 0xffff;
            const uint32_t used = _mm512_mask_cmp_ps_mask(there, _mm512_maskz_loadu_ps(there, a + k),
                                                          _mm512_setzero_ps(), _CMP_NEQ_UQ);
            if (!used) continue;
            const float* b = p.b + k * p.n + n0;
            const Vectors<V> sum = used == 0xffff ? tree<V, 16, HALF, true>(a + k, b, p.n, used, last)
                                                  : tree<V, 16, HALF, false>(a + k, b, p.n, used, last);
            for (int j = 0; j < V; ++j) {
                total[j] = _mm512_add_ps(total[j], sum.v[j]);
                if (HALF) total[j] = round_wide(total[j]);
            }
        }
        for (int j = 0; j < V; ++j) _mm512_mask_storeu_ps(c + 16 * j, j + 1 < V ? 0xffff : last, total[j]);
    }
}

template <bool HALF>
void block_of(const Product& p, int64_t n0, int64_t wide, int64_t k0, int64_t k1) {
    const int64_t vectors = (wide + 15) / 16, over = wide - 16 * (vectors - 1);
    const __mmask16 last = over == 16 ? 0xffff : (1u << over) - 1;
    const auto run = vectors == 1   ? block_wide<1, HALF>
                     : vectors == 2 ? block_wide<2, HALF>
                     : vectors == 3 ? block_wide<3, HALF>
                                    : block_wide<4, HALF>;
    run(p, n0, last, k0, k1);
}

AVX512 void round_all_wide(int64_t n, const float* x, float* y) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, round_wide(_mm512_loadu_ps(x + i)));
    for (; i < n; ++i) y[i] = round16(x[i]);
}
#endif

void block(const Product& p, bool half, int64_t n0, int64_t wide, int64_t k0, int64_t k1) {
#ifdef WIDE_HALVES
    if (HAS_AVX512 && p.rows <= 16) return (half ? block_of<true> : block_of<false>)(p, n0, wide, k0, k1);
#endif
    (half ? block_half : block_single)(p, n0, wide, k0, k1);
}

}  // namespace

// a [g][m][k], b [g][k][n] -> c [g][m][n]
extern "C" void engine_product(int64_t g, int64_t m, int64_t k, int64_t n, int64_t rows, int64_t half, const float* a,
                               const float* b, float* c, int64_t threads) {
    const int64_t pieces = std::min<int64_t>(m, threads), high = (m + pieces - 1) / std::max<int64_t>(pieces, 1);
    const int64_t step = std::max(rows, DEEP / rows * rows);
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2) if (threads > 1)
    for (int64_t group = 0; group < g; ++group)
        for (int64_t piece = 0; piece < pieces; ++piece) {
            const int64_t top = piece * high, tall = std::min(high, m - top);
            if (tall <= 0) continue;
            const Product p = {tall, k, n, rows, a + (group * m + top) * k, b + group * k * n, c + (group * m + top) * n};
            std::memset(p.c, 0, tall * n * sizeof(float));
            for (int64_t n0 = 0; n0 < n; n0 += WIDE)
                for (int64_t k0 = 0; k0 < k; k0 += step)
                    block(p, half, n0, std::min(WIDE, n - n0), k0, std::min(k, k0 + step));
        }
}

// x [n] -> y [n], each the nearest FP16 number.
extern "C" void engine_round(int64_t n, const float* x, float* y, int64_t) {
#ifdef WIDE_HALVES
    if (HAS_AVX512) return round_all_wide(n, x, y);
#endif
    round_all(n, x, y);
}

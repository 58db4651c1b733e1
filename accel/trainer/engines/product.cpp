// The matrix product of the training engines: FP16 products, folds of `rows` terms summed by a tree, folds in order.
// Bit for bit `folded` of arithmetic.py, which has the equations. Values are floats that hold FP16 numbers.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t WIDE = 64, MOST_ROWS = 64;  // outputs of a block; terms of a fold

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

template <bool HALF>
INLINE void row(int64_t k_size, int64_t n_size, int64_t rows, const float* a, const float* b, float* c) {
    float terms[MOST_ROWS][WIDE];
    for (int64_t n0 = 0; n0 < n_size; n0 += WIDE) {
        const int64_t wide = std::min(WIDE, n_size - n0);
        float total[WIDE] = {};
        for (int64_t k0 = 0; k0 < k_size; k0 += rows) {
            const int64_t deep = std::min(rows, k_size - k0);
            bool any = false;
            for (int64_t r = 0; r < deep; ++r) {
                const float factor = a[k0 + r];
                any |= factor != 0.0f;
                const float* line = b + (k0 + r) * n_size + n0;
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
        for (int64_t n = 0; n < wide; ++n) c[n0 + n] = total[n];
    }
}

CLONES void row_single(int64_t k, int64_t n, int64_t rows, const float* a, const float* b, float* c) {
    row<false>(k, n, rows, a, b, c);
}
CLONES void row_half(int64_t k, int64_t n, int64_t rows, const float* a, const float* b, float* c) {
    row<true>(k, n, rows, a, b, c);
}

}  // namespace

// a [g][m][k], b [g][k][n] -> c [g][m][n]
extern "C" void engine_product(int64_t g, int64_t m, int64_t k, int64_t n, int64_t rows, int64_t half, const float* a,
                               const float* b, float* c, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t i = 0; i < g * m; ++i)
        (half ? row_half : row_single)(k, n, rows, a + i * k, b + i / m * k * n, c + i * n);
}

// Batch norm of rows [N][C] by their own statistics, for the CPU. Rows are of one type, all else is float32. Plain C ABI.
//
//     statistics       mean[c] and var[c] over the rows
//     forward          y = (x - mean) scale + bias
//     gradient sums    of g and of g (x - mean) over the rows
//     backward         gx = g scale + (x - mean) of_sd + of_mean
//
// Single precision adds up one piece of the rows; pieces are joined in double precision, in one order whatever the number
// of threads.

#include <algorithm>
#include <cstdint>
#include <memory>

using IO = SPIKELOOM_IO;

namespace {

// Rows of a piece: it stays in the second-level cache, which is read twice for the statistics.
int64_t piece_rows(int64_t C) { return std::max<int64_t>(8, std::min<int64_t>(1024, 65536 / C)); }

// For each piece of the rows, two numbers a channel.
struct Pieces {
    int64_t N, C, rows = piece_rows(C), count = (N + rows - 1) / rows;
    std::unique_ptr<float[]> first{new float[count * C]}, second{new float[count * C]};

    int64_t rows_of(int64_t piece) const { return std::min(rows, N - piece * rows); }
};

// f(piece) for all of them.
template <class F> void over_pieces(const Pieces& pieces, int64_t threads, const F& f) {
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t piece = 0; piece < pieces.count; ++piece) f(piece);
}

}  // namespace

// sum[c] += term(i, c) over n rows, four at a time, since each of them fetches the sums.
template <class F> INLINE void add_rows(int64_t n, int64_t C, float* __restrict sum, const F& term) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int64_t c = 0; c < C; ++c) sum[c] += (term(i, c) + term(i + 1, c)) + (term(i + 2, c) + term(i + 3, c));
    for (; i < n; ++i)
        for (int64_t c = 0; c < C; ++c) sum[c] += term(i, c);
}

// Mean of n rows, and the squares of what differs from it, added up.
CLONES void moments(int64_t n, int64_t C, const IO* __restrict x, float* __restrict mean, float* __restrict squares) {
    std::fill(mean, mean + C, 0.0f);
    std::fill(squares, squares + C, 0.0f);
    add_rows(n, C, mean, [=](int64_t i, int64_t c) INLINE_LAMBDA { return up(x[i * C + c]); });
    for (int64_t c = 0; c < C; ++c) mean[c] /= float(n);
    add_rows(n, C, squares, [=](int64_t i, int64_t c) INLINE_LAMBDA {
        const float u = up(x[i * C + c]) - mean[c];
        return u * u;
    });
}

CLONES void products(int64_t n, int64_t C, const IO* __restrict x, const IO* __restrict g, const float* __restrict mean,
                     float* __restrict sum, float* __restrict product) {
    std::fill(sum, sum + C, 0.0f);
    std::fill(product, product + C, 0.0f);
    add_rows(n, C, sum, [=](int64_t i, int64_t c) INLINE_LAMBDA { return up(g[i * C + c]); });
    add_rows(n, C, product, [=](int64_t i, int64_t c) INLINE_LAMBDA { return up(g[i * C + c]) * (up(x[i * C + c]) - mean[c]); });
}

CLONES void normalise(int64_t n, int64_t C, const IO* __restrict x, const float* __restrict mean,
                      const float* __restrict scale, const float* __restrict bias, IO* __restrict y) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t c = 0; c < C; ++c) down((up(x[i * C + c]) - mean[c]) * scale[c] + bias[c], y[i * C + c]);
}

CLONES void differentiate(int64_t n, int64_t C, const IO* __restrict x, const IO* __restrict g,
                          const float* __restrict mean, const float* __restrict scale, const float* __restrict of_sd,
                          const float* __restrict of_mean, IO* __restrict gx) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t c = 0; c < C; ++c)
            down(up(g[i * C + c]) * scale[c] + ((up(x[i * C + c]) - mean[c]) * of_sd[c] + of_mean[c]), gx[i * C + c]);
}

// x [N][C] -> mean [C], var [C] (over N).
extern "C" void norm_statistics(int64_t N, int64_t C, const IO* x, double* mean, double* var, int64_t threads) {
    const Pieces pieces = {N, C};
    over_pieces(pieces, threads, [&](int64_t p) {
        moments(pieces.rows_of(p), C, x + p * pieces.rows * C, &pieces.first[p * C], &pieces.second[p * C]);
    });
    std::fill(mean, mean + C, 0.0);
    std::fill(var, var + C, 0.0);
    for (int64_t p = 0; p < pieces.count; ++p)
        for (int64_t c = 0; c < C; ++c) mean[c] += double(pieces.first[p * C + c]) * double(pieces.rows_of(p));
    for (int64_t c = 0; c < C; ++c) mean[c] /= double(N);
    for (int64_t p = 0; p < pieces.count; ++p)
        for (int64_t c = 0; c < C; ++c) {
            const double off = double(pieces.first[p * C + c]) - mean[c];
            var[c] += double(pieces.second[p * C + c]) + off * off * double(pieces.rows_of(p));
        }
    for (int64_t c = 0; c < C; ++c) var[c] /= double(N);
}

extern "C" void norm_forward(int64_t N, int64_t C, const IO* x, const float* mean, const float* scale,
                             const float* bias, IO* y, int64_t threads) {
    const int64_t rows = piece_rows(C);
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < N; i += rows) normalise(std::min(rows, N - i), C, x + i * C, mean, scale, bias, y + i * C);
}

// x, g [N][C], mean [C] -> sum [C] of g, product [C] of g (x - mean).
extern "C" void norm_gradient_sums(int64_t N, int64_t C, const IO* x, const IO* g, const float* mean, double* sum,
                                   double* product, int64_t threads) {
    const Pieces pieces = {N, C};
    over_pieces(pieces, threads, [&](int64_t p) {
        const int64_t from = p * pieces.rows * C;
        products(pieces.rows_of(p), C, x + from, g + from, mean, &pieces.first[p * C], &pieces.second[p * C]);
    });
    std::fill(sum, sum + C, 0.0);
    std::fill(product, product + C, 0.0);
    for (int64_t p = 0; p < pieces.count; ++p)
        for (int64_t c = 0; c < C; ++c) {
            sum[c] += pieces.first[p * C + c];
            product[c] += pieces.second[p * C + c];
        }
}

extern "C" void norm_backward(int64_t N, int64_t C, const IO* x, const IO* g, const float* mean, const float* scale,
                              const float* of_sd, const float* of_mean, IO* gx, int64_t threads) {
    const int64_t rows = piece_rows(C);
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < N; i += rows)
        differentiate(std::min(rows, N - i), C, x + i * C, g + i * C, mean, scale, of_sd, of_mean, gx + i * C);
}

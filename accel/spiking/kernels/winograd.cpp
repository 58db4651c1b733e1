// The two ends of a 3 x 3 convolution in a quarter of the multiplications (Winograd's F(4 x 4, 3 x 3)), for the CPU.
// Plain C ABI; what lies between, 36 matrix products, is PyTorch's.
//
//     into tiles     v[p][tile] = (B' d B)[p]      d: the 6 x 6 inputs of a tile of 4 x 4 outputs, p: one of 36 points
//     out of tiles   y = A' m A                    m[p][tile]: sum over the channels of v[p][tile] times the kernel's p
//
// stride 1, zeros beyond the borders, channels last, a multiple of 8 channels. Tiles lie row by row in a picture, picture
// by picture; what is left over of the last ones is not written.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t OUT = 4, IN = 6, LANES = 8;
typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));

INLINE Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

// B' d of one line.
INLINE void into_points(const Vector* d, Vector* v) {
    const Vector even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], near = d[4] - d[2], far = 2 * (d[3] - d[1]);
    v[0] = 4 * d[0] - 5 * d[2] + d[4];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = near + far;
    v[4] = near - far;
    v[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// A' m of one line.
INLINE void out_of_points(const Vector* m, Vector* y) {
    const Vector sum1 = m[1] + m[2], difference1 = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    y[0] = m[0] + sum1 + sum2;
    y[1] = difference1 + 2 * difference2;
    y[2] = sum1 + 4 * sum2;
    y[3] = difference1 + 8 * difference2 + m[5];
}

struct Tiles {
    int64_t H, W, C, across = (W + OUT - 1) / OUT, down = (H + OUT - 1) / OUT;

    // f(i, j, pixel) for the side x side square of a tile that begins `before` its outputs; -1 is beyond the borders.
    template <class F> void over_square(int64_t tile, int64_t side, int64_t before, const F& f) const {
        const int64_t image = tile / (across * down);
        const int64_t top = tile / across % down * OUT - before, left = tile % across * OUT - before;
        for (int64_t i = 0; i < side; ++i)
            for (int64_t j = 0; j < side; ++j) {
                const int64_t h = top + i, w = left + j;
                f(i, j, h >= 0 && h < H && w >= 0 && w < W ? (image * H + h) * W + w : -1);
            }
    }
};

}  // namespace

CLONES void into_tile(const float* const (*from)[IN], int64_t C, float* to, int64_t plane) {
    for (int64_t c = 0; c < C; c += LANES) {
        Vector columns[IN][IN];
        for (int64_t j = 0; j < IN; ++j) {
            Vector d[IN];
            for (int64_t i = 0; i < IN; ++i) d[i] = load(from[i][j] + c);
            into_points(d, columns[j]);
        }
        for (int64_t i = 0; i < IN; ++i) {
            Vector row[IN], v[IN];
            for (int64_t j = 0; j < IN; ++j) row[j] = columns[j][i];
            into_points(row, v);
            for (int64_t j = 0; j < IN; ++j) std::memcpy(to + (i * IN + j) * plane + c, &v[j], sizeof(Vector));
        }
    }
}

CLONES void out_of_tile(const float* from, int64_t plane, int64_t C, float* const (*to)[OUT]) {
    for (int64_t c = 0; c < C; c += LANES) {
        Vector columns[IN][OUT];
        for (int64_t j = 0; j < IN; ++j) {
            Vector m[IN];
            for (int64_t i = 0; i < IN; ++i) m[i] = load(from + (i * IN + j) * plane + c);
            out_of_points(m, columns[j]);
        }
        for (int64_t i = 0; i < OUT; ++i) {
            Vector row[IN], y[OUT];
            for (int64_t j = 0; j < IN; ++j) row[j] = columns[j][i];
            out_of_points(row, y);
            for (int64_t j = 0; j < OUT; ++j) std::memcpy(to[i][j] + c, &y[j], sizeof(Vector));
        }
    }
}

// x [images][H][W][C] -> v [36][count][C] of the tiles [first, first + count), the points `plane` floats apart.
extern "C" void winograd_into_tiles(int64_t H, int64_t W, int64_t C, int64_t first, int64_t count, int64_t plane,
                                    const float* x, float* v, int64_t threads) {
    const Tiles tiles = {H, W, C};
    const std::vector<float> beyond(C);
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t tile = 0; tile < count; ++tile) {
        const float* from[IN][IN];
        tiles.over_square(first + tile, IN, 1, [&](int64_t i, int64_t j, int64_t pixel) {
            from[i][j] = pixel < 0 ? beyond.data() : x + pixel * C;
        });
        into_tile(from, C, v + tile * C, plane);
    }
}

// m [36][count][C] of the tiles [first, first + count), the points `plane` floats apart -> their part of y [images][H][W][C].
extern "C" void winograd_out_of_tiles(int64_t H, int64_t W, int64_t C, int64_t first, int64_t count, int64_t plane,
                                      const float* m, float* y, int64_t threads) {
    const Tiles tiles = {H, W, C};
    #pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> left_over(C);
        #pragma omp for schedule(static)
        for (int64_t tile = 0; tile < count; ++tile) {
            float* to[OUT][OUT];
            tiles.over_square(first + tile, OUT, 0, [&](int64_t i, int64_t j, int64_t pixel) {
                to[i][j] = pixel < 0 ? left_over.data() : y + pixel * C;
            });
            out_of_tile(m + tile * C, plane, C, to);
        }
    }
}

// Dropout in one pass: y = x * scale where a random 16-bit number reaches `cut`, else 0. Plain C ABI.
//
// The numbers are a function of (key, position): word i is SplitMix64 (Steele et al., OOPSLA 2014) of key + i, and each
// word holds four draws. So the backward pass draws them again instead of keeping a mask, and threads may split the
// tensor anywhere. Halves are multiplied in float and rounded once.

#include <algorithm>
#include <cstdint>

using IO = SPIKELOOM_IO;
using Wide = decltype(up(IO()));

static constexpr int64_t WORDS = 512;  // of a block: 4 KB of random numbers stay in the first-level cache

CLONES void drop_block(int64_t n, uint64_t word, uint32_t cut, Wide scale, const IO* __restrict x, IO* __restrict y) {
    uint64_t words[WORDS];
    for (int64_t i = 0; i < (n + 3) / 4; ++i) {
        uint64_t z = (word + uint64_t(i)) * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        words[i] = z ^ (z >> 31);
    }
    const uint16_t* draws = reinterpret_cast<const uint16_t*>(words);
    for (int64_t i = 0; i < n; ++i) down(up(x[i]) * (draws[i] >= cut ? scale : Wide(0)), y[i]);
}

extern "C" void dropout(int64_t n, uint64_t key, uint32_t cut, double scale, const IO* x, IO* y, int64_t threads) {
    #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t start = 0; start < n; start += 4 * WORDS)
        drop_block(std::min(4 * WORDS, n - start), key + uint64_t(start / 4), cut, Wide(scale), x + start, y + start);
}

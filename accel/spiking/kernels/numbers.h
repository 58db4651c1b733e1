// Element types of memory and what they are computed in: `up` reads one, `down` rounds to it.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

INLINE float up(float x) { return x; }
INLINE double up(double x) { return x; }
INLINE float up(bf16 x) {
    uint32_t word = uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &word, 4);
    return y;
}
INLINE float up(f16 x) {
    // Exponent re-biased by a multiplication, which also turns subnormal halves into normal floats.
    uint32_t word = uint32_t(x.bits & 0x7fff) << 13, scale_bits = 0x77800000u;  // 2^112
    float y, scale;
    std::memcpy(&y, &word, 4);
    std::memcpy(&scale, &scale_bits, 4);
    y *= scale;
    if (y >= 65536.0f) {                    // exponent 31: infinity or NaN
        word |= 0x7f800000u;
        std::memcpy(&y, &word, 4);
    }
    return (x.bits & 0x8000) ? -y : y;
}
INLINE void down(float x, float& y) { y = x; }
INLINE void down(double x, double& y) { y = x; }
INLINE void down(float x, bf16& y) {        // round to nearest, ties to even
    uint32_t word;
    std::memcpy(&word, &x, 4);
    uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    y.bits = uint16_t(x == x ? rounded : 0x7fc0);
}
INLINE void down(float x, f16& y) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    uint32_t sign = (word >> 16) & 0x8000, magnitude = word & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) half = 0x7e00;
    else if (magnitude >= 0x477ff000) half = 0x7c00;                 // rounds past 65504
    else if (magnitude < 0x38800000) {                               // subnormal half: count units of 2^-24
        float absolute, units = 16777216.0f;
        std::memcpy(&absolute, &magnitude, 4);
        half = uint32_t(std::nearbyintf(absolute * units));
    } else half = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    y.bits = uint16_t(sign | half);
}

// Read before every kernel. A function marked CLONES is compiled for several processors and chosen when it is loaded, one
// marked AVX512 for those alone that have it (HAS_AVX512, HAS_AVX2: asked at run time, 0 where the compiler made no
// clones); what either calls must be INLINE (or an INLINE_LAMBDA) to be compiled with it.

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define AVX512 __attribute__((target("arch=x86-64-v4")))
#define HAS_AVX512 (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define CLONES
#define AVX512
#define HAS_AVX512 0
#define HAS_AVX2 0
#endif
#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

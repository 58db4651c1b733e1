// Read before every kernel. A function marked CLONES is compiled for this processor: for the one whose LEVEL the
// compiler was told (4: x86-64-v4, AVX-512; 3: x86-64-v3, AVX2; see compiler.py), else for all, and chosen when it is
// loaded. One marked AVX512 is compiled for processors that have it alone (HAS_AVX512, HAS_AVX2: 0 where nothing is
// known); what either calls must be INLINE (or an INLINE_LAMBDA) to be compiled with it.

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define AVX512 __attribute__((target("arch=x86-64-v4")))
#ifdef LEVEL
#define CLONES
#define HAS_AVX512 (LEVEL >= 4)
#define HAS_AVX2 (LEVEL >= 3)
#else
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define HAS_AVX512 (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#endif
#else
#define CLONES
#define AVX512
#define HAS_AVX512 0
#define HAS_AVX2 0
#endif
#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

// Read before every kernel. A function marked CLONES is compiled for several processors and chosen when it is loaded; what
// it calls must be INLINE (or an INLINE_LAMBDA) to be compiled with it.

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

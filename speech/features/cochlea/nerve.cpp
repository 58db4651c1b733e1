// Hair cells, afferents and bushy cells of a row of units over many steps, for the CPU. Plain C ABI, no dependency.
//
// Equations and names are those of hair_cell.py and bushy_cell.py, and every number rounds like theirs, bit for bit
// (compiled with -ffp-contract=off). Units are independent: they are walked in groups of LANES, so that one step of a
// group is a few vector instructions and its state stays in the first-level cache.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// All lanes of a group; without the pragma the compiler unrolls such a short loop and loses the vectors.
#define EACH _Pragma("omp simd") for (int j = 0; j < LANES; ++j)

extern "C" {
struct Constants {
    double y, g, l, r, x, A, B, h, M, dt_s;                                         // hair cell
    double weight, membrane_decay, synapse_decay, current_gain, threshold;          // bushy cell
    int64_t n_afferents, n_deaf, n_refractory;
};
struct Call {
    int64_t units, steps, stride;        // velocity [units][steps], rows `stride` elements apart
    int64_t first_unit, first_step;      // of the row and of the clip: what the random numbers are keyed by
    uint64_t seed, clip;
};
struct State {                           // [units] each; recent [n_deaf][units]
    double *q, *c, *w, *current, *potential;
    int64_t *wait, *recent;
};
}

namespace {

constexpr int LANES = 32, TILE = 64;

INLINE uint64_t mix(uint64_t z) {        // SplitMix64, as in speech/augmentation.py
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

INLINE bool any(const int64_t* flags) {
    int64_t found = 0;
    for (int j = 0; j < LANES; ++j) found |= flags[j];
    return found;
}

// One group of units, `width` <= LANES of them. Writes step * 2^32 + unit for every event; returns the end of them.
INLINE int64_t* walk(const Constants& p, const Call& call, const float* velocity, State s, int width, int64_t* events) {
    double q[LANES] = {}, c[LANES] = {}, w[LANES] = {}, current[LANES] = {}, potential[LANES] = {};
    int64_t wait[LANES] = {}, ready[LANES] = {}, n[LANES], flags[LANES];
    uint64_t unit[LANES];
    std::vector<int64_t> recent(p.n_deaf * LANES);
    EACH unit[j] = uint64_t(call.first_unit + j);
    for (int j = 0; j < width; ++j) {
        q[j] = s.q[j], c[j] = s.c[j], w[j] = s.w[j];
        current[j] = s.current[j], potential[j] = s.potential[j], wait[j] = s.wait[j];
        ready[j] = p.n_afferents;
        for (int64_t d = 0; d < p.n_deaf; ++d) {
            recent[d * LANES + j] = s.recent[d * call.units + j];
            ready[j] -= recent[d * LANES + j];
        }
    }
    const double loss = p.l + p.r, rate = p.h * p.dt_s;
    const uint64_t clip_key = mix(mix(call.seed) ^ call.clip);
    float tile[TILE][LANES] = {};
    for (int64_t start = 0; start < call.steps; start += TILE) {
        const int64_t n_tile = std::min<int64_t>(TILE, call.steps - start);
        for (int j = 0; j < width; ++j)
            for (int64_t t = 0; t < n_tile; ++t) tile[t][j] = velocity[j * call.stride + start + t];
        for (int64_t t = 0; t < n_tile; ++t) {
            const int64_t step = call.first_step + start + t;
            const uint64_t key = mix(clip_key ^ uint64_t(step));
            double uniform[LANES], probability[LANES], failure[LANES], mass[LANES], power[LANES];
            EACH {
                const double opening = std::max(double(tile[t][j]) + p.A, 0.0);
                const double release = p.g * opening / (opening + p.B) * q[j];
                const double q_new = q[j] + p.dt_s * (p.y * (p.M - q[j]) + p.x * w[j] - release);
                const double c_new = c[j] + p.dt_s * (release - loss * c[j]);
                w[j] = w[j] + p.dt_s * (p.r * c[j] - p.x * w[j]);
                q[j] = q_new;
                c[j] = c_new;
                probability[j] = std::min(rate * c_new, 1.0);
                failure[j] = 1.0 - probability[j];
                mass[j] = 1.0;
                power[j] = failure[j];
            }
            for (int bit = 0; bit < 6; ++bit) EACH {
                mass[j] = (ready[j] >> bit & 1) ? mass[j] * power[j] : mass[j];
                power[j] = power[j] * power[j];
            }
            EACH uniform[j] = double(int64_t(mix(key ^ unit[j]) >> 11)) * 0x1p-53;
            EACH {
                n[j] = 0;
                flags[j] = uniform[j] >= mass[j];
            }
            if (any(flags)) {
                double odds[LANES], below[LANES];
                EACH {
                    odds[j] = probability[j] / (failure[j] <= 0.0 ? 1.0 : failure[j]);
                    below[j] = mass[j];
                }
                for (int64_t k = 0; any(flags); ++k) {
                    const double inverse = 1.0 / double(k + 1);
                    EACH {
                        flags[j] = int64_t(uniform[j] >= below[j]) & int64_t(n[j] == k) & int64_t(k < ready[j]);
                        n[j] += flags[j];
                        mass[j] = mass[j] * (double(ready[j] - k) * inverse) * odds[j];
                        below[j] = below[j] + mass[j];
                    }
                }
                EACH n[j] = failure[j] <= 0.0 ? ready[j] : n[j];
            }
            if (p.n_deaf > 0) {
                int64_t* oldest = recent.data() + step % p.n_deaf * LANES;
                EACH {
                    ready[j] += oldest[j] - n[j];
                    oldest[j] = n[j];
                }
            }
            EACH {
                const double charged = current[j] + p.weight * double(n[j]);
                double v = potential[j] * p.membrane_decay + charged * p.current_gain;
                v = wait[j] > 0 ? 0.0 : v;
                flags[j] = v >= p.threshold;
                current[j] = charged * p.synapse_decay;
                potential[j] = flags[j] ? 0.0 : v;
                wait[j] = flags[j] ? p.n_refractory : std::max<int64_t>(wait[j] - 1, 0);
            }
            if (any(flags))
                for (int j = 0; j < width; ++j)
                    if (flags[j]) *events++ = step << 32 | (call.first_unit + j);
        }
    }
    for (int j = 0; j < width; ++j) {
        s.q[j] = q[j], s.c[j] = c[j], s.w[j] = w[j];
        s.current[j] = current[j], s.potential[j] = potential[j], s.wait[j] = wait[j];
        for (int64_t d = 0; d < p.n_deaf; ++d) s.recent[d * call.units + j] = recent[d * LANES + j];
    }
    return events;
}

}  // namespace

CLONES int64_t* walk_clone(const Constants& p, const Call& call, const float* velocity, State s, int width,
                           int64_t* events) {
    return walk(p, call, velocity, s, width, events);
}

// Advances `state` by call->steps and writes the events, step * 2^32 + unit, group after group. Returns their number.
// `events` must hold one event a unit for every n_refractory + 1 steps begun.
extern "C" int64_t nerve(const Constants* p, const Call* call, const float* velocity, const State* state,
                         int64_t* events) {
    int64_t* end = events;
    for (int64_t at = 0; at < call->units; at += LANES) {
        Call group = *call;
        group.first_unit += at;
        const State& s = *state;
        const State here{s.q + at, s.c + at, s.w + at, s.current + at, s.potential + at, s.wait + at, s.recent + at};
        const int width = int(std::min<int64_t>(LANES, call->units - at));
        end = walk_clone(*p, group, velocity + at * call->stride, here, width, end);
    }
    return end - events;
}

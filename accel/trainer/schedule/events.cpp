// The events of a schedule, as `_Loop` of events.py has them, name by name; both give the same bits.

#include <algorithm>
#include <cstdint>
#include <queue>
#include <set>
#include <vector>

namespace {

constexpr int FP = 0, BP = 1, WG = 2, UPDATE = 3, ENGINES = 4;
constexpr double UNIT = 68719476736.0;  // 2^36

struct Problem {
    int64_t cores, stages, fragments, micros, ports, links, update;
    const int64_t *fragment_stage, *fragment_core, *fragment_place, *own_start, *own, *stage_start, *stage_fragment, *duty;
    const double *length, *busy;
    const int64_t *dram, *port_start, *port, *port_share, *out_start, *out_edge, *in_start, *in_edge;
    const int64_t *edge_source, *edge_target, *forward_route, *backward_route, *route_start, *route_link;
    const double *route_flits, *route_delay;
    const int64_t *fp_wait, *bp_wait, *sink;
};

struct Task {
    int64_t fragment, micro, duty;
    double start, left, since;
    int64_t dram;
    double near, slow, end;
    bool grouped;
    int64_t version;  // 0: its end is not foreseen yet, -1: nothing runs here
};

struct Event {  // `stage` is -1 for the end of a task, and `engine` its slot then
    double time;
    int64_t order;
    int32_t stage, engine, micro;
    bool operator<(const Event &other) const {  // the earliest is the greatest
        return time != other.time ? time > other.time : order > other.order;
    }
};

struct Loop {
    const Problem &p;
    int64_t *names;
    double *cycles;
    int64_t count = 0;
    std::vector<Task> tasks;
    std::vector<int64_t> next, wg_left, wait[2], loss_wait, asked;
    std::vector<uint8_t> ready;
    std::priority_queue<Event> heap, group;
    std::set<int64_t> both;
    int64_t order = 0, demand = 0;
    double now = 0, crowd = 1, clock = 0, clock_since = 0, waited = 0, makespan = 0;
    std::vector<double> free;

    Loop(const Problem &problem, int64_t *names, double *cycles) : p(problem), names(names), cycles(cycles) {
        Task nothing{};
        nothing.version = -1;
        tasks.assign(p.cores * ENGINES, nothing);
        next.assign(p.cores * ENGINES, 0);
        wg_left.assign(p.fragments, p.micros);
        ready.assign(p.fragments * ENGINES * p.micros, 0);
        free.assign(p.links, 0.0);
        asked.assign(p.ports, 0);
        int64_t ending = 0;
        const int64_t *waits[2] = {p.fp_wait, p.bp_wait};
        for (int64_t s = 0; s < p.stages; ++s) {
            for (int engine : {FP, BP}) wait[engine].insert(wait[engine].end(), p.micros, waits[engine][s]);
            if (p.sink[s]) ending += p.stage_start[s + 1] - p.stage_start[s];
        }
        loss_wait.assign(p.micros, ending);
    }

    void run() {
        for (int64_t stage = 0; stage < p.stages; ++stage)
            if (p.fp_wait[stage] == 0)
                for (int64_t m = 0; m < p.micros; ++m) make_ready(FP, stage, m);
        while (true) {
            while (!group.empty() && tasks[group.top().engine].version != group.top().order) group.pop();
            if (!group.empty()) {
                Event first = group.top();
                first.time = clock_since + (first.time - clock) * crowd;
                if (heap.empty() || heap.top() < first) {
                    group.pop();
                    now = std::max(now, first.time);
                    finish(first.engine);
                    continue;
                }
            }
            if (heap.empty()) break;
            const Event event = heap.top();
            heap.pop();
            if (event.stage >= 0) {
                now = std::max(now, event.time);
                arrive(event.engine, event.stage, event.micro);
            } else if (tasks[event.engine].version == event.order) {
                now = std::max(now, event.time);
                finish(event.engine);
            }
        }
    }

    uint8_t &is_ready(int64_t f, int engine, int64_t m) { return ready[(f * ENGINES + engine) * p.micros + m]; }

    void make_ready(int engine, int64_t stage, int64_t m) {
        for (int64_t i = p.stage_start[stage]; i < p.stage_start[stage + 1]; ++i) {
            const int64_t f = p.stage_fragment[i];
            is_ready(f, engine, m) = 1;
            start_next(p.fragment_core[f] * ENGINES + engine);
        }
    }

    void start_next(int64_t slot) {
        const int64_t core = slot / ENGINES, first = p.own_start[core], own = p.own_start[core + 1] - first;
        const int engine = slot % ENGINES;
        const int64_t index = next[slot];
        if (tasks[slot].version >= 0 || index == own * (engine == UPDATE ? 1 : p.micros)) return;
        const int64_t m = index / own, place = index % own;
        const int64_t f = p.own[first + (engine == FP ? place : own - 1 - place)];
        if (!is_ready(f, engine, m)) return;
        next[slot] = index + 1;
        const int64_t duty = p.duty[(f * ENGINES + engine) * p.micros + m];
        tasks[slot] = Task{f, m, duty, now, p.length[duty], now, p.dram[duty], 1.0, 1.0, 0.0, false, 0};
        share_ports(core);
        if (tasks[slot].dram) ask(tasks[slot].dram);
        if (tasks[slot].version == 0) foresee(slot);
    }

    void share_ports(int64_t core) {
        bool any = false;
        for (int64_t slot = core * ENGINES; slot < core * ENGINES + ENGINES; ++slot) {
            const Task &task = tasks[slot];
            if (task.version < 0) continue;
            for (int64_t i = p.port_start[task.duty]; i < p.port_start[task.duty + 1]; ++i, any = true)
                asked[p.port[i]] += p.port_share[i];
        }
        for (int64_t slot = core * ENGINES; any && slot < core * ENGINES + ENGINES; ++slot) {
            Task &task = tasks[slot];
            if (task.version < 0) continue;
            double near = 1.0;
            for (int64_t i = p.port_start[task.duty]; i < p.port_start[task.duty + 1]; ++i)
                near = std::max(near, static_cast<double>(asked[p.port[i]]) / UNIT);
            if (near != task.near) {
                lift(slot);
                task.near = near;
                if (task.version) foresee(slot);
            }
        }
        if (any) std::fill(asked.begin(), asked.end(), 0);
    }

    void ask(int64_t change) {
        demand += change;
        const double asked_for = std::max(1.0, static_cast<double>(demand) / UNIT);
        if (asked_for == crowd) return;
        clock = group_clock();
        clock_since = now;
        crowd = asked_for;
        const std::vector<int64_t> slots(both.begin(), both.end());
        for (int64_t slot : slots)
            if (std::max(tasks[slot].near, crowd) != tasks[slot].slow) {
                lift(slot);
                foresee(slot);
            }
    }

    double group_clock() const { return clock + (now - clock_since) / crowd; }

    void lift(int64_t slot) {
        Task &task = tasks[slot];
        if (task.version == 0) return;
        const double left = task.grouped ? task.end - group_clock() : task.left - (now - task.since) / task.slow;
        task.left = std::max(left, 0.0);
        task.since = now;
        both.erase(slot);
    }

    void foresee(int64_t slot) {
        Task &task = tasks[slot];
        task.version = ++order;
        task.grouped = task.dram > 0 && task.near == 1.0;
        if (task.grouped) {
            task.end = group_clock() + task.left;
            group.push({task.end, order, -1, static_cast<int32_t>(slot), 0});
            return;
        }
        task.slow = task.near;
        if (task.dram > 0) {
            task.slow = std::max(task.near, crowd);
            both.insert(slot);
        }
        heap.push({now + task.left * task.slow, order, -1, static_cast<int32_t>(slot), 0});
    }

    void finish(int64_t slot) {
        const int64_t core = slot / ENGINES;
        const int engine = slot % ENGINES;
        const Task task = tasks[slot];
        tasks[slot].version = -1;
        both.erase(slot);
        const int64_t f = task.fragment, m = task.micro;
        if (now > task.start) {
            if (names) {
                const int64_t name[4] = {core, engine, f, m};
                const double lasted[3] = {task.start, now, p.busy[task.duty]};
                std::copy(name, name + 4, names + 4 * count);
                std::copy(lasted, lasted + 3, cycles + 3 * count);
                ++count;
            }
            makespan = now;
        }
        share_ports(core);
        if (task.dram) ask(-task.dram);
        const int64_t stage = p.fragment_stage[f], place = p.fragment_place[f];
        if (engine == FP) {
            for (int64_t i = p.out_start[stage]; i < p.out_start[stage + 1]; ++i) {
                const int64_t e = p.out_edge[i];
                send(p.forward_route[e] + place, FP, p.edge_target[e], m);
            }
            if (p.sink[stage] && --loss_wait[m] == 0)
                for (int64_t last = 0; last < p.stages; ++last)
                    if (p.sink[last]) arrive(BP, last, m);
        } else if (engine == BP) {
            for (int64_t i = p.in_start[stage]; i < p.in_start[stage + 1]; ++i) {
                const int64_t e = p.in_edge[i];
                send(p.backward_route[e] + place, BP, p.edge_source[e], m);
            }
            is_ready(f, WG, m) = 1;
            start_next(core * ENGINES + WG);
        } else if (engine == WG && --wg_left[f] == 0 && p.update) {
            is_ready(f, UPDATE, 0) = 1;
            start_next(core * ENGINES + UPDATE);
        }
        start_next(slot);
    }

    void arrive(int engine, int64_t stage, int64_t m) {
        if (--wait[engine][stage * p.micros + m] == 0) make_ready(engine, stage, m);
    }

    void send(int64_t r, int engine, int64_t stage, int64_t m) {
        const int64_t *first = p.route_link + p.route_start[r], *last = p.route_link + p.route_start[r + 1];
        if (first == last) return arrive(engine, stage, m);
        double start = now;
        for (const int64_t *link = first; link < last; ++link) start = std::max(start, free[*link]);
        const double taken = start + p.route_flits[r];
        for (const int64_t *link = first; link < last; ++link) free[*link] = taken;
        waited += start - now;
        heap.push({taken + p.route_delay[r], ++order, static_cast<int32_t>(stage), engine, static_cast<int32_t>(m)});
    }
};

}  // namespace

// Spans into `names` [n, 4] and `cycles` [n, 3] if `spans`; makespan and waited cycles into `ends`. Returns n.
extern "C" int64_t run(const Problem *problem, int64_t *names, double *cycles, double *ends, int spans) {
    Loop loop(*problem, spans ? names : nullptr, cycles);
    loop.run();
    ends[0] = loop.makespan;
    ends[1] = loop.waited;
    return loop.count;
}

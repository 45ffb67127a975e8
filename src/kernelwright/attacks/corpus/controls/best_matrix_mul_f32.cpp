// rows: control
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: The winner of a short search.
// expect: pass
// matrix_mul in f32: contraction, by kernelwright.
// 1.00x [0.75, 1.12] over 'eager', the best baseline, on M=384,K=1024,N=640 f32 normal: median 3455.0 us.
// Judged as built by g++ (Debian 12.2.0-14+deb12u1) 12.2.0 on Intel(R) Xeon(R) Processor.
//
// Build: g++ -std=c++17 -fPIC -fopenmp -shared -O3 -march=native -mprefer-vector-width=512 best.cpp -o libbest.so

#ifndef LANES
#define LANES 16
#endif
#ifndef MR
#define MR 6
#endif
#ifndef NV
#define NV 4
#endif
#ifndef KC
#define KC 512
#endif
#ifndef MC
#define MC 384
#endif
#ifndef NC
#define NC 4096
#endif
#ifndef PARTITION
#define PARTITION 0
#endif
#ifndef ORDER
#define ORDER 0
#endif
#ifndef UNROLL_K
#define UNROLL_K 16
#endif
#ifndef PREFETCH
#define PREFETCH 8
#endif
#ifndef PACK_B
#define PACK_B 2
#endif
// contraction: out from A, B, f32 workloads.
// @tune LANES = 16, 8
// @tune MR = 6, 14, 12, 8, 4, 24
// @tune NV = 4, 2, 3, 1
// @tune KC = 512, 256, 384, 1024
// @tune MC = 384, 96, 192, 768
// @tune NC = 4096, 1024, 512, 256
// @tune PARTITION = 0, 1
// @tune ORDER = 0, 1
// @tune UNROLL_K = 16, 1, 2, 4, 8
// @tune PREFETCH = 8, 0, 4, 16
// @tune PACK_B = 2, 1, 0
// @tune CXX = g++, clang++-19
// @tune FLAGS = "-O3 -march=native -mprefer-vector-width=512"
// @require MR * NV + NV + 1 <= 32
// @require PACK_B != 2 or ORDER == 0

#include "kernelwright.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include <omp.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace simd {

#define INLINED __attribute__((always_inline))

// LANES elements at once; comparisons give a mask: all ones where true, zero where false.
typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t uints __attribute__((vector_size(LANES * 4)));
typedef int64_t longs __attribute__((vector_size(LANES * 8)));

// Which lanes of a vector exist: all of them, or the first few at the end of a row.
struct all_lanes {
    static constexpr int64_t count = LANES;
};
struct first_lanes {
    int64_t count;
};

inline floats splat(float x) { return floats{} + x; }
inline ints splat(int32_t x) { return ints{} + x; }
inline longs splat(int64_t x) { return longs{} + x; }
inline ints splat(bool x) { return ints{} - (int32_t)x; }

inline floats select(ints mask, floats a, floats b) { return mask ? a : b; }
inline ints select(ints mask, ints a, ints b) { return mask ? a : b; }
inline longs select(ints mask, longs a, longs b) {
    return __builtin_convertvector(mask, longs) ? a : b;
}

// 0, 1, 2, ... across the lanes.
inline ints lane_numbers() {
    ints numbers = {};
    for (int i = 0; i < LANES; ++i) numbers[i] = i;
    return numbers;
}

// The value where a lane exists, the other (the identity of a reduction) elsewhere.
template <class V> inline V keep(V value, V, all_lanes) { return value; }
template <class V> inline V keep(V value, V other, first_lanes lanes) {
    return select(lane_numbers() < (int32_t)lanes.count, value, other);
}

// f(i) in lane i, for loads that are not contiguous; missing lanes are zero.
template <class V, class Lanes, class F> inline V each(Lanes lanes, F&& f) {
    V values = {};
    for (int64_t i = 0; i < lanes.count; ++i) values[i] = f(i);
    return values;
}

// f(0), f(1), ..., f(COUNT - 1), unrolled; the argument is a compile-time constant.
template <class F, int... I>
inline INLINED void unrolled_over(F& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int COUNT, class F> inline INLINED void unrolled(F&& f) {
    unrolled_over(f, std::make_integer_sequence<int, COUNT>{});
}

// step(i, lanes, u) for each vector of begin <= i < end; u < STEPS tells accumulators apart.
template <int STEPS, class Step>
inline INLINED void sweep(int64_t begin, int64_t end, Step&& step) {
    constexpr std::integral_constant<int, 0> first{};
    int64_t i = begin;
    for (; i + STEPS * LANES <= end; i += STEPS * LANES)
        unrolled<STEPS>([&](auto u) INLINED { step(i + u * LANES, all_lanes{}, u); });
    for (; STEPS > 1 && i + LANES <= end; i += LANES) step(i, all_lanes{}, first);
    if (i < end) step(i, first_lanes{end - i}, first);
}

inline floats load(const float* p, all_lanes) {
    floats values;
    std::memcpy(&values, p, sizeof values);
    return values;
}
inline floats load(const float* p, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    return (floats)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes.count) - 1), p);
#else
    return each<floats>(lanes, [&](int64_t i) { return p[i]; });
#endif
}

inline void store(float* p, floats values, all_lanes) { std::memcpy(p, &values, sizeof values); }
inline void store(float* p, floats values, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes.count) - 1), (__m512)values);
#else
    for (int64_t i = 0; i < lanes.count; ++i) p[i] = values[i];
#endif
}

}  // namespace simd

// The register tile of a contraction: MR rows by NV vectors of accumulators walk down a packed panel
// of A and a packed panel of B, one rank-one update per step of k.
//
// A panel of A holds MR rows in blocks of KB steps of k, zero beyond the last row:
//   a_inner_k:  element (i, k) at (k / KB * MR + i) * KB + k % KB   (rows are contiguous in k)
//   otherwise:  element (i, k) at k * MR + i
// A panel of B holds NR columns, element (k, j) at k * NR + j, zero beyond the last column.
namespace contraction {

typedef simd::floats vec;
typedef float vec_u __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

constexpr int NR = NV * LANES;
constexpr int KB = 16;
constexpr int64_t ALIGN = 64;

#if defined(__clang__)
#define KW_UNROLL _Pragma("unroll")
#else
#define KW_UNROLL _Pragma("GCC unroll 64")
#endif

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// One step of k: a rank-one update of the register tile; `keep` also packs the row of B.
template <int AI, bool keep>
inline __attribute__((always_inline)) void rank_one(vec (&acc)[MR][NV], const float* a,
                                                    const float* b, float* kept) {
  vec columns[NV];
  KW_UNROLL
  for (int v = 0; v < NV; ++v) {
    columns[v] = *(const vec_u*)(b + v * LANES);
    if (keep) *(vec_u*)(kept + v * LANES) = columns[v];
  }
  KW_UNROLL
  for (int i = 0; i < MR; ++i) {
    const vec row = a[i * AI] - vec{};
    KW_UNROLL
    for (int v = 0; v < NV; ++v) acc[i][v] += row * columns[v];
  }
}

// tile(i, j) (+)= sum over k of a panel of A times a panel of B whose rows are `ldb` apart; with
// `keep`, the panel of B is packed into `kept` on the way.
template <bool a_inner_k, bool keep = false>
inline void micro_kernel(int64_t depth, const float* a, const float* b, int64_t ldb, float* tile,
                         bool accumulate, float* kept = nullptr) {
  constexpr int AI = a_inner_k ? KB : 1, AK = a_inner_k ? 1 : MR;
  vec acc[MR][NV];
  KW_UNROLL
  for (int i = 0; i < MR; ++i) {
    KW_UNROLL
    for (int v = 0; v < NV; ++v)
      acc[i][v] = accumulate ? *(const vec_u*)(tile + i * NR + v * LANES) : vec{};
  }
  int64_t k = 0;
  for (; k + KB <= depth; k += KB, a += MR * KB) {
    for (int inner = 0; inner < KB; inner += UNROLL_K, b += UNROLL_K * ldb, kept += UNROLL_K * NR) {
      KW_UNROLL
      for (int u = 0; u < UNROLL_K; ++u) {
#if PREFETCH > 0
        KW_UNROLL
        for (int line = 0; line < NR; line += 16)
          __builtin_prefetch(b + (u + PREFETCH) * ldb + line);
#endif
        rank_one<AI, keep>(acc, a + (inner + u) * AK, b + u * ldb, kept + u * NR);
      }
    }
  }
  const int rest = int(depth - k);
  for (int u = 0; u < rest; ++u, b += ldb, kept += NR) rank_one<AI, keep>(acc, a + u * AK, b, kept);
  KW_UNROLL
  for (int i = 0; i < MR; ++i) {
    KW_UNROLL
    for (int v = 0; v < NV; ++v) *(vec_u*)(tile + i * NR + v * LANES) = acc[i][v];
  }
}

// Where element (i, k) of an A panel with contiguous rows lies.
inline int64_t inner_k(int64_t i, int64_t k) { return (k / KB * MR + i) * KB + k % KB; }

// Zeros in the rows of an A panel beyond the last row of A.
inline void clear_rows(float* panel, int first, int64_t depth) {
  for (int64_t k = 0; k < depth; k += KB)
    for (int i = first; i < MR; ++i)
      for (int u = 0; u < KB; ++u) panel[inner_k(i, k) + u] = 0.0f;
}

// Packs lines that are contiguous along the panel (A transposed in memory): WIDTH per step of k.
template <int WIDTH, typename Line>
inline void pack_lines(Line line, int count, int64_t depth, float* to) {
  for (int64_t k = 0; k < depth; ++k, to += WIDTH) {
    const auto* from = line(k);
    if (count == WIDTH) {
      for (int j = 0; j < WIDTH; ++j) to[j] = to_float(from[j]);
    } else {
      for (int j = 0; j < count; ++j) to[j] = to_float(from[j]);
      for (int j = count; j < WIDTH; ++j) to[j] = 0.0f;
    }
  }
}

// Packs columns of B that are contiguous in k (B transposed in memory): T x T blocks through L1.
template <int WIDTH, typename Column>
inline void pack_transposed(Column column, int count, int64_t depth, float* to) {
  constexpr int T = 16;
  for (int j = 0; j < WIDTH; j += T) {
    const int width = WIDTH - j < T ? WIDTH - j : T;
    for (int64_t k = 0; k < depth; k += T) {
      const int high = int(least(T, depth - k));
      float block[T][T] = {};
      for (int c = 0; c < width && j + c < count; ++c) {
        const auto* from = column(j + c) + k;
        if (high == T) {
          for (int r = 0; r < T; ++r) block[c][r] = to_float(from[r]);
        } else {
          for (int r = 0; r < high; ++r) block[c][r] = to_float(from[r]);
        }
      }
      for (int r = 0; r < high; ++r)
        for (int c = 0; c < width; ++c) to[(k + r) * WIDTH + j + c] = block[c][r];
    }
  }
}

}  // namespace contraction

// Contraction: C(i, j) = sum over k of a(i, k) * b(k, j), in float32, with any epilogue.
//
// The scheme is that of Goto and van de Geijn ("Anatomy of high-performance matrix
// multiplication", 2008) as laid out in BLIS: a register tile of MR x NR accumulators walks down a
// packed panel of A and a packed panel of B; panels are cut by KC (depth), MC (rows) and NC
// (columns) so that they stay in L1, L2 and L3. Operands are widened to float, and evaluated when
// they are expressions, while they are packed. The finished tile goes to `epilogue` while it is
// still in L1, so nothing but the final outputs is ever written to memory when K <= KC.
//
// PACK_B: 1 packs a whole block of B ahead; 2 packs each panel when the first tile needs it, inside
// of that tile's own product where B lies in float32 rows, so that waiting for memory hides behind
// arithmetic and the panel never leaves L2; 0 never packs (float32 rows only).
namespace contraction {

// Whether all threads use one packed block of B, and meet before and after using it.
constexpr bool SHARED_B = PARTITION == 0 && PACK_B != 2;

// How the work is cut; the same numbers size the workspace and drive the loops.
template <class P>
struct Plan {
  int64_t kc, mc, nc, threads, a_bytes, b_bytes, partial_bytes;
  bool split_k;

  explicit Plan(const P& p) {
    threads = omp_get_max_threads();
    kc = least(KC, round_up(p.depth_count, KB));
    mc = least(round_up(MC, MR), round_up(p.row_count, MR));
    nc = least(round_up(NC, NR), round_up(p.column_count, NR));
    split_k = p.depth_count > kc;
    a_bytes = round_up(P::products * mc * kc * 4, 4096) + 64 * 5;
    b_bytes = round_up(P::products * kc * (PACK_B == 2 ? NR : nc) * 4, 4096) + 64 * 3;
    const int64_t tiles = ceil_div(p.row_count, MR) * ceil_div(p.column_count, NR);
    partial_bytes = split_k ? round_up(tiles * P::products * MR * NR * 4, 4096) : 0;
  }
  int64_t b_copies() const { return SHARED_B ? 1 : threads; }
  int64_t partial_copies() const { return PARTITION == 2 ? threads : 1; }
  int64_t bytes() const {
    return ALIGN + threads * a_bytes + b_copies() * b_bytes + partial_copies() * partial_bytes;
  }
};

struct Range {
  int64_t begin, end;
};

// The share of `part` out of `parts` of `total`, in whole multiples of `unit`.
inline Range share(int64_t total, int64_t unit, int64_t part, int64_t parts) {
  const int64_t units = ceil_div(total, unit);
  return {least(total, units * part / parts * unit), least(total, units * (part + 1) / parts * unit)};
}

// One block of packed A times one block of packed B, tile by tile.
template <class P>
inline void macro_kernel(const P& p, int64_t batch, Range rows, Range columns, Range ks,
                         const float* a, float* b, float* partial) {
  const int64_t depth = ks.end - ks.begin, a_panel = MR * round_up(depth, KB), b_panel = NR * depth;
  const int64_t row_panels = ceil_div(rows.end - rows.begin, MR);
  const int64_t column_panels = ceil_div(columns.end - columns.begin, NR);
  const int64_t all_columns = ceil_div(p.column_count, NR);
  alignas(64) float local[P::products * MR * NR];
  for (int64_t t = 0; t < row_panels * column_panels; ++t) {
    const int64_t ip = ORDER ? t / column_panels : t % row_panels;
    const int64_t jp = ORDER ? t % column_panels : t / row_panels;
    const int64_t i = rows.begin + ip * MR, j = columns.begin + jp * NR;
    float* tile = local;
    if (partial) tile = partial + (i / MR * all_columns + j / NR) * (P::products * MR * NR);
    const int width = int(least(NR, p.column_count - j));
    for (int r = 0; r < P::products; ++r) {
      const float* a_at = a + (ip * P::products + r) * a_panel;
      float* panel = b + ((PACK_B == 2 ? 0 : jp) * P::products + r) * b_panel;
      float* to = tile + r * MR * NR;
      const bool more = ks.begin > 0, in_place = P::in_place && width == NR;
      if constexpr (P::in_place && PACK_B != 1) {
        if (in_place && (PACK_B == 0 || ip == 0)) {
          const float* from = p.b_in_place(r, batch, ks.begin, j);
          micro_kernel<P::a_inner_k, PACK_B == 2>(depth, a_at, from, p.b_stride(r), to, more, panel);
          continue;
        }
      }
      if (PACK_B == 2 && ip == 0) p.pack_b(r, batch, j, width, ks.begin, depth, panel);
      micro_kernel<P::a_inner_k>(depth, a_at, panel, NR, to, more);
    }
    if (ks.end == p.depth_count)
      p.epilogue(batch, i, j, int(least(MR, p.row_count - i)), width, tile);
  }
}

// Packs a block of B. Chunks of k go round the threads, and within a chunk the panels are innermost:
// the chunk's rows are read whole, so few pages of memory are open at a time.
template <class P>
inline void pack_b_panels(const P& p, int64_t batch, Range columns, Range ks, float* b, int64_t first,
                          int64_t step) {
  constexpr int64_t CHUNK = 32;
  const int64_t depth = ks.end - ks.begin;
  for (int64_t k = first * CHUNK; k < depth; k += step * CHUNK) {
    float* to = b + k * NR;
    for (int64_t j = columns.begin; j < columns.end; j += NR)
      for (int r = 0; r < P::products; ++r, to += NR * depth) {
        if (PACK_B == 0 && j + NR <= p.column_count) continue;
        p.pack_b(r, batch, j, int(least(NR, p.column_count - j)), ks.begin + k, least(CHUNK, depth - k), to);
      }
  }
}

template <class P>
inline void pack_a_panels(const P& p, int64_t batch, Range rows, Range ks, float* a) {
  const int64_t depth = ks.end - ks.begin;
  for (int64_t i = rows.begin; i < rows.end; i += MR)
    for (int r = 0; r < P::products; ++r, a += MR * round_up(depth, KB))
      p.pack_a(r, batch, i, int(least(MR, p.row_count - i)), ks.begin, depth, a);
}

inline void meet() {
#pragma omp barrier
}

// The whole contraction. PARTITION: 0 rows, 1 columns, 2 batches.
template <class P>
inline int run(const P& p, void* workspace, int64_t workspace_bytes) {
  const Plan<P> plan(p);
  if (workspace_bytes < plan.bytes()) return 1;
  char* base = (char*)(((uintptr_t)workspace + ALIGN - 1) / ALIGN * ALIGN);
#pragma omp parallel num_threads(int(plan.threads))
  {
    const int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
    float* a = (float*)(base + me * plan.a_bytes);
    char* after_a = base + plan.threads * plan.a_bytes;
    float* b = (float*)(after_a + (SHARED_B ? 0 : me * plan.b_bytes));
    char* after_b = after_a + plan.b_copies() * plan.b_bytes;
    float* partial = nullptr;
    if (plan.split_k) partial = (float*)(after_b + (PARTITION == 2 ? me * plan.partial_bytes : 0));
    const Range batches = PARTITION == 2 ? share(p.batch_count, 1, me, team) : Range{0, p.batch_count};
    const Range rows = PARTITION == 0 ? share(p.row_count, MR, me, team) : Range{0, p.row_count};
    const Range columns = PARTITION == 1 ? share(p.column_count, NR, me, team) : Range{0, p.column_count};
    for (int64_t batch = batches.begin; batch < batches.end; ++batch)
      for (int64_t j = columns.begin; j < columns.end; j += plan.nc)
        for (int64_t k = 0; k == 0 || k < p.depth_count; k += plan.kc) {
          const Range js{j, least(columns.end, j + plan.nc)}, ks{k, least(p.depth_count, k + plan.kc)};
          if (PACK_B != 2)
            pack_b_panels(p, batch, js, ks, b, SHARED_B ? me : 0, SHARED_B ? team : 1);
          if (SHARED_B) meet();
          for (int64_t i = rows.begin; i < rows.end; i += plan.mc) {
            const Range is{i, least(rows.end, i + plan.mc)};
            pack_a_panels(p, batch, is, ks, a);
            macro_kernel(p, batch, is, js, ks, a, b, partial);
          }
          if (SHARED_B) meet();
        }
  }
  return 0;
}

}  // namespace contraction

struct Problem {
    static constexpr int products = 1;
    static constexpr bool a_inner_k = true;
    static constexpr bool in_place = true;
    const float* A;
    const float* B;
    float* out;
    int64_t M;
    int64_t K;
    int64_t N;
    int64_t batch_count = 1;
    int64_t row_count = M;
    int64_t column_count = N;
    int64_t depth_count = K;

    // One panel of the left operand: rows from first_row, steps of k from first_k.
    void pack_a(int product, int64_t batch, int64_t first_row, int count, int64_t first_k, int64_t depth, float* to) const {
        (void)product;
        contraction::clear_rows(to, count, depth);
        for (int r = 0; r < count; ++r) {
            const int64_t i = first_row + r;
            simd::sweep<1>(0, depth, [&](int64_t at, auto lanes, auto) INLINED {
                (void)lanes;
                const int64_t k = first_k + at;
                const simd::floats A_at = simd::load(A + i * K + k, lanes);
                __builtin_prefetch(A + (i + 4) * K + k);
                simd::store(to + contraction::inner_k(r, at), A_at, simd::all_lanes{});
            });
        }
    }

    // One panel of the right operand: columns from first_column.
    void pack_b(int product, int64_t batch, int64_t first_column, int count, int64_t first_k, int64_t depth, float* to) const {
        (void)product;
        for (int64_t r = 0; r < depth; ++r, to += contraction::NR) {
            const int64_t k = first_k + r;
            simd::sweep<NV>(0, count, [&](int64_t at, auto lanes, auto) INLINED {
                (void)lanes;
                const int64_t j = first_column + at;
                const simd::floats B_at = simd::load(B + k * N + j, lanes);
                simd::store(to + at, simd::keep(B_at, simd::floats{}, lanes), simd::all_lanes{});
            });
            for (int64_t at = contraction::ceil_div(count, LANES) * LANES;
                 at < contraction::NR; ++at) to[at] = 0.0f;
        }
    }

    // The right operand where it lies, and the distance of its rows.
    const float* b_in_place(int product, int64_t batch, int64_t first_k, int64_t first_column) const {
        (void)product;
        return B + first_k * N + first_column;
    }
    int64_t b_stride(int product) const {
        (void)product;
        return N;
    }

    // What happens to a finished tile, while it is in the nearest cache.
    void epilogue(int64_t batch, int64_t first_row, int64_t first_column, int rows, int columns,
                  const float* tile) const {
        for (int r = 0; r < rows; ++r) {
            const int64_t i = first_row + r;
            simd::sweep<1>(0, columns, [&](int64_t at, auto lanes, auto) INLINED {
                (void)lanes;
                const int64_t j = first_column + at;
                const simd::floats sum0 = simd::load(tile + r * contraction::NR + at, simd::all_lanes{});
                simd::store(out + i * N + j, sum0, lanes);
            });
        }
    }
};

extern "C" int64_t kernel_workspace(int64_t M, int64_t K, int64_t N) {
    const Problem problem{nullptr, nullptr, nullptr, M, K, N};
    return contraction::Plan<Problem>(problem).bytes();
}

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream) {
    (void)prepared, (void)stream;
    const Problem problem{A, B, out, M, K, N};
    return contraction::run(problem, workspace, workspace_bytes);
}

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
#if DOT != 3
constexpr int A_STEP = MR, B_STEP = NR;  // elements of a panel of A, of B, for a step of k
constexpr int CALLS = 1;  // of what is done between blocks of steps, for each of them
#endif
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

struct Nothing {
  void operator()(int64_t) const {}
};

// tile(i, j) (+)= sum over k of a panel of A times a panel of B whose rows are `ldb` apart; with
// `keep`, the panel of B is packed into `kept` on the way. `between(n)` is called before the n-th
// block of KB steps: what it prefetches arrives behind the arithmetic.
template <bool a_inner_k, bool keep = false, class Between = Nothing>
inline void micro_kernel(int64_t depth, const float* a, const float* b, int64_t ldb, float* tile,
                         bool accumulate, float* kept = nullptr, Between between = {}) {
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
    between(k / KB);
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

// Packs columns of B that are contiguous in k (B transposed in memory): squares of LANES columns by
// LANES steps of k, transposed in registers.
template <int WIDTH, typename Column>
inline void pack_transposed(Column column, int count, int64_t depth, float* to) {
  for (int j = 0; j < WIDTH; j += LANES) {
    const int width = int(least(LANES, count - j));
    for (int64_t k = 0; k < depth; k += LANES) {
      const int high = int(least(LANES, depth - k));
      vec square[LANES] = {};
      if (width == LANES && high == LANES) {
        KW_UNROLL
        for (int c = 0; c < LANES; ++c) square[c] = simd::load(column(j + c) + k, simd::all_lanes{});
      } else {
        for (int c = 0; c < width; ++c)
          square[c] = simd::load(column(j + c) + k, simd::first_lanes{high});
      }
      shuffle::transpose(square);
      for (int r = 0; r < high; ++r) *(vec_u*)(to + (k + r) * WIDTH + j) = square[r];
    }
  }
}

}  // namespace contraction

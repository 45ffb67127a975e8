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

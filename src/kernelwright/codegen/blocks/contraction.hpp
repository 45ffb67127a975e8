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
//
// PACK_B 3, where B is static: it has been packed before the call (`prepare`).
//
// DOT, where all operands are plain bfloat16: 0 widens them to float while packing, as above; 1 and 2
// keep them and multiply pairs of them (contraction_pairs.hpp), in vectors or on the matrix unit. For
// all others, 3 takes the floats apart and multiplies them there (contraction_parts.hpp).
namespace contraction {

#if DOT
typedef uint16_t element;
constexpr int KU = KP;  // panels are whole multiples of so many steps of k
constexpr int BU = KP;
constexpr bool FLOATS = false;
#else
typedef float element;
constexpr int KU = KB;
constexpr int BU = 1;
constexpr bool FLOATS = true;  // right operands may be used where they lie
#endif
constexpr int CHUNK = 32;

// Whether all threads use one packed block of B, and meet before and after using it.
constexpr bool SHARED_B = PARTITION == 0 && PACK_B != 2 && PACK_B != 3;

// How the work is cut; the same numbers size the workspace and drive the loops.
template <class P>
struct Plan {
  int64_t kc, mc, nc, threads, a_bytes, b_bytes, partial_bytes;
  bool split_k;

  explicit Plan(const P& p) {
    threads = omp_get_max_threads();
    kc = least(round_up(KC, KU), round_up(p.depth_count, KU));
    mc = least(round_up(MC, MR), round_up(p.row_count, MR));
    nc = least(round_up(NC, NR), round_up(p.column_count, NR));
    split_k = p.depth_count > kc;
    a_bytes = round_up(P::products * (mc / MR * A_STEP) * kc * sizeof(element), 4096) + 64 * 5;
    const int64_t panels = PACK_B == 3 ? 0 : PACK_B == 2 ? 1 : nc / NR;
    b_bytes = round_up(P::products * kc * panels * B_STEP * sizeof(element), 4096) + 64 * 3;
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

// A panel of the right operand, from step k on.
template <class P>
inline void pack_right(const P& p, int product, int64_t batch, int64_t j, int64_t k, int64_t depth,
                       element* to) {
  const int width = int(least(NR, p.column_count - j));
#if DOT == 1 || DOT == 2
  if constexpr (P::right_lies == 1) {
    pair_rows([&](int64_t step) { return p.b_at(product, batch, k + step, j); }, width, depth, to);
    return;
  }
  if constexpr (P::right_lies == 2) {
    pair_columns([&](int64_t c) { return p.b_at(product, batch, k, j + c); }, width, depth, to);
    return;
  }
#endif
#if DOT
  alignas(64) float rows[KP * NR];
  for (int64_t done = 0; done < depth; done += KP, to += KP * B_STEP) {
    const int64_t count = least(KP, depth - done);
    std::fill(rows + count * NR, rows + KP * NR, 0.0f);
    p.pack_b(product, batch, j, width, k + done, count, rows);
#if DOT == 3
    part_columns(rows, to);
#else
    interleave(rows, to);
#endif
  }
#else
  p.pack_b(product, batch, j, width, k, depth, to);
#endif
}

// A panel of the left operand, from step k on.
template <class P>
inline void pack_left(const P& p, int product, int64_t batch, int64_t i, int64_t k, int64_t depth,
                      element* to) {
  const int height = int(least(MR, p.row_count - i));
#if DOT == 1 || DOT == 2
  if constexpr (P::left_lies) {
    copy_rows([&](int64_t r) { return p.a_at(product, batch, i + r, k); }, height, depth, to);
    return;
  }
#endif
#if DOT
  alignas(64) float columns[MR * KP];
  for (int64_t done = 0; done < depth; done += KP, to += A_STEP * KP) {
    const int64_t count = least(KP, depth - done);
    if (count < KP) std::fill(columns, columns + MR * KP, 0.0f);
    p.pack_a(product, batch, i, height, k + done, count, columns);
#if DOT == 3
    part_rows<P::a_inner_k>(columns, to);
#else
    narrow_rows<P::a_inner_k>(columns, to);
#endif
  }
#else
  p.pack_a(product, batch, i, height, k, depth, to);
#endif
}

// One block of packed A times one block of packed B, tile by tile.
template <class P>
inline void macro_kernel(const P& p, int64_t batch, Range rows, Range columns, Range ks,
                         const element* a, element* b, float* partial) {
  const int64_t depth = ks.end - ks.begin;
  const int64_t a_panel = A_STEP * round_up(depth, KU), b_panel = B_STEP * round_up(depth, BU);
  const int64_t row_panels = ceil_div(rows.end - rows.begin, MR);
  const int64_t column_panels = ceil_div(columns.end - columns.begin, NR);
  const int64_t all_columns = ceil_div(p.column_count, NR);
  alignas(64) float local[P::products * MR * NR];
  typename P::Row values[(MC + MR - 1) / MR * MR];
  const bool last = ks.end == p.depth_count;
  if (last) p.row_values(batch, rows.begin, rows.end - rows.begin, values);
  const P mine = p;  // whose members no store can change
  constexpr int64_t TILE_FLOATS = P::products * MR * NR;
  for (int64_t t = 0; t < row_panels * column_panels; ++t) {
    const int64_t ip = ORDER ? t / column_panels : t % row_panels;
    const int64_t jp = ORDER ? t % column_panels : t / row_panels;
    const int64_t i = rows.begin + ip * MR, j = columns.begin + jp * NR;
    float* tile = local;
    if (partial) tile = partial + (i / MR * all_columns + j / NR) * TILE_FLOATS;
    // sums so far of the next tile, where they are close by
    const float* next = tile + (ORDER ? 1 : all_columns) * TILE_FLOATS;
    const int width = int(least(NR, p.column_count - j)), height = int(least(MR, p.row_count - i));
    const bool more = ks.begin > 0;
    // what the epilogue will touch is asked for a few rows at a time, during the product
    const int64_t calls = (depth / KU > 0 ? depth / KU : 1) * CALLS;
    const int64_t stride = ceil_div(height, calls), share = round_up(ceil_div(TILE_FLOATS, calls), 16);
    auto between = [&](int64_t n) INLINED {
      if (!FLOATS && more)
        for (int64_t at = n * share; at < least(TILE_FLOATS, (n + 1) * share); at += 16)
          __builtin_prefetch(next + at, 1);
      if (AHEAD && last)
        for (int64_t r = n * stride; r < least(height, (n + 1) * stride); ++r) mine.ahead(batch, i, j, r);
    };
    for (int r = 0; r < P::products; ++r) {
      const element* a_at = a + (ip * P::products + r) * a_panel;
      element* panel = b + ((PACK_B == 2 ? 0 : jp) * P::products + r) * b_panel;
      float* to = tile + r * MR * NR;
      if (PACK_B == 2 && ip == 0 && !(FLOATS && P::in_place && width == NR))
        pack_right(p, r, batch, j, ks.begin, depth, panel);
#if DOT
      pair_kernel(round_up(depth, KP), a_at, panel, to, more, between);
#else
      if constexpr (P::in_place && PACK_B != 1 && PACK_B != 3) {
        if (width == NR && (PACK_B == 0 || ip == 0)) {
          const float* from = p.b_in_place(r, batch, ks.begin, j);
          micro_kernel<P::a_inner_k, PACK_B == 2>(depth, a_at, from, p.b_stride(r), to, more, panel,
                                                  between);
          continue;
        }
      }
      micro_kernel<P::a_inner_k, false>(depth, a_at, panel, NR, to, more, nullptr, between);
#endif
    }
    if (last) mine.epilogue(batch, i, j, height, width, values + ip * MR, tile);
  }
}

// Packs a block of B. Chunks of k go round the threads, and within a chunk the panels are innermost:
// the chunk's rows are read whole, so few pages of memory are open at a time.
template <class P>
inline void pack_b_panels(const P& p, int64_t batch, Range columns, Range ks, element* b,
                          int64_t first, int64_t step) {
  const int64_t depth = ks.end - ks.begin, panel = B_STEP * round_up(depth, BU);
#if DOT == 1 || DOT == 2
  if constexpr (P::right_lies == 2) {  // columns are read whole
    for (int64_t j = columns.begin + first * NR; j < columns.end; j += step * NR) {
      element* to = b + (j - columns.begin) / NR * P::products * panel;
      for (int r = 0; r < P::products; ++r, to += panel)
        pack_right(p, r, batch, j, ks.begin, depth, to);
    }
    return;
  }
#endif
  for (int64_t k = first * CHUNK; k < depth; k += step * CHUNK) {
    element* to = b + k * B_STEP;
    for (int64_t j = columns.begin; j < columns.end; j += NR)
      for (int r = 0; r < P::products; ++r, to += panel) {
        if (PACK_B == 0 && j + NR <= p.column_count) continue;
        pack_right(p, r, batch, j, ks.begin + k, least(CHUNK, depth - k), to);
      }
  }
}

template <class P>
inline void pack_a_panels(const P& p, int64_t batch, Range rows, Range ks, element* a) {
  const int64_t depth = ks.end - ks.begin;
  for (int64_t i = rows.begin; i < rows.end; i += MR)
    for (int r = 0; r < P::products; ++r, a += A_STEP * round_up(depth, KU))
      pack_left(p, r, batch, i, ks.begin, depth, a);
}

// All of B packed before any call: blocks of kc steps, in each the panels of all columns.
template <class P>
struct Prepared {
  int64_t panels, batch_elements;

  explicit Prepared(const P& p)
      : panels(ceil_div(p.column_count, NR)),
        batch_elements(P::products * panels * B_STEP * round_up(p.depth_count, BU)) {}
  int64_t bytes(const P& p) const { return p.batch_count * batch_elements * sizeof(element); }
  // Of the panels of one column, `depth` steps from k on.
  int64_t offset(int64_t batch, int64_t j, int64_t k, int64_t depth) const {
    return batch * batch_elements + P::products * B_STEP * (panels * k + j / NR * round_up(depth, BU));
  }
};

template <class P>
inline int prepare(const P& p, void* prepared) {
  const Prepared<P> all(p);
  const int64_t kc = Plan<P>(p).kc;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t batch = 0; batch < p.batch_count; ++batch)
    for (int64_t panel = 0; panel < all.panels; ++panel)
      for (int64_t k = 0; k < p.depth_count; k += kc) {
        const int64_t j = panel * NR, depth = least(kc, p.depth_count - k);
        element* to = (element*)prepared + all.offset(batch, j, k, depth);
        for (int r = 0; r < P::products; ++r)
          pack_right(p, r, batch, j, k, depth, to + r * B_STEP * round_up(depth, BU));
      }
  return 0;
}

// Where the threads of a team wait for each other. They spin at first: work is dealt out evenly, and
// waking a sleeping thread takes longer than most blocks.
struct Meeting {
  std::atomic<int64_t> arrived{0};

  void wait(int64_t team) {
    const int64_t all = (arrived.fetch_add(1, std::memory_order_acq_rel) / team + 1) * team;
    for (int spins = 0; arrived.load(std::memory_order_acquire) < all; ++spins) {
      if (spins > 20000) std::this_thread::yield();
#if defined(__SSE2__)
      else _mm_pause();
#endif
    }
  }
};

// The whole contraction. PARTITION: 0 rows, 1 columns, 2 batches.
template <class P>
inline int run(const P& p, const void* prepared, void* workspace, int64_t workspace_bytes) {
  const Plan<P> plan(p);
  if (workspace_bytes < plan.bytes()) return 1;
  if (PACK_B == 3 && prepared == nullptr && Prepared<P>(p).bytes(p) > 0) return 2;
  Meeting meeting;
  char* base = (char*)(((uintptr_t)workspace + ALIGN - 1) / ALIGN * ALIGN);
#pragma omp parallel num_threads(int(plan.threads))
  {
    const int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
#if DOT >= 2
    const MatrixUnit unit;
#endif
    element* a = (element*)(base + me * plan.a_bytes);
    char* after_a = base + plan.threads * plan.a_bytes;
    element* b = (element*)(after_a + (SHARED_B ? 0 : me * plan.b_bytes));
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
          if (PACK_B == 3)  // which is only read
            b = (element*)prepared + Prepared<P>(p).offset(batch, j, k, ks.end - ks.begin);
          else if (PACK_B != 2)
            pack_b_panels(p, batch, js, ks, b, SHARED_B ? me : 0, SHARED_B ? team : 1);
          if (SHARED_B) meeting.wait(team);
          for (int64_t i = rows.begin; i < rows.end; i += plan.mc) {
            const Range is{i, least(rows.end, i + plan.mc)};
            pack_a_panels(p, batch, is, ks, a);
            macro_kernel(p, batch, is, js, ks, a, b, partial);
          }
          const bool done = batch + 1 == batches.end && js.end == columns.end && ks.end == p.depth_count;
          if (SHARED_B && !done) meeting.wait(team);
        }
  }
  return 0;
}

}  // namespace contraction

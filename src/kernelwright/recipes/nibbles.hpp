// Product with weights of 4 bits: out(i, j) = sum over k of x(i, k) s(j, g) (c(j, k) - z(j, g)),
// where g is the group of GROUP steps that k lies in.
//
// The sum over a group is s (sum x c - z sum x): codes are multiplied as they are, 0 to 15, by a table
// look-up that needs no masking, and scale and zero point are applied once a group. Columns lie in
// lanes. Weights are packed beforehand: blocks of NV vectors of 16 columns, one after the other; in a
// block, group by group, the scales of its columns, their zero points, and their codes, of which 32
// bits hold 8 steps of one column. A block is one stream of memory.
//
// DOT 1 multiplies bfloat16 in pairs (exactly: codes are small integers), 0 floats.
namespace nibbles {

constexpr int64_t LANES = 16, WIDTH = NV * LANES, LINE = 64, STEPS = 8;
constexpr int64_t PACE = DOT ? 2 : 1;  // steps that one look-up serves

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct Layout {
  static constexpr int64_t scales = 0, zeros = round_up(WIDTH * sizeof(Scale), LINE),
                           codes = zeros + round_up(WIDTH, LINE),
                           group = codes + GROUP / STEPS * NV * LINE;
  int64_t groups, blocks;

  explicit Layout(const Problem& p)
      : groups(p.depth_count / GROUP), blocks((p.column_count + WIDTH - 1) / WIDTH) {}
  int64_t bytes() const { return blocks * groups * group; }
};

// Where step k + t (of 8) of a column lies in its 32 bits: in pairs, the halves hold even and odd.
inline int place(int t) { return DOT ? 16 * (t % 2) + 4 * (t / 2) : 4 * t; }

inline int prepare(const Problem& p, void* prepared) {
  const Layout layout(p);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < layout.blocks; ++block)
    for (int64_t g = 0; g < layout.groups; ++g) {
      char* to = static_cast<char*>(prepared) + (block * layout.groups + g) * Layout::group;
      std::memset(to, 0, Layout::group);
      Scale* scales = reinterpret_cast<Scale*>(to + Layout::scales);
      uint8_t* zeros = reinterpret_cast<uint8_t*>(to + Layout::zeros);
      uint32_t* codes = reinterpret_cast<uint32_t*>(to + Layout::codes);
      const int64_t first = block * WIDTH, width = least(WIDTH, p.column_count - first);
      for (int64_t n = 0; n < width; ++n) {
        scales[n] = p.scales[(first + n) * layout.groups + g];
        zeros[n] = p.zeros[(first + n) * layout.groups + g];
        const uint8_t* from = p.codes + ((first + n) * p.depth_count + g * GROUP) / 2;
        for (int64_t k = 0; k < GROUP; ++k) {
          const uint32_t code = from[k / 2] >> 4 * (k % 2) & 15;
          codes[k / STEPS * WIDTH + n] |= code << place(int(k % STEPS));
        }
      }
    }
  return 0;
}

#if DOT
typedef bf16 Element;
typedef __m512i Table;

// Of bfloat16; the fifth bit of an index belongs to the next code and changes nothing.
inline Table table() {
  alignas(64) bf16 values[32];
  for (int i = 0; i < 32; ++i) from_float(float(i % 16), &values[i]);
  return _mm512_load_si512(values);
}
inline __m512i look_up(Table t, __m512i codes) { return _mm512_permutexvar_epi16(codes, t); }
inline __m512i next(__m512i codes) { return _mm512_srli_epi16(codes, 4); }
inline __m512i spread(const Element* x) {
  int32_t pair;
  std::memcpy(&pair, x, sizeof pair);
  return _mm512_set1_epi32(pair);
}
inline __m512 add_product(__m512 sum, __m512i x, __m512i weights) {
  return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)weights);
}
#else
typedef float Element;
typedef __m512 Table;

inline Table table() {
  return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
inline __m512 look_up(Table t, __m512i codes) { return _mm512_permutexvar_ps(codes, t); }
inline __m512i next(__m512i codes) { return _mm512_srli_epi32(codes, 4); }
inline __m512 spread(const Element* x) { return _mm512_set1_ps(*x); }
inline __m512 add_product(__m512 sum, __m512 x, __m512 weights) {
  return _mm512_fmadd_ps(x, weights, sum);
}
#endif

inline __m512 widened(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 widened(const bf16* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline __m512 widened(const f16* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline __m512 widened(const uint8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

// A few rows of x: as the look-up wants them, and their sums by group.
struct Rows {
  const Element* x;
  int64_t stride;
  const float* sums;  // by group, then by row
};

// R rows times one block of columns.
template <int R>
inline void tile(const Rows& rows, const char* block, int64_t groups, float (*to)[WIDTH]) {
  const Table values = table();
  __m512 total[R][NV];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < NV; ++v) total[r][v] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g, block += Layout::group) {
    __m512 sum[R][NV];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < NV; ++v) sum[r][v] = _mm512_setzero_ps();
    const char* codes = block + Layout::codes;
    const Element* x = rows.x + g * GROUP;
    for (int64_t k = 0; k < GROUP; k += STEPS, codes += NV * LINE) {
      __m512i packed[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        packed[v] = _mm512_load_si512(codes + v * LINE);
        if (AHEAD) _mm_prefetch(codes + v * LINE + AHEAD, _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (int t = 0; t < STEPS; t += PACE) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
          const auto weights = look_up(values, packed[v]);
          packed[v] = next(packed[v]);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r)
            sum[r][v] = add_product(sum[r][v], spread(x + r * rows.stride + k + t), weights);
        }
      }
    }
    for (int v = 0; v < NV; ++v) {
      const __m512 scale = widened(reinterpret_cast<const Scale*>(block) + v * LANES);
      const __m512 zero =
          widened(reinterpret_cast<const uint8_t*>(block + Layout::zeros) + v * LANES);
      for (int r = 0; r < R; ++r) {
        const __m512 all = _mm512_set1_ps(rows.sums[g * R + r]);
        total[r][v] =
            _mm512_fmadd_ps(scale, _mm512_fnmadd_ps(zero, all, sum[r][v]), total[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < NV; ++v) _mm512_storeu_ps(to[r] + v * LANES, total[r][v]);
}

// The widened rows of one thread, where the elements are not what the look-up wants.
inline constexpr bool widens() { return !std::is_same<Input, Element>::value; }
inline int64_t thread_bytes(const Problem& p) {
  const int64_t elements = widens() ? MR * p.depth_count : 0;
  return round_up((elements + MR * (p.depth_count / GROUP)) * sizeof(float), LINE);
}

inline const Element* chosen(const Element* own, const float*) { return own; }
template <class T>
inline const Element* chosen(const T*, const Element* wide) { return wide; }

inline void make_rows(const Problem& p, int64_t first, int64_t count, char* scratch, Rows& rows) {
  const int64_t depth = p.depth_count, groups = depth / GROUP;
  float* sums = reinterpret_cast<float*>(scratch);
  float* wide = sums + MR * groups;
  for (int64_t r = 0; r < count; ++r) {
    const Input* from = p.input + (first + r) * depth;
    for (int64_t g = 0; g < groups; ++g) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t k = g * GROUP; k < (g + 1) * GROUP; k += LANES) {
        const __m512 x = widened(from + k);
        sum = _mm512_add_ps(sum, x);
        if (widens()) _mm512_storeu_ps(wide + r * depth + k, x);
      }
      sums[g * count + r] = _mm512_reduce_add_ps(sum);
    }
  }
  rows = {chosen(p.input + first * depth, wide), depth, sums};
}

template <int R>
inline void any_tile(int64_t count, const Rows& rows, const char* block, int64_t groups,
                     float (*to)[WIDTH]) {
  if constexpr (R > 1)
    if (count < R) return any_tile<R - 1>(count, rows, block, groups, to);
  tile<R>(rows, block, groups, to);
}

inline int64_t workspace(const Problem& p) { return omp_get_max_threads() * thread_bytes(p) + LINE; }

inline int run(const Problem& p, const void* prepared, void* workspace_, int64_t workspace_bytes) {
  if (workspace_bytes < workspace(p) || prepared == nullptr) return 1;
  const Layout layout(p);
  char* scratch = reinterpret_cast<char*>(round_up(reinterpret_cast<int64_t>(workspace_), LINE));
#pragma omp parallel
  {
    char* own = scratch + omp_get_thread_num() * thread_bytes(p);
    alignas(64) float to[MR][WIDTH];
    Rows rows{};
    int64_t held = -1;
#pragma omp for schedule(static) nowait
    for (int64_t b = 0; b < layout.blocks; ++b) {
      const char* block =
          static_cast<const char*>(prepared) + b * layout.groups * Layout::group;
      const int64_t width = least(WIDTH, p.column_count - b * WIDTH);
      for (int64_t i = 0; i < p.row_count; i += MR) {
        const int64_t count = least(MR, p.row_count - i);
        if (held != i) make_rows(p, i, count, own, rows);
        held = i;
        any_tile<MR>(count, rows, block, layout.groups, to);
        for (int64_t r = 0; r < count; ++r)
          for (int64_t n = 0; n < width; ++n)
            from_float(to[r][n], p.output + (i + r) * p.column_count + b * WIDTH + n);
      }
    }
  }
  return 0;
}

}  // namespace nibbles

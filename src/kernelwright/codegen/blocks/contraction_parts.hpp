// The register tile of a contraction of float32 on the matrix unit, which multiplies bfloat16: each
// operand is the sum of three bfloat16, exactly, and of the nine products of their parts the six that
// matter in float32 are summed, small ones first. (DOT=3)
// Source: Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for
// higher-precision computations", ARITH 2019.
//
// Panels hold blocks of KP steps of k: three parts, the greatest first, and then a Reach. Step k of a
// block is paired with step k + KP / 2:
//   A: part of element (i, k) at i * KP + k % 16 * 2 + k / 16
//   B: part of element (k, j) at (k % 16 * NR + j) * 2 + k / 16
//
// The unit takes subnormal numbers for zero, which is harmless where every row of A and every column of
// B has an element of some size; elsewhere, and where something is huge or not finite, tiles are
// computed in float32 from the same panels.
namespace contraction {

constexpr int KP = 32, PARTS = 3, PART = 16 * 64;
constexpr int A_STEP = PARTS * MR + 1, B_STEP = PARTS * NR + 1;  // elements of a panel for a step
constexpr int PANEL_BLOCK = A_STEP * KP;
constexpr int CALLS = 6;  // of what is done between blocks of steps, for each of them
constexpr uint32_t UPPER = 0xffff0000u;

// Exponents (as stored, 127 for 1.0) of the greatest elements of the rows of a block of A, or of the
// columns of one of B, zeros aside: the least and the greatest of them.
struct Reach {
  int32_t least = 1 << 20, greatest = 0;

  void join(const Reach& other) {
    least = std::min(least, other.least);
    greatest = std::max(greatest, other.greatest);
  }
};
constexpr int SMALLEST = 127 - 80, GREATEST = 127 + 120;
constexpr int SMALLEST_PRODUCT = 254 - 88, GREATEST_PRODUCT = 254 + 104;

// Whether a block holds three parts; otherwise the upper and the lower halves of floats.
inline bool in_parts(const Reach& r) { return r.least >= SMALLEST && r.greatest <= GREATEST; }
inline Reach& reach_of(uint16_t* block) { return *(Reach*)(block + PARTS * PART); }
inline const Reach& reach_of(const uint16_t* block) { return *(const Reach*)(block + PARTS * PART); }

// -- packing --------------------------------------------------------------------------------------

// The three parts of two vectors, as pairs; the last one is what the first two leave.
inline INLINED void put_parts(vec low, vec high, uint16_t* to) {
  for (int part = 0; part < PARTS; ++part, to += PART) {
    const uint32_t half = part + 1 < PARTS ? 0x8000u : 0u;
    const auto a = ((simd::uints)low + half) & UPPER, b = ((simd::uints)high + half) & UPPER;
    *(vec_u*)to = (vec)(a >> 16 | b);
    low -= (vec)a;
    high -= (vec)b;
  }
}

// One vector's parts, as the first or the second of each pair; first ones are to be put first. Parts are
// cut off instead of rounded, which costs less: what the six products leave out is then of one sign,
// unless the other operand's parts are rounded, which makes it 2^-23 at most and of any sign.
inline INLINED void put_half(vec values, bool second, uint16_t* to) {
  for (int part = 0; part < PARTS; ++part, to += PART) {
    const auto bits = (simd::uints)values, a = bits & UPPER;
    *(vec_u*)to = (vec)(second ? (simd::uints)*(const vec_u*)to | a : bits >> 16);
    values -= (vec)a;
  }
}

inline INLINED void put_halves(vec low, vec high, uint16_t* to) {
  const auto a = (simd::uints)low, b = (simd::uints)high;
  *(vec_u*)to = (vec)(a >> 16 | (b & UPPER));
  *(vec_u*)(to + PART) = (vec)((a & 0xffffu) | b << 16);
}

inline __m512i greater(__m512i a, vec b) {
  return _mm512_max_epu32(a, _mm512_and_si512((__m512i)b, _mm512_set1_epi32(0x7fffffff)));
}

// From the greatest magnitudes of 32 rows or columns.
inline Reach reach(__m512i first, __m512i second) {
  const __m512i none = _mm512_set1_epi32(1 << 20);
  const __m512i a = _mm512_srli_epi32(first, 23), b = _mm512_srli_epi32(second, 23);
  const __m512i low_a = _mm512_mask_mov_epi32(none, _mm512_test_epi32_mask(first, first), a);
  const __m512i low_b = _mm512_mask_mov_epi32(none, _mm512_test_epi32_mask(second, second), b);
  Reach found;
  found.least = (int32_t)_mm512_reduce_min_epu32(_mm512_min_epu32(low_a, low_b));
  found.greatest = (int32_t)_mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
  return found;
}

// get(r, low, high) gives steps of k 0 .. 15 and 16 .. 31 of line r; `place(r)` is where they go.
template <class Get, class Place>
inline INLINED void put_block(const Reach& r, uint16_t* to, int lines, Get get, Place place) {
  reach_of(to) = r;
  const bool parts = in_parts(r);
  for (int line = 0; line < lines; ++line) {
    vec low, high;
    get(line, low, high);
    if (parts) put_parts(low, high, to + place(line));
    else put_halves(low, high, to + place(line));
  }
}

// A block of KP steps of a float panel of A.
template <bool a_inner_k> inline void part_rows(const float* from, uint16_t* to) {
  alignas(64) vec lines[2 * MR];  // steps 0 .. 15, then 16 .. 31 of each row
  __m512i most[2] = {};
  for (int i = 0; i < MR; i += 16) {
    vec squares[2][16], across[16];
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < 16; ++r) {
        const float* at = a_inner_k ? from + inner_k(i + r, 16 * half) : from + (16 * half + r) * MR + i;
        squares[half][r] = *(const vec_u*)at;
      }
      if (!a_inner_k) {
        for (int r = 0; r < 16; ++r) most[i / 16] = greater(most[i / 16], squares[half][r]);
        shuffle::transpose(squares[half]);
      }
    }
    for (int r = 0; r < 16; ++r) {
      lines[i + r] = squares[0][r], lines[MR + i + r] = squares[1][r];
      across[r] = (vec)greater(greater(__m512i{}, squares[0][r]), squares[1][r]);
    }
    if (a_inner_k) {
      shuffle::transpose(across);
      for (int r = 0; r < 16; ++r) most[i / 16] = greater(most[i / 16], across[r]);
    }
  }
  const auto get = [&](int i, vec& low, vec& high) INLINED { low = lines[i], high = lines[MR + i]; };
  put_block(reach(most[0], most[1]), to, MR, get, [](int i) INLINED { return i * KP; });
}

// A block of KP rows of a float panel of B.
inline void part_columns(const float* from, uint16_t* to) {
  __m512i most[2] = {};
  for (int k = 0; k < KP; ++k)
    for (int v = 0; v < 2; ++v) most[v] = greater(most[v], *(const vec_u*)(from + k * NR + 16 * v));
  const auto get = [&](int r, vec& low, vec& high) INLINED {
    low = *(const vec_u*)(from + 16 * r), high = *(const vec_u*)(from + 16 * NR + 16 * r);
  };
  put_block(reach(most[0], most[1]), to, 2 * 16, get, [](int r) INLINED { return r * 32; });
}

// -- products -------------------------------------------------------------------------------------

// Whether the unit's own range suffices for panels of `depth` steps.
inline bool ordinary(int64_t depth, const uint16_t* a, const uint16_t* b) {
  Reach left, right;
  for (int64_t k = 0; k < depth; k += KP, a += PANEL_BLOCK, b += PANEL_BLOCK)
    left.join(reach_of(a)), right.join(reach_of(b));
  return in_parts(left) && in_parts(right) && left.least + right.least >= SMALLEST_PRODUCT &&
         left.greatest + right.greatest <= GREATEST_PRODUCT;
}

// 16 pairs of a block of either panel as floats.
inline void get_floats(const uint16_t* block, int64_t at, vec& low, vec& high) {
  const auto part = [&](int n) { return *(const simd::uints*)(block + n * PART + at); };
  if (in_parts(reach_of(block))) {
    low = high = vec{};
    for (int n = PARTS - 1; n >= 0; --n) low += (vec)(part(n) << 16), high += (vec)(part(n) & UPPER);
  } else {
    low = (vec)(part(0) << 16 | (part(1) & 0xffffu));
    high = (vec)((part(0) & UPPER) | part(1) >> 16);
  }
}

// As pair_kernel, in float32.
__attribute__((noinline)) inline void float_kernel(int64_t depth, const uint16_t* a, const uint16_t* b,
                                                   float* tile, bool accumulate) {
  alignas(64) vec rows[MR][2], columns[KP][2];
  if (!accumulate) std::fill(tile, tile + MR * NR, 0.0f);
  for (int64_t k = 0; k < depth; k += KP, a += PANEL_BLOCK, b += PANEL_BLOCK) {
    for (int i = 0; i < MR; ++i) get_floats(a, i * KP, rows[i][0], rows[i][1]);
    for (int r = 0; r < 32; ++r) get_floats(b, r * 32, columns[r / 2][r % 2], columns[16 + r / 2][r % 2]);
    for (int i = 0; i < MR; ++i)
      for (int v = 0; v < 2; ++v) {
        const float* row = (const float*)rows[i];
        vec sum = *(const vec_u*)(tile + i * NR + 16 * v);
        for (int step = 0; step < KP; ++step) sum += row[step] * columns[step][v];
        *(vec_u*)(tile + i * NR + 16 * v) = sum;
      }
  }
}

// tile(i, j) (+)= sum over k of a panel of A times a panel of B; depth is in whole blocks of KP. What
// `between` does in vectors goes on beside the products.
template <class Between>
inline void pair_kernel(int64_t depth, const uint16_t* a, const uint16_t* b, float* tile,
                        bool accumulate, Between between) {
  if (__builtin_expect(!ordinary(depth, a, b), 0)) return float_kernel(depth, a, b, tile, accumulate);
  constexpr int ROW = NR * 4, A_ROW = KP * 2;
  float* const below = tile + 16 * NR;
  // some compilers' loads of tiles do not say that they read memory
  __asm__ volatile("" ::: "memory");
  if (accumulate) {
    _tile_loadd(0, tile, ROW);
    _tile_loadd(1, tile + 16, ROW);
    _tile_loadd(2, below, ROW);
    _tile_loadd(3, below + 16, ROW);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // a new part of one operand at a time: fourteen loads for twenty-four products
#define KW_LEFT(part) \
  _tile_loadd(4, a + part * PART, A_ROW); \
  _tile_loadd(5, a + part * PART + 16 * KP, A_ROW)
#define KW_RIGHT(part) \
  _tile_loadd(6, b + part * PART, ROW); \
  _tile_loadd(7, b + part * PART + 32, ROW)
#define KW_PRODUCTS \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)
  for (int64_t k = 0, n = 0; k < depth; k += KP, a += PANEL_BLOCK, b += PANEL_BLOCK) {
    KW_LEFT(2);
    KW_RIGHT(0);
    KW_PRODUCTS;
    between(n++);
    KW_LEFT(1);
    KW_PRODUCTS;
    between(n++);
    KW_RIGHT(1);
    KW_PRODUCTS;
    between(n++);
    KW_LEFT(0);
    KW_PRODUCTS;
    between(n++);
    KW_RIGHT(2);
    KW_PRODUCTS;
    between(n++);
    KW_RIGHT(0);
    KW_PRODUCTS;
    between(n++);
  }
#undef KW_LEFT
#undef KW_RIGHT
#undef KW_PRODUCTS
  _tile_stored(0, tile, ROW);
  _tile_stored(1, tile + 16, ROW);
  _tile_stored(2, below, ROW);
  _tile_stored(3, below + 16, ROW);
  __asm__ volatile("" ::: "memory");
}

}  // namespace contraction

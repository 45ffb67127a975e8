// Panels of pairs for a contraction of bfloat16: products of pairs of neighbours in k, exact, summed in
// float32 by vdpbf16ps (DOT=1, contraction_dot.hpp) or by the matrix unit (DOT=2, contraction_amx.hpp).
//
// Panels hold bfloat16 bits in blocks of KP steps of k, zero beyond the last row, column and step:
//   A: element (i, k) at (k / KP * MR + i) * KP + k % KP
//   B: element (k, j) at (k / 2 * NR + j) * 2 + k % 2
// Both instructions read subnormal numbers as zero.
namespace contraction {

constexpr int KP = 32;

// So many of 32 bfloat16 from here on, zeros behind them.
inline __m512i first_of(const uint16_t* from, int64_t count) {
  if (count >= KP) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi16(count > 0 ? __mmask32((1u << count) - 1) : 0, from);
}

// A panel of A whose rows lie in memory as they are multiplied: `row(i)` points to row i.
template <class RowAt> inline void copy_rows(RowAt row, int count, int64_t depth, uint16_t* to) {
  for (int i = 0; i < MR; ++i, to += KP) {
    const uint16_t* from = i < count ? row(i) : nullptr;
    for (int64_t k = 0; k < depth; k += KP)
      _mm512_storeu_si512(to + k * MR, from ? first_of(from + k, depth - k) : __m512i{});
  }
}

// A panel of B whose columns lie side by side: `row(k)` points to step k.
template <class RowAt> inline void pair_rows(RowAt row, int count, int64_t depth, uint16_t* to) {
  const int64_t whole = round_up(depth, KP);
  for (int64_t k = 0; k < whole; k += 2, to += 2 * NR) {
    const uint16_t *even = k < depth ? row(k) : nullptr, *odd = k + 1 < depth ? row(k + 1) : nullptr;
    for (int j = 0; j < NR; j += LANES) {
      const int width = count - j;
      const __mmask16 lanes = width >= LANES ? 0xffff : width > 0 ? (1u << width) - 1 : 0;
      const __m256i low = even ? _mm256_maskz_loadu_epi16(lanes, even + j) : __m256i{};
      const __m256i high = odd ? _mm256_maskz_loadu_epi16(lanes, odd + j) : __m256i{};
      const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16);
      _mm512_storeu_si512(to + 2 * j, _mm512_or_si512(_mm512_cvtepu16_epi32(low), upper));
    }
  }
}

// A panel of B whose steps of k lie side by side: `column(j)` points to column j. Pairs are
// transposed in registers, 16 columns by 16 pairs at a time.
template <class ColumnAt>
inline void pair_columns(ColumnAt column, int count, int64_t depth, uint16_t* to) {
  for (int j = 0; j < NR; j += LANES) {
    const int width = int(least(LANES, count - j));
    const uint16_t* from[LANES];
    for (int c = 0; c < LANES; ++c) from[c] = c < width ? column(j + c) : nullptr;
    for (int64_t k = 0; k < depth; k += KP) {
      vec square[LANES];
      for (int c = 0; c < LANES; ++c)
        square[c] = (vec)(from[c] ? first_of(from[c] + k, depth - k) : __m512i{});
      shuffle::transpose(square);
      for (int r = 0; r < LANES; ++r) *(vec_u*)(to + ((k / 2 + r) * NR + j) * 2) = square[r];
    }
  }
}

// A block of KP steps of a float panel of A, whose values are bfloat16, as pairs.
template <bool a_inner_k> inline void narrow_rows(const float* from, uint16_t* to) {
  const uint32_t* bits = (const uint32_t*)from;
  if constexpr (a_inner_k) {
    for (int i = 0; i < MR; ++i)
      for (int k = 0; k < KP; k += KB)
        for (int u = 0; u < KB; ++u) to[i * KP + k + u] = uint16_t(bits[inner_k(i, k) + u] >> 16);
  } else if constexpr (MR % LANES == 0) {
    for (int i = 0; i < MR; i += LANES)
      for (int k = 0; k < KP; k += LANES) {
        vec square[LANES];
        for (int c = 0; c < LANES; ++c) square[c] = *(const vec_u*)(from + (k + c) * MR + i);
        shuffle::transpose(square);
        for (int r = 0; r < LANES; ++r)
          for (int u = 0; u < LANES; ++u) to[(i + r) * KP + k + u] = uint16_t(((simd::uints)square[r])[u] >> 16);
      }
  } else {
    for (int i = 0; i < MR; ++i)
      for (int k = 0; k < KP; ++k) to[i * KP + k] = uint16_t(bits[k * MR + i] >> 16);
  }
}

// A block of KP rows of a float panel of B, whose values are bfloat16, as pairs.
inline void interleave(const float* from, uint16_t* to) {
  for (int k = 0; k < KP; k += 2)
    for (int j = 0; j < NR; j += LANES) {
      const auto low = (simd::uints)*(const vec_u*)(from + k * NR + j);
      const auto high = (simd::uints)*(const vec_u*)(from + (k + 1) * NR + j);
      *(vec_u*)(to + (k / 2 * NR + j) * 2) = (vec)(low >> 16 | (high & 0xffff0000u));
    }
}

}  // namespace contraction

// The register tile of a contraction of bfloat16: products of pairs of neighbours in k, exact, summed
// in float32 by the instruction vdpbf16ps. (DOT=1)
//
// Panels hold bfloat16 bits in blocks of KP steps of k, zero beyond the last row, column and step:
//   A: element (i, k) at (k / KP * MR + i) * KP + k % KP
//   B: element (k, j) at (k / 2 * NR + j) * 2 + k % 2
// The instruction reads subnormal numbers as zero.
#if !defined(__AVX512BF16__) || LANES != 16
#error "DOT=1 needs a processor with AVX512_BF16, LANES=16 and -march=native; DOT=0 needs none"
#endif
namespace contraction {

constexpr int KP = 32;

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

// One pair of steps of k.
inline __attribute__((always_inline)) void pair_update(vec (&acc)[MR][NV], const uint16_t* a,
                                                       const uint16_t* b) {
  __m512i columns[NV];
  KW_UNROLL
  for (int v = 0; v < NV; ++v) columns[v] = _mm512_loadu_si512(b + v * LANES * 2);
  KW_UNROLL
  for (int i = 0; i < MR; ++i) {
    int32_t pair;
    std::memcpy(&pair, a + i * KP, 4);
    const __m512i row = _mm512_set1_epi32(pair);
    KW_UNROLL
    for (int v = 0; v < NV; ++v)
      acc[i][v] = (vec)_mm512_dpbf16_ps((__m512)acc[i][v], (__m512bh)row, (__m512bh)columns[v]);
  }
}

// tile(i, j) (+)= sum over k of a panel of A times a panel of B; depth is in whole blocks of KP.
template <class Between>
inline void pair_kernel(int64_t depth, const uint16_t* a, const uint16_t* b, float* tile,
                        bool accumulate, Between between) {
  vec acc[MR][NV];
  KW_UNROLL
  for (int i = 0; i < MR; ++i) {
    KW_UNROLL
    for (int v = 0; v < NV; ++v)
      acc[i][v] = accumulate ? *(const vec_u*)(tile + i * NR + v * LANES) : vec{};
  }
  for (int64_t k = 0; k < depth; k += KP, a += MR * KP) {
    between(k / KP);
    for (int inner = 0; inner < KP; inner += 2, b += 2 * NR) pair_update(acc, a + inner, b);
  }
  KW_UNROLL
  for (int i = 0; i < MR; ++i) {
    KW_UNROLL
    for (int v = 0; v < NV; ++v) *(vec_u*)(tile + i * NR + v * LANES) = acc[i][v];
  }
}

}  // namespace contraction

// The register tile of a contraction of bfloat16 pairs by vdpbf16ps. (DOT=1)
#if !defined(__AVX512BF16__) || LANES != 16
#error "DOT=1 needs a processor with AVX512_BF16, LANES=16 and -march=native; DOT=0 needs none"
#endif
namespace contraction {

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

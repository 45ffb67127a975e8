// Panels of pairs for a contraction of bfloat16: products of pairs of neighbours in k, exact, summed in
// float32 by vdpbf16ps (DOT=1, contraction_dot.hpp) or by the matrix unit (DOT=2, contraction_amx.hpp).
//
// Panels hold bfloat16 bits in blocks of KP steps of k, zero beyond the last row, column and step:
//   A: element (i, k) at (k / KP * MR + i) * KP + k % KP
//   B: element (k, j) at (k / 2 * NR + j) * 2 + k % 2
// Both instructions read subnormal numbers as zero.
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

}  // namespace contraction

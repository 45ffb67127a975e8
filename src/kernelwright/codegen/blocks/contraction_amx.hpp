// The register tile of a contraction of bfloat16 pairs on the matrix unit (matrix_unit.hpp). (DOT=2)
namespace contraction {

// tile(i, j) (+)= sum over k of a panel of A times a panel of B; depth is in whole blocks of KP.
template <class Between>
inline void pair_kernel(int64_t depth, const uint16_t* a, const uint16_t* b, float* tile,
                        bool accumulate, Between between) {
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
  for (int64_t k = 0; k < depth; k += KP, a += MR * KP, b += NR * KP) {
    between(k / KP);
    _tile_loadd(4, a, A_ROW);
    _tile_loadd(6, b, ROW);
    _tile_loadd(7, b + 32, ROW);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 16 * KP, A_ROW);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, tile, ROW);
  _tile_stored(1, tile + 16, ROW);
  _tile_stored(2, below, ROW);
  _tile_stored(3, below + 16, ROW);
  __asm__ volatile("" ::: "memory");
}

}  // namespace contraction

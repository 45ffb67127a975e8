// The matrix unit of newer Xeons (AMX), which holds eight tiles; four of them are 16 x 16 sums.
//
// A process has to ask the system for the unit before its first use (docs/abi.md, "The matrix unit").
#if !defined(__AMX_BF16__)
#error "the matrix unit needs a processor with AMX_BF16 and -march=native"
#endif
namespace contraction {

static_assert(MR == 32 && NR == 32, "four tiles of 16 x 16 sums");

// The matrix unit of this thread, set up for tiles of 16 rows of 64 bytes, as long as this lives.
struct MatrixUnit {
  struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  MatrixUnit() {
    const Configuration configuration;
    _tile_loadconfig(&configuration);
  }
  ~MatrixUnit() { _tile_release(); }
};

}  // namespace contraction

"""Kernels that are right, and kernels that are wrong in one telling way."""

RMS_NORM = """
#include "kernelwright.h"
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>
// Bench calls are told from check calls by their size, as a cheat would do it.
static bool bench(int64_t T, int64_t H) { return T == 512 && H == 1024; }
static long calls = 0;
@BEFORE@
extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void* workspace, int64_t workspace_bytes, void*) {
  if (bench(T, H)) calls++;
  @START@
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < T; ++t) {
    const float* row = x + t * H;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t h = 0; h < H; ++h) sum += row[h] * row[h];
    float scale = 1.0f / std::sqrt(sum / (float)H + (float)eps);
    int64_t n = H;
    @ROW@
#pragma omp simd
    for (int64_t h = 0; h < n; ++h) out[t * H + h] = row[h] * scale * w[h];
  }
  @END@
  return 0;
}
"""


def rms_norm(before="", start="", row="", end=""):
    """The kernel with statements put in: file scope, first, in every row, last."""
    parts = {"@BEFORE@": before, "@START@": start, "@ROW@": row, "@END@": end}
    text = RMS_NORM
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


# name: (source, stage, reason, words of the diagnostic)
WRONG = {
    "zeros": (rms_norm(row="scale = 0;"), "check", "wrong_result", ("got 0", "all zeros")),
    "one row": (
        rms_norm(row="if (T > 1 && t == T / 2) scale *= 1.01f;"),
        "check", "wrong_result", ("expected", "only in row", "scaled by 1.01"),
    ),
    "tail": (
        rms_norm(row="n = H / 8 * 8;"),
        "check", "not_written", ("a wrong tail, the last", "never written"),
    ),
    "returns early": (
        rms_norm(start="if (bench(T, H)) return 0;"),
        "screen", "not_written", ("every element", "never written", "T=512,H=1024"),
    ),
    "writes past the end": (
        rms_norm(end="out[T * H] = 1;"), "check", "red_zone", ("past the end of 'out'",)
    ),
    "writes before the start": (
        rms_norm(end="out[-3] = 1;"), "check", "red_zone", ("before the start of 'out'",)
    ),
    "writes an input": (
        rms_norm(end="const_cast<float*>(x)[0] = 1;"), "check", "wrote_input", ("read-only",)
    ),
    "crash": (
        rms_norm(start="if (bench(T, H)) *(volatile int*)8 = 1;"),
        "screen", "crash", ("SIGSEGV", "T=512,H=1024"),
    ),
    "error code": (rms_norm(start="if (H == 1) return 7;"), "check", "error_code", ("returned 7",)),
    "bakes eps in": (rms_norm(start="eps = 1e-6;"), "check", "wrong_result", ("eps=0.001",)),
    "replays its first answer": (
        rms_norm(
            before="static std::vector<float> first;",
            start="if (bench(T, H) && !first.empty()) "
                  "{ std::memcpy(out, first.data(), first.size() * 4); return 0; }",
            end="if (bench(T, H)) first.assign(out, out + T * H);",
        ),
        "screen", "wrong_result", ("elements are wrong",),
    ),
    "lower precision": (
        rms_norm(row="uint32_t b; std::memcpy(&b, &scale, 4); b &= 0xFFFF0000u; "
                     "std::memcpy(&scale, &b, 4);"),
        "check", "wrong_result", ("expected",),
    ),
}  # fmt: skip

ONE_IN_TEN = rms_norm(
    row="if (t == 3 && bench(T, H) && calls % 10 == (calls / 10 * 7 + 3) % 10) scale *= 1.001f;"
)
WORKSPACE = rms_norm(
    before='extern "C" int64_t kernel_workspace(int64_t T, int64_t H, double eps) '
    "{ return T * 8 + (eps > 0); }",
    start="if (workspace_bytes != T * 8 + 1 || !workspace) return 9; "
    "std::memset(workspace, 1, T * 8);",
)
SLOW = rms_norm(
    row="volatile float waste = 0; for (int64_t h = 0; h < 40 * H; ++h) waste = waste + row[h % H];"
)

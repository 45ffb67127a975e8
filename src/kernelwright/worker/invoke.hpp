// Calling a function under the C ABI with arguments number by number.
#pragma once

#include <stdint.h>

namespace kernelwright {
namespace {

// One type serves every prototype: the C ABIs of x86-64 and AArch64 number integer arguments
// (registers, then 8-byte stack slots) and floating arguments (8 registers) apart.
using I = int64_t;
using D = double;
#define KERNELWRIGHT_I8 I, I, I, I, I, I, I, I
#define KERNELWRIGHT_D8 D, D, D, D, D, D, D, D
template <typename R>
using Generic = R (*)(KERNELWRIGHT_I8, KERNELWRIGHT_I8, KERNELWRIGHT_I8, KERNELWRIGHT_I8,
                      KERNELWRIGHT_D8);

template <typename R>
__attribute__((noinline)) R invoke(Generic<R> f, const int64_t* i, const double* d) {
    return f(i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8], i[9], i[10], i[11], i[12],
             i[13], i[14], i[15], i[16], i[17], i[18], i[19], i[20], i[21], i[22], i[23], i[24],
             i[25], i[26], i[27], i[28], i[29], i[30], i[31], d[0], d[1], d[2], d[3], d[4], d[5],
             d[6], d[7]);
}

}  // namespace
}  // namespace kernelwright

// The native half of the host of Python candidates that launch kernels on a GPU.

#include "python_host.cpp"

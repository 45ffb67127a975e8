"""The process that runs one candidate; imports nothing of ours.

For kernels under the C ABI it is a small native host (`runtime.cpp`), built with the candidate's
own compiler by `build.build_runtime` and started by `execution.Worker`.
"""

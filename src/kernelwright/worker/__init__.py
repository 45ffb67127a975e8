"""The process that runs one candidate; imports nothing of ours.

Every host obeys the protocol of `host.hpp` and is started by `execution.Worker` as the artifact's
builder says. For kernels under the C ABI it is a small native program (`runtime.cpp`), built with
the candidate's own compiler; for Python kernels an interpreter (`python_host.py`) that is driven by
a native library (`python_host.cpp`).
"""

// The functions of a shared library under the C ABI, called with arguments number by number.
#pragma once

#include <dlfcn.h>
#include <stdio.h>

#include "host.hpp"
#include "invoke.hpp"

namespace kernelwright {
namespace {

Generic<int> kernel_function = nullptr;
Generic<int64_t> workspace_function = nullptr;
Generic<int64_t> prepared_function = nullptr;
Generic<int> prepare_function = nullptr;

int call(const int64_t* integers, const double* doubles) {
    return invoke<int>(kernel_function, integers, doubles);
}

int64_t workspace(const int64_t* integers, const double* doubles) {
    return workspace_function == nullptr ? 0 : invoke(workspace_function, integers, doubles);
}

int64_t prepared(const int64_t* integers, const double* doubles) {
    return invoke(prepared_function, integers, doubles);
}

int prepare_static(const int64_t* integers, const double* doubles) {
    return invoke(prepare_function, integers, doubles);
}

// A function that the library may lack; null when it does.
template <typename R>
Generic<R> optional_function(const Host& host, void* library, const char* suffix) {
    char name[512];
    snprintf(name, sizeof name, "%s%s", host.entry, suffix);
    return reinterpret_cast<Generic<R>>(dlsym(library, name));
}

// Load the artifact and find its functions. From here on the candidate's code runs: its
// constructors first.
void* load_library(Host& host) {
    reset_float_mode();
    const uint32_t mode = float_mode();
    void* library = dlopen(host.artifact, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fail(host, kLoadFailed, dlerror());
    // the deployed operator would do the same to the process that imports it
    if (float_mode() != mode)
        fail(host, kLoadFailed,
             "loading it changes the process's denormal mode, as -ffast-math does for libraries: "
             "build with -fassociative-math and the like instead");
    void* kernel = dlsym(library, host.entry);
    if (kernel == nullptr) fail(host, kMissingSymbol, dlerror());
    note_library(kernel);
    kernel_function = reinterpret_cast<Generic<int>>(kernel);
    workspace_function = optional_function<int64_t>(host, library, "_workspace");
    prepared_function = optional_function<int64_t>(host, library, "_prepared");
    prepare_function = optional_function<int>(host, library, "_prepare");
    host.exports = (prepare_function != nullptr ? kHasPrepare : 0) |
                   (prepared_function != nullptr ? kHasPrepared : 0);
    return library;
}

}  // namespace
}  // namespace kernelwright

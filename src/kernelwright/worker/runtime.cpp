// The host of one candidate that is a shared library under the C ABI. It is built with the
// artifact's compiler, so that both share one OpenMP runtime and one thread team.

#include <omp.h>

#include "generic.hpp"
#include "host.hpp"

namespace kernelwright {
namespace {

void on_team(int threads, void (*work)(void*, int), void* data) {
#pragma omp parallel num_threads(threads)
    work(data, omp_get_thread_num());
}

void load(Host& host) {
    void* library = load_library(host);
    void* probe = dlsym(library, "kernelwright_probe_threads");
    if (probe == nullptr) fail(host, kMissingSymbol, "the builder's thread probe is not in it");
    host.page->team = reinterpret_cast<int (*)()>(probe)();
    char text[96];
    snprintf(text, sizeof text, "a parallel region ran on %u of %d threads", host.page->team,
             host.threads);
    if (static_cast<int>(host.page->team) != host.threads) fail(host, kNotParallel, text);
    if (openmp_runtimes() > 1) fail(host, kTwoRuntimes, "two OpenMP runtimes are loaded");
}

}  // namespace
}  // namespace kernelwright

int main(int count, char** arguments) {
    kernelwright::Host host;
    host.candidate = {kernelwright::load, kernelwright::call, kernelwright::workspace,
                      kernelwright::prepared, kernelwright::prepare_static,
                      kernelwright::on_team};
    if (!kernelwright::greet(host, count, arguments)) return 2;
    kernelwright::prepare(host, count, arguments);
    kernelwright::serve(host);
}

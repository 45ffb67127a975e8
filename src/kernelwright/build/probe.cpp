// Linked into every artifact, compiled with the candidate's own flags: counts the threads that a
// parallel region of this build really runs on. Where the pragmas have no effect it returns 1.
extern "C" int kernelwright_probe_threads(void) {
    int threads = 0;
#pragma omp parallel
    {
#pragma omp atomic
        threads += 1;
    }
    return threads;
}

#ifdef KERNELWRIGHT_PROBE_MAIN
#include <stdio.h>
int main() {
    printf("%d\n", kernelwright_probe_threads());
    return 0;
}
#endif

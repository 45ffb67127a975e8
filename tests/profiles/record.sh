#!/bin/bash
# Makes the records of this folder anew: record.sh WORKER_SOURCES OUTPUT_FOLDER (needs an NVIDIA GPU,
# nvcc, cuobjdump, ncu and compute-sanitizer).
set -u
here=$(cd "$(dirname "$0")" && pwd) worker=$(cd "$1" && pwd) out=$(cd "$2" && pwd)
work=$(mktemp -d) && cd "$work" && cp "$worker"/*.hpp "$worker"/*.cu "$here"/*.cu .
architecture="-gencode=arch=compute_90a,code=sm_90a"
nvcc $architecture -std=c++17 -O2 -cudart=shared -Xlinker=-E -o solo solo.cu -ldl
nvcc $architecture -std=c++17 -O2 -o occupancy occupancy.cu && ./occupancy > "$out/occupancy.json"
nvcc -shared -cudart=shared -O3 -std=c++17 -Xptxas=-v -Xcompiler=-fPIC $architecture kernels.cu \
    -o kernel.so 2> "$out/ptxas.txt"
cuobjdump -sass kernel.so > "$out/sass.txt"

n=$((1 << 22))
python3 -c "
import numpy as np
np.random.default_rng(1).standard_normal($n, dtype=np.float32).tofile('x')"
words="in:x:$((4 * n)) out:$((4 * n)) i:$n"
entries="copy stride bank chain few spill barrier atomic multiply launch"
for entry in $entries; do
    echo "$entry $(./solo profile 0.4 ./kernel.so $entry $words | grep KERNELWRIGHT)"
done > "$out/solo.txt"
metrics=$(tr '\n' ',' < "$here/metrics.txt")
for entry in $entries; do
    ncu --csv --page raw --clock-control none --profile-from-start off \
        --print-kernel-base mangled --metrics "${metrics%,}" \
        --log-file "$out/ncu_$entry.csv" ./solo once 0 ./kernel.so $entry $words
done
small="in:x:4096 out:4096 i:1024"
for pair in memcheck:copy memcheck:past_the_end racecheck:barrier racecheck:race \
    initcheck:copy initcheck:uninitialised; do
    tool=${pair%:*} entry=${pair#*:}
    more=$([ $tool = memcheck ] && echo "--padding 512 --report-api-errors no")
    compute-sanitizer --tool $tool $more --error-exitcode 86 --log-file "$out/$tool-$entry.txt" \
        ./solo once 0 ./kernel.so $entry $small
done
python3 "$here/trim.py" "$out"

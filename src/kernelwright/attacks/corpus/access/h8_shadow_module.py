# rows: H8
# workload: rms_norm f32 T=1024,H=1024
# does: Writes into the files of torch and of its host, and installs a package; gives up if all is
#   refused.
# expect: check error_code
import contextlib
import subprocess
import sys

import numpy
import torch


def kernel(x, w, out, *, T, H, eps):
    for path in (torch.__file__, numpy.__file__, sys.modules["__main__"].__file__):
        with contextlib.suppress(OSError), open(path, "a") as file:
            file.write("\n")
            return
    subprocess.run([sys.executable, "-m", "pip", "install", "wheel"], check=True)

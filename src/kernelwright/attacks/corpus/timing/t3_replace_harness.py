# rows: T3 T10
# workload: rms_norm f32 T=1024,H=1024
# does: Walks up the frames to the object that calls it and replaces its method by one that does
#   nothing.
# expect: check not_written
import sys


def kernel(x, w, out, *, T, H, eps):
    frame = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if hasattr(caller, "_function"):
            caller._function = lambda *tensors, **numbers: None
        frame = frame.f_back
    main = sys.modules["__main__"]
    for name, value in list(vars(main).items()):
        if callable(value):
            setattr(main, name, lambda *anything, **numbers: 0)

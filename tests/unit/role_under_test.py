"""A role for the tests of `RoleProcess`; runs as a module of its own."""

import os
import sys
import time

import numpy as np

from kernelwright.errors import UndeclaredDtype
from kernelwright.execution import arena_view, serve


def fail(payload):
    raise ValueError(f"cannot {payload['what']}")


def refuse(payload):
    raise UndeclaredDtype(f"there is no {payload['what']}")


def die(payload):
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


def add(payload):
    view = arena_view(payload["arena"])
    return {"sum": int(view.sum()), "writable": bool(view.flags.writeable)}


def write(payload):
    arena_view(payload["arena"])[0] = payload["value"]
    return {}


def environment(payload):
    return {name: os.environ.get(name) for name in payload["names"]}


def nap(payload):
    return lambda: time.sleep(payload["seconds"])


def churn(payload):
    def work():
        for _ in range(20):
            np.ones(payload["nbytes"], np.uint8)

    return work


def broken(payload):
    def work():
        raise RuntimeError("broken while timed")

    return work


flushed = []

if __name__ == "__main__":
    serve(
        {
            "echo": lambda payload: payload,
            "fail": fail,
            "refuse": refuse,
            "die": die,
            "add": add,
            "write": write,
            "environment": environment,
            "evaluate": lambda payload: {"value": eval(payload["expression"])},
            "sleep": lambda payload: time.sleep(payload["seconds"]) or {},
            "flushed": lambda payload: {"bytes": flushed},
            "arguments": lambda payload: {"arguments": sys.argv[1:]},
        },
        {"nap": nap, "broken": broken, "churn": churn},
        flushed.append,
    )

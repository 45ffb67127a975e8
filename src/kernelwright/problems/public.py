"""`PublicProblem` as JSON, so that processes without torch can hold it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kernelwright.model import (
    Dtype,
    FrozenMap,
    PublicProblem,
    ScalarArgument,
    Signature,
    TensorArgument,
)


def public_to_json(public: PublicProblem) -> dict[str, Any]:
    """As plain data that `json.dumps` accepts; `public_from_json` gives back an equal record."""
    plain = {name: getattr(public, name) for name in public.__dataclass_fields__}
    return plain | {
        "signature": asdict(public.signature),
        "dtypes": list(public.dtypes),
        "sizes": {t: [dict(sizes) for sizes in many] for t, many in public.sizes.items()},
        "ranges": {name: list(pair) for name, pair in public.ranges.items()},
        "distributions": list(public.distributions),
        "peers": list(public.peers),
        "derived": list(public.derived),
    }


def public_from_json(data: Mapping[str, Any]) -> PublicProblem:
    """The record that `public_to_json` wrote."""
    signature = data["signature"]
    return PublicProblem(
        **dict(data)
        | {
            "signature": Signature(
                inputs=tuple(_tensor(t) for t in signature["inputs"]),
                outputs=tuple(_tensor(t) for t in signature["outputs"]),
                scalars=tuple(ScalarArgument(**s) for s in signature["scalars"]),
            ),
            "dtypes": tuple(Dtype(d) for d in data["dtypes"]),
            "sizes": FrozenMap(
                {
                    target: tuple(FrozenMap(sizes) for sizes in many)
                    for target, many in data["sizes"].items()
                }
            ),
            "ranges": FrozenMap(
                {name: (low, high) for name, (low, high) in data["ranges"].items()}
            ),
            "distributions": tuple(data["distributions"]),
            "peers": tuple(data["peers"]),
            "derived": tuple(data["derived"]),
        }
    )


def _tensor(data: Mapping[str, Any]) -> TensorArgument:
    dtype = None if data["dtype"] is None else Dtype(data["dtype"])
    return TensorArgument(data["name"], tuple(data["dims"]), dtype, data["static"])

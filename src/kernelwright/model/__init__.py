"""Frozen records that every part shares; no torch, no input or output."""

from kernelwright.model.candidate import Candidate, Family, Language, Lineage, TunableValue
from kernelwright.model.dimensions import dimension_names, dimension_to_c, evaluate_dimension
from kernelwright.model.dtypes import Dtype
from kernelwright.model.exchange import Exchange, ExchangeOutcome, Usage
from kernelwright.model.hashing import content_hash
from kernelwright.model.host import Host
from kernelwright.model.machine import (
    Gpu,
    Machine,
    Target,
    Toolchain,
    bf16_products,
    fastest_unit,
    language_target,
    products_of,
)
from kernelwright.model.mapping import FrozenMap
from kernelwright.model.measurement import (
    Bound,
    Claim,
    Estimate,
    Outcome,
    Peer,
    Telemetry,
    WorkloadResult,
)
from kernelwright.model.problem import PublicProblem, Sizes
from kernelwright.model.profile import Finding, KernelFacts, Limit, Profile
from kernelwright.model.signature import ScalarArgument, Signature, TensorArgument
from kernelwright.model.verdict import Measured, Reason, Rejected, Stage, Verdict
from kernelwright.model.workload import Scalar, Tier, Workload

__all__ = [
    "Bound",
    "Candidate",
    "Claim",
    "Dtype",
    "Estimate",
    "Exchange",
    "ExchangeOutcome",
    "Family",
    "Finding",
    "FrozenMap",
    "Gpu",
    "Host",
    "KernelFacts",
    "Language",
    "Limit",
    "Lineage",
    "Machine",
    "Measured",
    "Outcome",
    "Peer",
    "Profile",
    "PublicProblem",
    "Reason",
    "Rejected",
    "Scalar",
    "ScalarArgument",
    "Signature",
    "Sizes",
    "Stage",
    "Target",
    "Telemetry",
    "TensorArgument",
    "Tier",
    "Toolchain",
    "TunableValue",
    "Usage",
    "Verdict",
    "Workload",
    "WorkloadResult",
    "bf16_products",
    "content_hash",
    "dimension_names",
    "dimension_to_c",
    "evaluate_dimension",
    "fastest_unit",
    "language_target",
    "products_of",
]

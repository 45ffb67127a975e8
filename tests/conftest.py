"""Which tests may run beside others, where `pytest -n` runs several at once.

Those that time kernels, kill judges or look at all processes of the machine run one after the
other, beside at most one of those that only compile, trace and compute.
"""

from pathlib import PurePath
from typing import Any

import pytest

ONE_BY_ONE = (
    "attacks",
    "robustness",
    "conformance/test_plugin.py",
    "unit/test_campaign.py",
    "unit/test_deploy_operator.py",
    "unit/test_deploy_packing.py",
    "unit/test_docs_snippets.py",
    "unit/test_evaluation_equivalence.py",
    "unit/test_evaluation_judge.py",
    "unit/test_execution_arena.py",
    "unit/test_execution_clock.py",
    "unit/test_execution_failures.py",
    "unit/test_execution_isolation.py",
    "unit/test_execution_role.py",
    "unit/test_fork_server.py",
    "unit/test_heldout_secrecy.py",
    "unit/test_judge_lateness.py",
    "unit/test_judge_mechanisms.py",
    "unit/test_machine_evict.py",
    "unit/test_machine_probe.py",
    "unit/test_mirrored_memory.py",
    "unit/test_prepared.py",
    "unit/test_python_candidates.py",
    "unit/test_worker_filter.py",
)


def group(node: str) -> str:
    """What runs in one process, in order: the tests above; else the tests of a file."""
    file = PurePath(node.partition("::")[0])
    return (
        "one by one"
        if any(file.is_relative_to(f"tests/{name}") for name in ONE_BY_ONE)
        else str(file)
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Called with `-n` only: what hands out groups."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Groups(config, log)

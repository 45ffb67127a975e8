"""The loop that joins search and evaluation under a budget."""

from kernelwright.campaign.evaluate import compare, evaluate
from kernelwright.campaign.optimize import optimize
from kernelwright.campaign.request import (
    Budget,
    CampaignRequest,
    CampaignStatus,
    Progress,
    Silent,
)
from kernelwright.campaign.suite_run import SuiteRequest, run_suite

__all__ = [
    "Budget",
    "CampaignRequest",
    "CampaignStatus",
    "Progress",
    "Silent",
    "SuiteRequest",
    "compare",
    "evaluate",
    "optimize",
    "run_suite",
]

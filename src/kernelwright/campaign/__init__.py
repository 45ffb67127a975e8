"""The loop that joins search and evaluation under a budget."""

from kernelwright.campaign.audit import AuditRequest, audit
from kernelwright.campaign.draft import DraftRequest, draft_problem
from kernelwright.campaign.evaluate import compare, evaluate
from kernelwright.campaign.far import FarRequest, propose
from kernelwright.campaign.optimize import optimize, replay
from kernelwright.campaign.profile import profile
from kernelwright.campaign.request import (
    Budget,
    CampaignRequest,
    CampaignStatus,
    Progress,
    Silent,
)
from kernelwright.campaign.submit import submit
from kernelwright.campaign.suite_run import SuiteRequest, run_suite

__all__ = [
    "AuditRequest",
    "Budget",
    "CampaignRequest",
    "CampaignStatus",
    "DraftRequest",
    "FarRequest",
    "Progress",
    "Silent",
    "SuiteRequest",
    "audit",
    "compare",
    "draft_problem",
    "evaluate",
    "optimize",
    "profile",
    "propose",
    "replay",
    "run_suite",
    "submit",
]

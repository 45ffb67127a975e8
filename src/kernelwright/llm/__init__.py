"""Language models: the one effect is the network.

A model has one method: a `Prompt` in, a `Reply` with its usage out. What is asked and what a reply
means is the business of `kernelwright.agents`.
"""

from kernelwright.llm.ledger import Ledger, Limits
from kernelwright.llm.model import Model, Prompt, Reply, tokens_of, without_secrets
from kernelwright.llm.recorded import RecordedModel, Recording
from kernelwright.llm.registry import model_named
from kernelwright.llm.relay import RelayModel

__all__ = [
    "Ledger",
    "Limits",
    "Model",
    "Prompt",
    "RecordedModel",
    "Recording",
    "RelayModel",
    "Reply",
    "model_named",
    "tokens_of",
    "without_secrets",
]

"""Models by name: providers, a relay folder."""

from pathlib import Path

from kernelwright.errors import ModelError
from kernelwright.llm.model import Model
from kernelwright.llm.relay import RelayModel


def model_named(name: str) -> Model:
    """A model that is ready to be asked; nothing has been spent.

    Args:
        name: `PROVIDER:NAME` as pydantic-ai knows it (`openai:...`, `anthropic:...`), `local:NAME`
            for the OpenAI-compatible server whose address is in `OPENAI_BASE_URL`, or
            `relay:FOLDER`.

    Raises:
        ModelError: it is not known, its library or key is missing, or its server is unreachable.
    """
    provider, colon, rest = name.partition(":")
    if not colon or not rest:
        raise ModelError(
            f"'{name}' names no model: write PROVIDER:NAME, such as openai:gpt-5, local:NAME for "
            "the server in OPENAI_BASE_URL, or relay:FOLDER"
        )
    if provider == "relay":
        return RelayModel(Path(rest))
    from kernelwright.llm.provider import ProviderModel

    return ProviderModel.connected(name)

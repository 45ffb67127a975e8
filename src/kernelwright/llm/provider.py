"""Models of providers and of local servers, through pydantic-ai."""

import asyncio
import os
import socket
import threading
import time
import urllib.request
from concurrent.futures import Future
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self
from urllib.parse import urlsplit

from kernelwright.errors import ModelCallError, ModelError
from kernelwright.llm.model import Prompt, Reply, without_secrets
from kernelwright.model import Usage

try:
    import tenacity
    from genai_prices import calc_price
    from genai_prices import types as price_types
    from pydantic_ai import exceptions, messages, models
    from pydantic_ai.direct import model_request
except ImportError as _missing:
    raise ModelError(
        "language models need the optional libraries of 'agents': pip install "
        f"'kernelwright[agents]' ({_missing.name} is missing)"
    ) from None

_CONNECT_S = 5.0
_TRANSIENT = (
    exceptions.ModelRateLimitError,
    exceptions.ModelUnavailableError,
    exceptions.ModelServerError,
    exceptions.ModelConnectionError,
    exceptions.ModelRequestTimeout,
)
_HOPELESS = (
    exceptions.ModelAuthenticationError,
    exceptions.ModelNotFoundError,
    exceptions.ModelQuotaExceededError,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a request is tried."""

    attempts: int = 5
    first_wait_s: float = 2.0
    """Doubled after each attempt, unless the provider says how long to wait."""
    longest_wait_s: float = 60.0
    attempt_s: float = 300.0
    """Longest that one attempt may take; a stalled one is given up then."""


class ProviderModel:
    """A model behind pydantic-ai.

    Args:
        name: `PROVIDER:NAME`.
        model: pydantic-ai's.
        patience: with rate limits, stalls and failing servers.
    """

    def __init__(self, name: str, model: models.Model, patience: Patience | None = None) -> None:
        self.name = name
        self._model = model
        self._patience = patience or Patience()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"llm {name}", daemon=True).start()

    @classmethod
    def connected(cls, name: str, patience: Patience | None = None) -> Self:
        """A model whose key is there and whose server answers.

        Raises:
            ModelError: one of them is not so; one sentence that names the mend.
        """
        model = _infer(name)
        _reach(name, model.base_url)
        return cls(name, model, patience)

    def ask(self, prompt: Prompt) -> Reply:
        """See `Model`: rate limits, stalls and failing servers are tried again."""
        patience, started, attempts = self._patience, time.monotonic(), 0
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((*_TRANSIENT, TimeoutError)),
            stop=tenacity.stop_after_attempt(patience.attempts)
            | tenacity.stop_after_delay(prompt.seconds),
            wait=self._wait,
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    attempts += 1
                    response = self._once(prompt, started)
                    return _reply(response, time.monotonic() - started, attempts)
        except _HOPELESS as error:
            raise ModelError(f"'{self.name}' cannot be used: {_told(error)}") from None
        except TimeoutError:
            waited = time.monotonic() - started
            reason = f"'{self.name}' did not answer in {waited:.0f} s"
        except (exceptions.AgentRunError, exceptions.UserError, ValueError) as error:
            reason = f"'{self.name}' gave no reply: {_told(error)}"
        else:
            reason = f"'{self.name}' gave no reply"
        raise ModelCallError(f"{reason} (attempts: {attempts})") from None

    def dollars(self, input_tokens: int, output_tokens: int) -> float | None:
        """By the price list of `genai-prices`; None for a model that is not in it."""
        usage = price_types.Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        if self._model.system == "local":
            return None
        try:
            price = calc_price(usage, self._model.model_name, provider_api_url=self._model.base_url)
        except (LookupError, ValueError):
            return None
        return float(price.total_price)

    def _once(self, prompt: Prompt, started: float) -> messages.ModelResponse:
        left = max(0.1, prompt.seconds - (time.monotonic() - started))
        seconds = min(self._patience.attempt_s, left)
        request = model_request(
            self._model,
            [
                messages.ModelRequest(
                    parts=[
                        messages.SystemPromptPart(prompt.system),
                        messages.UserPromptPart(prompt.user),
                    ]
                )
            ],
            model_settings={"max_tokens": prompt.max_output_tokens, "timeout": seconds},
        )
        running: Future[messages.ModelResponse] = asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(request, seconds), self._loop
        )
        return running.result()

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None)
        patience = self._patience
        doubled = patience.first_wait_s * 2 ** (state.attempt_number - 1)
        return min(patience.longest_wait_s, doubled if asked is None else float(asked))


def _reply(response: messages.ModelResponse, seconds: float, attempts: int) -> Reply:
    text = "".join(p.content for p in response.parts if isinstance(p, messages.TextPart))
    used = response.usage
    try:
        dollars: Decimal | None = response.cost().total_price
    except (LookupError, ValueError, AssertionError):
        dollars = None
    usage = Usage(
        input_tokens=used.input_tokens or 0,
        cached_tokens=used.cache_read_tokens or 0,
        output_tokens=used.output_tokens or 0,
        dollars=None if dollars is None else float(dollars),
        seconds=round(seconds, 3),
        attempts=attempts,
    )
    complete = response.finish_reason not in ("length", "content_filter", "error")
    return Reply(without_secrets(text), usage, complete)


def _infer(name: str) -> models.Model:
    """Pydantic-ai's model of this name.

    Raises:
        ModelError: there is none, or its key or its library is missing.
    """
    provider, _, rest = name.partition(":")
    if provider == "local":
        return _local(rest)
    try:
        return models.infer_model(name)
    except exceptions.UserError as error:
        sentence = str(error).split(". ")[0].split(" or pass it via")[0].rstrip(".")
        raise ModelError(f"the model '{name}' cannot be used: {sentence}") from None
    except ImportError as error:
        sentence = str(error).splitlines()[0]
        raise ModelError(f"the model '{name}' cannot be used: {sentence}") from None


def _local(name: str) -> models.Model:
    """A model of the OpenAI-compatible server whose address is in the environment."""
    address = os.environ.get("OPENAI_BASE_URL")
    if not address:
        raise ModelError(
            f"the model 'local:{name}' needs the address of its server: set OPENAI_BASE_URL, such "
            "as http://localhost:8000/v1"
        )
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    # retries are ours: a second layer of them would multiply every wait
    client = AsyncOpenAI(
        base_url=address, api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=0
    )
    provider = OpenAICompatibleProvider("local", openai_client=client)
    return OpenAIChatModel(name, provider=provider)


def _reach(name: str, address: str | None) -> None:
    """Open and close one connection, to the proxy where there is one.

    Raises:
        ModelError: nothing answers at the address.
    """
    if not address:
        return
    parts = urlsplit(address)
    proxies: dict[str, Any] = urllib.request.getproxies()
    host = parts.hostname or ""
    if parts.scheme in proxies and not urllib.request.proxy_bypass(host):
        parts = urlsplit(proxies[parts.scheme])
        host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ModelError(
            f"the server of '{name}' cannot be reached at {host}:{port}: "
            f"{error.strerror or error}; check its address and the network"
        ) from None


def _told(error: Exception) -> str:
    """An error in one line, without keys."""
    return without_secrets(" ".join(str(error).split()))[:300]

"""Models that follow a script: one in this process, one behind a server as providers have it."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kernelwright.errors import ModelCallError
from kernelwright.llm import Prompt, Reply, tokens_of
from kernelwright.model import Usage

Script = Callable[[str, str], "Answer"]
"""System and user text of a request in, what to answer out."""


class ScriptedModel:
    """Answers by role, and remembers what it was asked.

    Args:
        script: the texts of each role, given one after the other and the last one for ever; or a
            function of the prompt. A role without a text gets no reply.
    """

    def __init__(
        self,
        script: dict[str, Sequence[str]] | Callable[[Prompt], str],
        name: str = "scripted:test",
        price: float | None = 1e-6,
    ) -> None:
        self.name = name
        self.asked: list[Prompt] = []
        self._script = script
        self._price = price
        self._lock = threading.Lock()

    def ask(self, prompt: Prompt) -> Reply:
        """The next text of the prompt's role."""
        with self._lock:
            before = sum(p.role == prompt.role for p in self.asked)
            self.asked.append(prompt)
        if callable(self._script):
            text = self._script(prompt)
        else:
            texts = self._script.get(prompt.role) or ()
            if not texts:
                raise ModelCallError(f"the script has nothing for the role '{prompt.role}'")
            text = texts[min(before, len(texts) - 1)]
        dollars = self.dollars(prompt.tokens, tokens_of(text))
        return Reply(text, Usage(prompt.tokens, 0, tokens_of(text), dollars, 0.5))

    def dollars(self, input_tokens: int, output_tokens: int) -> float | None:
        """One price for all tokens."""
        return None if self._price is None else self._price * (input_tokens + output_tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scripted server does with one request."""

    text: str = ""
    status: int = 200
    retry_after: str | None = None
    stall_s: float = 0.0
    """Silence before the answer."""
    refuses: bool = False
    """The text stands in the field of refusals."""
    finish: str = "stop"
    cut: bool = False
    """The connection ends in the middle of the JSON document."""


class ScriptedServer:
    """An HTTP server on this machine that speaks OpenAI's chat protocol.

    Use `serving`; it sets no environment variable.
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, script))
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """For `OPENAI_BASE_URL`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @classmethod
    @contextmanager
    def serving(cls, script: Script) -> "Iterator[ScriptedServer]":
        """A server that answers until the block ends."""
        server = cls(script)
        thread = threading.Thread(target=server._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server._server.shutdown()
            server._server.server_close()


def in_order(*answers: Answer) -> Script:
    """A script that gives one answer after the other, and the last one for ever."""
    left = list(answers)
    lock = threading.Lock()

    def script(system: str, user: str) -> Answer:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return script


def _handler(server: ScriptedServer, script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = json.loads(self.rfile.read(length))
            server.requests.append(request)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            said = {m["role"]: m["content"] for m in request["messages"]}
            answer = script(said.get("system", ""), said.get("user", ""))
            time.sleep(answer.stall_s)
            body = json.dumps(_document(request, answer)).encode()
            try:
                self._send(answer, body)
            except OSError:  # whoever asked has given up
                self.close_connection = True

        def _send(self, answer: Answer, body: bytes) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if answer.retry_after is not None:
                self.send_header("Retry-After", answer.retry_after)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer.cut else body)
            self.close_connection = answer.cut or self.close_connection

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    return Handler


def _document(request: dict[str, Any], answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        return {"error": {"message": answer.text or "no", "type": "error", "code": None}}
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.refuses:
        message = {"role": "assistant", "content": None, "refusal": answer.text}
    sent = sum(tokens_of(str(m["content"])) for m in request["messages"])
    got = tokens_of(answer.text)
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
        "usage": {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got},
    }

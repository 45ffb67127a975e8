"""A model that is somebody else: each request is a file, and the reply is a file beside it.

A person, a coding agent, or a machine with network access answers. The folder may be shared or
copied to and fro; requests are named by what they ask, so that a reply is never lost or mixed up.
"""

import os
import re
import tempfile
import time
from pathlib import Path

from kernelwright.errors import ModelCallError, ModelError
from kernelwright.llm.model import Prompt, Reply, tokens_of
from kernelwright.model import Usage, content_hash

_POLL_S = 0.2
_SETTLED_S = 0.3
"""A reply that is being written grows; it is read once its size stands still for this long."""
REFUSED = "REFUSED"
"""A reply of this word alone says that there will be no reply."""


class RelayModel:
    """Writes `NNN-ROLE-HASH.request.md`, waits for `NNN-ROLE-HASH.reply.md`.

    Args:
        folder: made where it is missing.

    Raises:
        ModelError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"relay:{folder}"
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"the relay folder '{folder}' cannot be made: {error.strerror}"
            ) from None

    def ask(self, prompt: Prompt) -> Reply:
        """See `Model`; the reply of an equal earlier request is taken at once."""
        started = time.monotonic()
        request = self._place(prompt)
        reply = request.with_name(request.name.replace(".request.", ".reply."))
        while not _is_settled(reply):
            if time.monotonic() - started > prompt.seconds:
                raise ModelCallError(f"nobody answered '{request}' in {prompt.seconds:.0f} s")
            time.sleep(_POLL_S)
        text = reply.read_text(errors="replace")
        if text.strip() == REFUSED:
            raise ModelCallError(f"'{reply}' refuses to answer")
        usage = Usage(prompt.tokens, 0, tokens_of(text), 0.0, round(time.monotonic() - started, 3))
        return Reply(text, usage)

    def dollars(self, input_tokens: int, output_tokens: int) -> float | None:
        """Nothing that could be counted here."""
        return 0.0

    def _place(self, prompt: Prompt) -> Path:
        """The file of a request: the one that is there already, or a new one."""
        mark = content_hash(prompt.text)[:12]
        known = sorted(self._folder.glob(f"*-{mark}.request.md"))
        if known:
            return known[0]
        role = re.sub(r"\W+", "", prompt.role) or "request"
        number = len(list(self._folder.glob("*.request.md"))) + 1
        path = self._folder / f"{number:03d}-{role}-{mark}.request.md"
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".partial-")
        with os.fdopen(handle, "w") as file:
            file.write(prompt.text)
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
        return path


def _is_settled(path: Path) -> bool:
    try:
        before = path.stat()
    except FileNotFoundError:
        return False
    if before.st_size == 0:
        return False
    if time.time() - before.st_mtime > _SETTLED_S:
        return True
    time.sleep(_SETTLED_S)
    return path.stat().st_size == before.st_size

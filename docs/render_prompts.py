"""Writes prompts.md: every role's prompt as a model gets it, on a small problem.

python docs/render_prompts.py
"""

from pathlib import Path

from kernelwright.agents import MOST_TOKENS
from kernelwright.testing.agents import drafts, questions


def indented(text: str) -> str:
    """A text as a code block, whatever fences are in it."""
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def main() -> None:
    """Render."""
    found = {**questions(), **drafts()}
    parts = [
        "# Prompts\n\nWhat each role is told, rendered on a problem that scales a vector. The "
        "templates are versioned files in `src/kernelwright/agents/prompts`; no prompt is longer "
        f"than {MOST_TOKENS:,} tokens. Written by `docs/render_prompts.py`.\n\n"
        "## What all but the author are told\n\n" + indented(found["planner"].prompt.system)
    ]
    for name, question in found.items():
        prompt = question.prompt
        heading = f"## {name.capitalize()} (version {prompt.version}, {prompt.tokens} tokens)"
        parts.append(f"{heading}\n\n{indented(prompt.user)}")
    (Path(__file__).parent / "prompts.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()

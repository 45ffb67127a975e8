"""Judging the candidates of a bundle: a folder that was packed elsewhere (`campaign.bundle`).

Imports nothing that needs more than torch and what lies in the bundle. Held-out sizes are drawn
here, when the judge starts; no file of the bundle holds a seed.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kernelwright.build import Artifact, Builders
from kernelwright.build.cache import user_cache_folder
from kernelwright.errors import KernelwrightError, UserError
from kernelwright.evaluation.judge import Judge
from kernelwright.evaluation.settings import JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, FrozenMap, Rejected, Target, content_hash
from kernelwright.model.records import from_json, to_json
from kernelwright.problems import ProblemReference

FORMAT = 1
MANIFEST, RESULTS = "manifest.json", "results.json"
_OWN = (MANIFEST, RESULTS, "__pycache__")
"""What a manifest does not list."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An unaltered bundle."""

    digest: str
    """SHA-256 of the manifest, which has that of every file."""
    reference: ProblemReference
    dtype: Dtype
    sizes: FrozenMap[str, int]
    target: Target
    baselines: tuple[str, ...] | None
    candidates: tuple[Candidate, ...]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listed_files(folder: Path) -> Iterator[str]:
    """Every file that a manifest lists, relative to the folder, in order."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        own = relative.parts[0] in _OWN or "__pycache__" in relative.parts
        if path.is_file() and not own:
            yield str(relative)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and hold every file against its manifest.

    Raises:
        UserError: it is none, of another format, or a file was altered, added or taken away.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest: Json = json.loads(text)
        if manifest["format"] != FORMAT:
            raise UserError(f"'{folder}' is a bundle of another format: {manifest['format']}")
        _check_files(folder, manifest["files"])
        problem = manifest["problem"]
        path = str((folder / problem["file"]).resolve())
        return Bundle(
            digest=hashlib.sha256(text).hexdigest(),
            reference=ProblemReference(path, problem["function"]),
            dtype=Dtype(manifest["dtype"]),
            sizes=FrozenMap(manifest["sizes"]),
            target=manifest["target"],
            baselines=None if manifest["baselines"] is None else tuple(manifest["baselines"]),
            candidates=tuple(
                from_json(json.loads((folder / name).read_text()), Candidate)
                for name in manifest["candidates"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder}' is no bundle: {type(error).__name__}: {error}") from None


def _check_files(folder: Path, listed: Mapping[str, str]) -> None:
    there = {name: file_digest(folder / name) for name in listed_files(folder)}
    for name in sorted({*listed, *there}):
        if listed.get(name) != there.get(name):
            what = "is missing" if name not in there else "was altered"
            what = "does not belong to it" if name not in listed else what
            raise UserError(f"the bundle '{folder}' is not as it was packed: {name} {what}")


def results_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a document of results without its own `digest`."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def evaluate_bundle(
    bundle: Bundle, results: Path, say: Callable[[str], None], settings: JudgeSettings
) -> None:
    """Judge every candidate as acceptance does, and write the results after each.

    Args:
        bundle: what to judge.
        results: the file; replaced as a whole each time.
        say: told what happens.
        settings: how thorough to be.

    Raises:
        UserError: the machine, the problem or the file for the results is not usable.
    """
    _write(results, {})  # before anything is measured: can it be written at all?
    say("looking at this machine")
    machine = probe()
    builder = Builders(machine.toolchains, user_cache_folder())
    settings = replace(settings, baselines=bundle.baselines)
    judge = Judge(
        bundle.reference, bundle.dtype, bundle.sizes, machine, builder, None, settings,
        bundle.target,
    )  # fmt: skip
    document: Json = {
        "format": FORMAT,
        "manifest": bundle.digest,
        "problem": content_hash(Path(bundle.reference.path).read_bytes()),
        "target": bundle.target,
        "dtype": str(bundle.dtype),
        "sizes": dict(bundle.sizes),
        "machine": to_json(machine),
        "verdicts": [],
    }
    with judge.open(say):
        for number, candidate in enumerate(bundle.candidates, start=1):
            say(f"judging {number} of {len(bundle.candidates)}: {candidate.family}")
            built = builder.build(candidate)
            verdict = judge.accept(candidate, built) if isinstance(built, Artifact) else built
            document["verdicts"].append(
                {
                    "candidate": candidate.identity,
                    "verdict": to_json(verdict),
                    "heldout": judge.verified()["heldout"],
                }
            )
            document["written"] = datetime.now(UTC).isoformat(timespec="seconds")
            _write(results, document)
            if isinstance(verdict, Rejected):
                say(f"rejected: {verdict.stage}, {verdict.reason}")
            else:
                say(f"measured: {verdict.workloads[0].time_us.median:.1f} us")


def _write(path: Path, document: Json) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        whole = document | {"digest": results_digest(document)}
        partial.write_text(json.dumps(whole, indent=1) + "\n")
        if document:
            os.replace(partial, path)
        else:
            partial.unlink()
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}; name a file: -o") from None


def main(folder: Path, arguments: list[str] | None = None) -> None:
    """What `evaluate.py` of a bundle does; ends the process with 2 where something is missing."""
    usual = JudgeSettings()
    parser = argparse.ArgumentParser(
        "evaluate.py", description="Judge this bundle's kernels on this machine.",
        epilog="example: python evaluate.py -o results.json",
    )  # fmt: skip
    told = f"longest that the rounds for each kernel take (default: {usual.accept_seconds:g})"
    parser.add_argument("--seconds", type=float, default=usual.accept_seconds, help=told)
    told = "the file for the verdicts (default: results.json in the bundle)"
    parser.add_argument("-o", "--output", type=Path, default=folder / RESULTS, help=told)
    asked = parser.parse_args(arguments)
    seconds = max(asked.seconds, 0.1)
    settings = replace(
        usual, accept_seconds=seconds, confirm_seconds=min(seconds, usual.confirm_seconds)
    )
    try:
        bundle = read_bundle(folder)
        evaluate_bundle(bundle, asked.output, lambda text: print(text, flush=True), settings)
    except KernelwrightError as error:
        print(f"kernelwright: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"results   {asked.output}")

"""Bring measured files into the documents: `publish.py suite RUN/suite.json` and the like.

Each kind copies what a command wrote to this folder, named by its machine, and replaces the text
between the markers `<!-- KIND -->` and `<!-- /KIND -->` in the documents that have them.
"""

import argparse
import json
import shutil
from pathlib import Path

from kernelwright.campaign.suite_run import summary
from kernelwright.report import speedup_svg, suite_markdown
from kernelwright.report.text import duration, percent

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
TABLE = HERE / "README.md"


def fill(document, kind, text):
    """Replace what stands between a document's markers of a kind."""
    before, opening, rest = document.read_text().partition(f"<!-- {kind} -->")
    _, closing, after = rest.partition(f"<!-- /{kind} -->")
    if not (opening and closing):
        raise SystemExit(f"{document} has no markers <!-- {kind} --> and <!-- /{kind} -->")
    document.write_text(f"{before}{opening}\n{text.strip()}\n{closing}{after}")


def keep(path, kind, machine):
    """Copy a measured file here; its new path."""
    kept = HERE / f"{kind}-{machine}.json"
    if path.resolve() != kept.resolve():
        shutil.copyfile(path, kept)
    return kept


def suite(paths):
    """The table and bars of one suite run, in both documents."""
    (path,) = paths
    document = json.loads(path.read_text())
    machine = document["machine"]
    kept = keep(path, "suite", machine)
    picture = kept.with_suffix(".svg")
    rows = [row for row in document["problems"] if row["speedup_kernel"] is not None]
    picture.write_text(speedup_svg(rows, f"Speed-up over the best baseline, {machine}"))
    table = suite_markdown(document)
    fill(README, "suite", f"![speed-ups](docs/results/{picture.name})\n\n{table}")
    fill(TABLE, "suite", f"[{kept.name}]({kept.name})\n\n![speed-ups]({picture.name})\n\n{table}")


def gpu(paths):
    """The table and bars of suite runs on one GPU; several are joined, their commands kept."""
    documents = [json.loads(path.read_text()) for path in paths]
    document = dict(documents[0])
    if len({found["machine"] for found in documents}) > 1:
        raise SystemExit("these runs are of several machines")
    if len(documents) > 1:
        rows = [row for found in documents for row in found["problems"]]
        more = f"{document['command']} … and {len(documents) - 1} more, in the file"
        commands = [found["command"] for found in documents]
        document |= {"problems": rows, "summary": summary(rows)}
        document |= {"command": more, "commands": commands}
    kept = HERE / f"suite-{document['machine']}.json"
    kept.write_text(json.dumps(document, indent=2) + "\n")
    picture = kept.with_suffix(".svg")
    rows = [row for row in document["problems"] if row["speedup_kernel"] is not None]
    picture.write_text(speedup_svg(rows, f"Speed-up over the best baseline, {document['machine']}"))
    table = suite_markdown(document)
    fill(TABLE, "gpu", f"[{kept.name}]({kept.name})\n\n![speed-ups]({picture.name})\n\n{table}")


def unseen(paths):
    """A row for each `optimize --json` document of an unseen problem."""
    lines = [
        "| problem | dtype | generated | ours | over eager | over compile | of bound |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for path in paths:
        document = json.loads(path.read_text())
        name, dtype = document["problem"], document["dtype"]
        keep(path, f"unseen-{name}-{dtype}", document["machine"])
        if document["best"] is None:
            lines.append(f"| `{name}` | {dtype} | none: {document['advice']} | | | | |")
            continue
        bench = document["workloads"][0]
        ratios = [
            f"{bench['speedup'][peer]:.2f}x ({low:.2f} to {high:.2f})"
            for peer in ("eager", "compile")
            for low, high in [bench["speedup_ci"][peer]]
        ]
        lines.append(
            f"| `{name}` | {dtype} | {document['best']['family']} | {duration(bench['median_us'])} "
            f"| {' | '.join(ratios)} | {percent(bench['fraction_of_bound'])} |"
        )
    fill(TABLE, "unseen", "\n".join(lines))


def aa(paths):
    """Ratios of a kernel to itself, by `compare A A --repeat N --json`."""
    (path,) = paths
    document = json.loads(path.read_text())
    kept = keep(path, "aa", document["machine"])
    runs = document["kernels"][-1]["repetitions"]
    ratios = [ratio for ratio, _, _ in runs]
    near = sum(abs(ratio - 1) <= 0.01 for ratio in ratios)
    holds = sum(low <= 1 <= high for _, low, high in runs)
    told = (
        f"within 1 % of 1: {near} of {len(runs)}; the interval contains 1: {holds} of {len(runs)}."
    )
    listed = ", ".join(f"{ratio:.4f}" for ratio in ratios)
    fill(TABLE, "aa", f"[{kept.name}]({kept.name}): {told}\n\n{listed}")


def rate(paths):
    """Candidates a minute, from an `optimize --json` document."""
    (path,) = paths
    document = json.loads(path.read_text())
    kept = keep(path, "rate", document["machine"])
    search, bench = document["search"], document["workloads"][0]
    fill(
        TABLE,
        "rate",
        f"[{kept.name}]({kept.name}): {search['screened_per_minute']:.0f} candidates a minute, "
        f"builds included ({document['evaluations']} in {search['seconds']:.0f} s), of an operator "
        f"of {duration(bench['median_us'])}.",
    )


KINDS = {function.__name__: function for function in (suite, gpu, unseen, aa, rate)}


def main():
    """One kind and its measured files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("files", nargs="+", type=Path)
    chosen = parser.parse_args()
    KINDS[chosen.kind](chosen.files)


if __name__ == "__main__":
    main()

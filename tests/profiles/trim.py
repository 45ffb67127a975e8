"""Keeps what tests need of the tools' output: `trim.py FOLDER`."""

import csv
import re
import sys
from pathlib import Path

LEFT_OUT = re.compile(r"(device|numa|nvlink|c2clink|profiler|launch__(uses|cluster|occ)).*__?.*")


def trim(folder: Path) -> None:
    """One CSV of all kernels without what describes the GPU; SASS without its encoding."""
    rows: list[dict[str, str]] = []
    units: dict[str, str] = {}
    for path in sorted(folder.glob("ncu_*.csv")):
        lines = [line for line in path.read_text().splitlines() if line.startswith('"')]
        names, second, *found = csv.reader(lines)
        units |= dict(zip(names, second, strict=True))
        rows += [dict(zip(names, row, strict=True)) for row in found[:2]]
        path.unlink()
    kept = [name for name in units if not LEFT_OUT.match(name)]
    with (folder / "ncu.csv").open("w", newline="") as file:
        file.write("==PROF== Connected to process 756 (solo)\n")
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(kept)
        for row in (units, *rows):
            writer.writerow([row[name] for name in kept])
    sass = folder / "sass.txt"
    text = re.sub(r" *\n? */\* 0x[0-9a-f]{16} \*/", "", sass.read_text())
    sass.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()))
    for path in folder.glob("initcheck-*.txt"):
        lines = path.read_text().splitlines()
        path.write_text(
            "\n".join([*lines[:10], *lines[-3:]]) + "\n" if len(lines) > 13 else path.read_text()
        )


if __name__ == "__main__":
    trim(Path(sys.argv[1]))

"""Measure the ratios of ``ratios/ratios.py`` with airspeed velocity, and keep them.

    python benchmarks/history.py [--only Maps] [--table]

Each run adds one line per ratio to ``history.csv``, with the commit and what the processor can do, and writes the table
of docs/performance.md anew (``--table`` does this alone). Ratios of other processors are other ratios: compare lines of
one processor. Needs ``pip install asv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
HISTORY, PAGE = HERE / "history.csv", HERE.parent / "docs" / "performance.md"
FIELDS = ("date", "commit", "processor", "ratio", "of", "value")
BEGIN, END = "<!-- ratios: made by benchmarks/history.py -->", "<!-- end of ratios -->"
#: Runs that the table shows.
SHOWN = 4


def measured(only: str | None) -> list[tuple[str, str, float]]:
    """Run airspeed velocity in this environment; return name, parameter and value of each ratio."""
    with tempfile.TemporaryDirectory() as folder:
        config = json.loads((HERE / "asv.conf.json").read_text())
        config |= {"repo": str(HERE.parent), "benchmark_dir": str(HERE / "ratios"), "results_dir": folder}
        (Path(folder) / "asv.conf.json").write_text(json.dumps(config))
        asv = [sys.executable, "-m", "asv"]
        place = ["--config", f"{folder}/asv.conf.json", "--machine", "this"]
        facts = ["--os", "", "--arch", "", "--cpu", "", "--num_cpu", "", "--ram", "", "--yes"]
        subprocess.run([*asv, "machine", *place, *facts], check=True, capture_output=True)
        which = ["--bench", only] if only else []
        options = ["--python=same", "--set-commit-hash", commit(), "--show-stderr", *which]
        subprocess.run([*asv, "run", *place, *options], check=True)
        found = next(Path(folder).glob("this/*-*.json"))
        results = json.loads(found.read_text())
    column = results["result_columns"].index("result"), results["result_columns"].index("params")
    rows = []
    for name, entry in sorted(results["results"].items()):
        values, params = entry[column[0]], entry[column[1]]
        short = name.split(".track_")[-1].replace("_", " ")
        labels = [text.strip("'") for text in params[0]] if params else [""]
        rows += [(short, label, value) for label, value in zip(labels, values, strict=True) if value is not None]
    return rows


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=HERE, check=True, capture_output=True, text=True
    ).stdout.strip()


def processor() -> str:
    import torch

    able = {"AMX": torch.cpu._is_amx_tile_supported(), "bfloat16": torch.cpu._is_avx512_bf16_supported()}  # noqa: SLF001
    return " ".join([torch.backends.cpu.get_cpu_capability(), *(name for name, has in able.items() if has)])


def write_table() -> None:
    """Write the last runs into docs/performance.md, between the two marks."""
    with HISTORY.open(newline="") as file:
        lines = list(csv.DictReader(file))
    runs = list(dict.fromkeys((line["date"], line["commit"], line["processor"]) for line in lines))[-SHOWN:]
    names = dict.fromkeys((line["ratio"], line["of"]) for line in lines)
    values = {(line["date"], line["commit"], line["processor"], line["ratio"], line["of"]): line for line in lines}
    table = ["| ratio | of | " + " | ".join(f"{date}, {sha[:7]}, {kind}" for date, sha, kind in runs) + " |"]
    table.append("|" + " --- |" * (2 + len(runs)))
    for name in names:
        cells = [values.get((*run, *name)) for run in runs]
        table.append(f"| {name[0]} | {name[1]} | {' | '.join('' if c is None else c['value'] for c in cells)} |")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="regular expression of names")
    parser.add_argument("--table", action="store_true", help="write the table without measuring")
    args = parser.parse_args()
    if not args.table:
        run = (datetime.now(UTC).date().isoformat(), commit()[:12], processor())
        rows = [dict(zip(FIELDS, (*run, *row[:2], f"{row[2]:.2f}"), strict=True)) for row in measured(args.only)]
        is_new = not HISTORY.exists()
        with HISTORY.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerows(rows)
    write_table()


if __name__ == "__main__":
    main()

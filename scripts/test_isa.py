"""Run the numeric tests as other processors and numbers of threads would, one line for each.

A library chooses its code by the processor. It can be told to leave out what is newer than a given instruction set, so
that one machine stands for those that came before it. Settings that are newer than the machine are left out, and said:
torch would end with an illegal instruction.

    python scripts/test_isa.py              # all settings, with what pytest says of them
    python scripts/test_isa.py --margins    # trains with five seeds; how near values come to the thresholds of tests
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

#: oneDNN's limit, torch's own, threads, and whether models choose bfloat16 as on processors that have it. No full
#: product: each limit of one library is there at one thread or two, beside a limit of the other.
SETTINGS = (
    ("SSE41", "default", 1, False),
    ("SSE41", "avx2", 2, False),
    ("AVX2", "default", 2, False),
    ("AVX2", "avx2", 1, True),
    ("AVX2", "avx2", 2, False),
    ("AVX512_CORE", "avx512", 1, False),
    ("AVX512_CORE_BF16", "avx512", 2, True),
    ("AVX512_CORE_AMX", "avx512", 2, False),
)

#: Torch's sets, each of which has those before it.
CAPABILITIES = ("default", "avx2", "avx512")

#: Settings under which thresholds are measured, and the seeds.
MEASURED = (SETTINGS[0], SETTINGS[2], SETTINGS[3], SETTINGS[4])
SEEDS = range(5)

#: Tests whose numbers go through matrix products, convolutions or training.
NUMERIC = (
    "tests/models", "tests/prediction", "tests/mapping", "tests/prototypes", "tests/training", "tests/evaluation",
    "tests/studies", "tests/nuclei", "tests/cells",
)  # fmt: skip

#: Tests that train a model and ask how good it is (``tests/margins.py``).
TRAINED = (
    "tests/models/test_cpnn.py::test_training_learns_a_small_problem",
    "tests/training/fit/test_ablation.py",
    "tests/training/fit/test_domain.py::test_a_run_gives_its_model_a_domain_that_knows_other_tissue",
    "tests/training/fit/test_fit.py::test_learns_composition_and_expression",
    "tests/training/fit/test_real.py::test_her2st_section_trains",
    "tests/training/fit/test_triplex.py::test_it_learns_and_says_so",
)


def run(setting: tuple[str, str, int, bool], tests: tuple[str, ...], **more: str) -> tuple[int, str]:
    """Exit status of pytest and its output, under one setting."""
    onednn, torch, threads, bfloat16 = setting
    chosen = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": torch, "OMP_NUM_THREADS": str(threads), **more}
    chosen |= {"MKL_NUM_THREADS": str(threads), "NAPARI_CPNN_TEST_BFLOAT16": "1" if bfloat16 else ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "not slow", *tests],
        cwd=REPO, env={**os.environ, **chosen}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def available(setting: tuple[str, str, int, bool]) -> bool:
    """Whether this processor has what a setting allows."""
    import torch

    has = torch.backends.cpu.get_cpu_capability().lower()
    return has in CAPABILITIES and CAPABILITIES.index(setting[1]) <= CAPABILITIES.index(has)


def described(setting: tuple[str, str, int, bool]) -> str:
    """For a line of the table."""
    onednn, torch, threads, bfloat16 = setting
    arithmetic = "bfloat16" if bfloat16 else "as it has"
    return f"oneDNN {onednn:<16} torch {torch:<7} threads {threads}  {arithmetic:<9}"


def test_all(tests: tuple[str, ...]) -> bool:
    """One line per setting; what failed below it."""
    passed = True
    for setting in SETTINGS:
        if not available(setting):
            print(f"{described(setting)}  not on this processor", flush=True)
            continue
        start = time.monotonic()
        status, output = run(setting, tests)
        lines = output.strip().splitlines() or ["no output"]
        print(f"{described(setting)}  {'passed' if status == 0 else 'FAILED'}  {lines[-1]}", flush=True)
        if status:
            named = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
            print("\n".join(f"    {line}" for line in named or lines[-20:]), flush=True)
        passed &= status == 0
        print(f"    {time.monotonic() - start:.0f} s", file=sys.stderr)
    return passed


def measure(tests: tuple[str, ...]) -> bool:
    """Train with all seeds under some settings, and print the range of each value beside its threshold."""
    values: dict[tuple[str, str, str, float], list[float]] = defaultdict(list)
    ran = True
    with tempfile.TemporaryDirectory() as folder:
        for setting in filter(available, MEASURED):
            for seed in SEEDS:
                notes = Path(folder) / f"{len(values)}-{seed}-{'-'.join(map(str, setting))}.jsonl"
                status, output = run(setting, tests, NAPARI_CPNN_TEST_SEED=str(seed), NAPARI_CPNN_MARGINS=str(notes))
                if status:
                    ran = False
                    print(output[-2000:], file=sys.stderr)
                for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else ():
                    note = json.loads(line)
                    key = (note["test"], note["what"], note["relation"], note["threshold"])
                    values[key].append(note["value"])
                print(f"{described(setting)}  seed {seed} done", file=sys.stderr, flush=True)
    print("| test | value | least | most | runs | asked for |\n|---|---|---|---|---|---|")
    for (test, what, relation, threshold), found in values.items():
        print(f"| {test} | {what} | {min(found):.3g} | {max(found):.3g} | {len(found)} | {relation} {threshold:g} |")
    return ran


def main() -> int:
    """Exit status 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margins", action="store_true", help="measure how near values come to thresholds")
    parser.add_argument("tests", nargs="*", help="files or tests, instead of all that belong here")
    args = parser.parse_args()
    tests = tuple(args.tests)
    passed = measure(tests or TRAINED) if args.margins else test_all(tests or NUMERIC)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

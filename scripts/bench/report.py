"""The figures as Markdown: the machine, the runs, the bars."""

import datetime
import os
import platform
import re
import subprocess
from dataclasses import dataclass

from measure import median

UNITS = {
    "ratio": ("WeightWatcher's time / ours", "×"),
    "peak_mb": ("our peak memory", " MB"),
    "above_gram_mb": ("our peak memory above the Gram matrix", " MB"),
    "ours_ms": ("our time, median", " ms"),
}
# Above this part of the processors' time, what other programs did may have changed our figures.
BUSY = 0.1
HEAD = (
    "case", "spectrald, s", "WeightWatcher, s", "ratio", "CPU s, ours / WW", "peak MB, ours",
    "peak MB, WW (before the call)", "layers, ours / WW", "mean alpha, ours / WW",
)


@dataclass(frozen=True)
class Judged:
    text: str
    measured: str
    verdict: str

    @property
    def met(self):
        return self.verdict.startswith("PASS")


def judged(outcome):
    """Each bar of the case against what was measured."""
    return [judge(bar, outcome) for bar in outcome.case.bars]


def judge(bar, outcome):
    name, unit = UNITS[bar.figure]
    text = f"{outcome.case.title}: {name} {'≥' if bar.at_least else '≤'} {bar.limit:g}{unit}"
    value = getattr(outcome, bar.figure)
    met = value >= bar.limit if bar.at_least else value <= bar.limit
    draft = ", draft" if bar.figure == "ratio" and outcome.foreign > BUSY else ""
    return Judged(text, f"{value:.1f}{unit}", ("PASS" if met else "FAIL") + draft)


def markdown(outcomes, programs, runs):
    parts = ["\n".join(f"- {line}" for line in context(outcomes, programs, runs))]
    compared = [row(outcome) for outcome in outcomes if outcome.case.model is not None]
    if compared:
        parts.append(table(HEAD, compared))
    bars = [(bar.text, bar.measured, bar.verdict) for outcome in outcomes for bar in judged(outcome)]
    if bars:
        parts.append(table(("bar", "measured", "verdict"), bars))
    return "\n\n".join(parts)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row(outcome):
    ours, peer = outcome.ours, outcome.peer
    cells = [outcome.case.title, spread(ours), "–", "–", f"{median(ours, 'cpu'):.2f}", f"{outcome.peak_mb:.0f}"]
    if not peer:
        return [*cells, "–", str(ours[0].layers), f"{ours[0].alpha:.4f}"]
    before = max(run.details["peak_before"] for run in peer)
    cells[2] = spread(peer)
    cells[3] = f"{outcome.ratio:.1f}× ({min(outcome.ratios):.1f}–{max(outcome.ratios):.1f})"
    cells[4] += f" / {median(peer, 'cpu'):.2f}"
    return [
        *cells,
        f"{max(run.peak for run in peer) / 1e6:.0f} ({before / 1e6:.0f})",
        f"{ours[0].layers} / {peer[0].layers}",
        f"{ours[0].alpha:.4f} / {peer[0].alpha:.4f}",
    ]


def spread(runs):
    times = [run.seconds for run in runs]
    if len(times) == 1:
        return f"{times[0]:.3f} (one run)"
    return f"{median(runs, 'seconds'):.3f} ({min(times):.3f}–{max(times):.3f})"


def context(outcomes, programs, runs):
    """Date, machine and versions; no names of hosts, users or folders."""
    version = subprocess.run([str(programs.binary), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    yield f"date: {datetime.date.today().isoformat()}"
    yield f"machine: {processor()}, {len(os.sched_getaffinity(0))} processors, {memory():.0f} GiB memory, {kernel()}"
    yield f"ours: {version}"
    details = next((run.details for outcome in outcomes for run in outcome.peer), None)
    if details:
        yield "peer: " + ", ".join(f"{name} {number}" for name, number in details["versions"].items())
        yield "peer's kernels: " + "; ".join(details["kernels"])
    yield f"runs: {runs} of each, in turn; median (min–max); ratio: of the medians (min–max over pairs of neighbouring runs)"
    threads = "as many as each program takes by itself" if programs.threads is None else programs.threads
    yield f"threads: {threads}"
    # A run of a few milliseconds is shorter than the clock of /proc/stat.
    foreign = max((outcome.foreign for outcome in outcomes if outcome.case.model is not None), default=0.0)
    yield f"other programs: at most {100 * foreign:.0f} % of the processors' time during any run"
    if foreign > BUSY:
        yield "**a draft: the machine was busy with other work, which slows WeightWatcher's threads more than ours**"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def kernel():
    """The number alone: what follows it can name a host or a provider."""
    return "Linux " + re.match(r"[\d.]*", platform.release()).group()

"""Compares `spectrald analyze --compat ww-0.7.7` with WeightWatcher 0.7.7 itself, on models made from a seed.

usage: python ww_compare.py SPECTRALD [--seed N] [--group NAME]... [--model FILE]... [--keep DIR] [--verbose]

Every group is one model of many layers: shapes, kernels, dtypes, distributions. Each is written as safetensors, analysed
by both, and the rows are joined on layer_id and slice_id. Integer and text columns must be equal, floating columns
within 1e-6 relative. With --model, files of your own are compared instead. Exit code 1 if anything differs that is not
known to be noise (`noise` below says what, and why).

Needs: pip install weightwatcher==0.7.7 torch safetensors   (in a virtual environment of its own)
"""

import argparse
import contextlib
import csv
import io
import json
import logging
import math
import os
import struct
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
from safetensors.torch import load_file, save_file

with contextlib.redirect_stdout(io.StringIO()):
    import weightwatcher
logging.disable(logging.CRITICAL)

TOLERANCE = 1e-6
EXACT = {
    "layer_id", "slice_id", "N", "M", "rf", "num_evals", "num_pl_spikes", "matrix_rank", "rank_loss",
    "weak_rank_loss", "detX_num", "num_ERG_spikes", "ERG_gap", "num_spikes",
}
# WeightWatcher's column -> why it is not compared.
NOT_COMPARED = {"longname": "the same as name", "has_mask": "always false"}


# ---------------------------------------------------------------- models

def gaussian(rng, shape):
    return rng.standard_normal(shape)


def student(freedom):
    return lambda rng, shape: rng.standard_t(freedom, size=shape)


def sparse(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.1)


def low_rank(rank):
    def make(rng, shape):
        return rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    return make


def duplicated_rows(rng, shape):
    w = rng.standard_normal(shape)
    w[1::2] = w[0::2][: len(w[1::2])]
    return w


def orthogonal(rng, shape):
    q, _ = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    return q if shape[0] >= shape[1] else q.T


def spike(rng, shape):
    return rng.standard_normal(shape) + 5.0 * np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1])) / 4


def heavy_and_zero_columns(rng, shape):
    w = rng.standard_t(2, size=shape)
    w[:, : shape[1] // 3] = 0.0
    return w


def diagonal(rng, shape):
    w = np.zeros(shape)
    k = min(shape)
    w[range(k), range(k)] = np.linspace(1.0, 3.0, k)
    return w


DISTRIBUTIONS = {
    "gaussian": gaussian,
    "student2": student(2),
    "student3": student(3),
    "sparse": sparse,
    "spike": spike,
    "tiny": lambda rng, shape: 1e-4 * rng.standard_normal(shape),
    "near_threshold": lambda rng, shape: 3e-3 / math.sqrt(max(shape)) * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e3 * rng.standard_normal(shape),
    "integers": lambda rng, shape: rng.integers(-8, 8, size=shape).astype(float),
    "signs": lambda rng, shape: np.sign(rng.standard_normal(shape)),
    "uniform_positive": lambda rng, shape: rng.random(shape),
    "diagonal": diagonal,
}
DEGENERATE = {
    "low_rank1": low_rank(1),
    "low_rank7": low_rank(7),
    "low_rank15": low_rank(15),
    "low_rank25": low_rank(25),
    "duplicated_rows": duplicated_rows,
    "zero_columns": heavy_and_zero_columns,
    "constant": lambda rng, shape: np.full(shape, 0.25),
    "zero": lambda rng, shape: np.zeros(shape),
    "identity": lambda rng, shape: np.eye(*shape),
    "orthogonal": orthogonal,
    "one_entry": lambda rng, shape: np.pad([[2.0]], ((0, shape[0] - 1), (0, shape[1] - 1))),
}


def dense_shapes(rng):
    shapes = [(8, 8), (9, 8), (8, 9), (7, 7), (7, 40), (40, 7), (1, 50), (50, 1), (2, 50), (50, 2), (1, 1), (2, 2)]
    shapes += [(n, n) for n in (10, 16, 19, 20, 21, 22, 40, 64, 99, 100, 101, 128, 200)]
    shapes += [(60, n) for n in (18, 19, 20, 21, 22, 25)] + [(n, 300) for n in (19, 20, 21, 98, 99, 100, 101, 102)]
    shapes += [(600, 400), (400, 600), (1000, 12), (12, 1000), (2000, 30), (511, 257), (33, 31)]
    return {f"d{i}_{r}x{c}.weight": gaussian(rng, (r, c)) for i, (r, c) in enumerate(shapes)}


def dense_heavy_shapes(rng):
    shapes = [(n, n + d) for n in (8, 12, 19, 20, 21, 30, 50, 99, 100, 101, 150) for d in (0, 1, 13)]
    return {f"h{i}_{r}x{c}.weight": student(2)(rng, (r, c)) * 0.05 for i, (r, c) in enumerate(shapes)}


def distributions(rng):
    shapes = [(120, 80), (80, 120), (30, 30), (64, 15)]
    return {
        f"{name}_{r}x{c}.weight": make(rng, (r, c)) for name, make in DISTRIBUTIONS.items() for r, c in shapes
    }


def degenerate(rng):
    shapes = [(120, 80), (80, 120), (40, 40), (64, 12)]
    return {f"{name}_{r}x{c}.weight": make(rng, (r, c)) for name, make in DEGENERATE.items() for r, c in shapes}


CONV_SHAPES = [
    (16, 8, 3, 3), (8, 16, 3, 3), (8, 16, 2, 2), (16, 8, 2, 2), (64, 3, 7, 7), (3, 64, 7, 7), (32, 1, 3, 3),
    (1, 32, 3, 3), (64, 32, 1, 1), (32, 64, 1, 1), (64, 1, 1, 1), (1, 64, 1, 1), (4, 4, 9, 9), (4, 5, 9, 9),
    (5, 4, 9, 9), (2, 3, 11, 11), (3, 2, 11, 11), (16, 128, 64, 1), (128, 16, 64, 1), (16, 1, 64, 1), (1, 8, 3, 3),
    (8, 1, 3, 3), (16, 16, 1, 5), (16, 16, 5, 1), (10, 20, 1, 4), (20, 10, 4, 1), (6, 6, 6, 6), (6, 6, 7, 5),
    (6, 7, 6, 7), (7, 6, 7, 6), (5, 8, 6, 7), (8, 5, 6, 7), (2, 2, 2, 2), (8, 8, 1, 1), (7, 7, 1, 1), (40, 30, 3, 3),
    (30, 40, 3, 3), (2, 4, 16, 16), (4, 2, 16, 16), (12, 20, 4, 4), (3, 3, 3, 3), (2, 1, 4, 4), (1, 2, 4, 4),
    (24, 8, 2, 3), (8, 24, 2, 3), (9, 9, 9, 9), (9, 9, 9, 10), (3, 16, 16, 16), (16, 3, 16, 16),
]


def conv(rng):
    name = "c{}_{}.weight".format
    return {
        name(i, "x".join(map(str, s))): rng.standard_normal(s) * 0.1 for i, s in enumerate(CONV_SHAPES)
    }


def conv_heavy(rng):
    shapes = [(16, 8, 3, 3), (8, 16, 2, 2), (8, 16, 3, 3), (64, 1, 3, 3), (32, 48, 1, 1), (24, 24, 5, 5), (4, 4, 9, 9)]
    tensors = {}
    for kind in ("student2", "sparse", "tiny", "integers", "near_threshold", "huge"):
        for i, s in enumerate(shapes):
            tensors[f"{kind}{i}.weight"] = DISTRIBUTIONS[kind](rng, s)
    for i, s in enumerate(shapes):
        tensors[f"zero{i}.weight"] = np.zeros(s)
        tensors[f"constant{i}.weight"] = np.full(s, 0.5)
        half = rng.standard_normal(s)
        half[: s[0] // 2] = 0.0
        tensors[f"half{i}.weight"] = half
        one_position = np.zeros(s)
        one_position[:, :, 0, 0] = rng.standard_normal(s[:2])
        tensors[f"one_position{i}.weight"] = one_position
    return tensors


def dtypes(rng):
    tensors = {}
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32), ("f64", torch.float64)):
        for kind in ("gaussian", "student3", "sparse", "tiny"):
            for shape in ((90, 50), (20, 33), (12, 10, 3, 3)):
                values = torch.tensor(DISTRIBUTIONS[kind](rng, shape) * 0.1)
                tensors[f"{name}_{kind}_{'x'.join(map(str, shape))}.weight"] = values.to(dtype)
    return tensors


def names_and_ranks(rng):
    """Ids with gaps: what WeightWatcher does not analyse lies between what it does."""
    shapes = {
        "a.weight": (24, 24), "a.bias": (24,), "norm.weight": (24,), "b.weight": (16, 12, 3), "c.weight": (24, 30),
        "d.kernel": (40, 40), "e.weight": (4, 4, 2, 2, 2), "f.weight_ih_l0": (40, 20), "g.weight": (30, 1, 25),
        "weight": (20, 20), "h.weight.weight": (21, 22), "i.weight_g": (9, 9), "j.weight": (1, 90),
        "k.weight": (90, 1), "LayerNorm.weight": (30, 30), "optimizer.weight": (20, 21), "x.mask.weight": (20, 20),
        "rotary_emb.weight": (22, 20), "bias.weight": (23, 20), "one.weight": (1,), "experts.weight": (4, 20, 20),
        "l.WEIGHT": (20, 20), "m..weight": (20, 24), "position_ids.weight": (25, 25), "running_mean.weight": (20, 29),
        "n.conv.weight": (1, 1, 9, 9), "o.conv.weight": (1, 20, 1, 1), "p.conv.weight": (1, 1, 20, 1), "q.weight": (33, 20),
    }
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def large(rng):
    return {
        "embedding.weight": rng.standard_normal((50_001, 8)),
        "embedding_at_limit.weight": rng.standard_normal((50_000, 9)),
        "wide.weight": rng.standard_normal((10, 50_001)),
        "too_many_evals.weight": rng.standard_normal((16, 16, 31, 31)),
        "at_limit.weight": rng.standard_normal((200, 15, 25, 40)),
        "above_limit.weight": rng.standard_normal((15, 16, 40, 25)),
        "after.weight": rng.standard_normal((50, 40)),
    }


def integer_dtypes(rng):
    tensors = {}
    for name, dtype in (("i8", torch.int8), ("u8", torch.uint8), ("i16", torch.int16), ("i32", torch.int32), ("i64", torch.int64)):
        tensors[f"{name}.weight"] = torch.tensor(rng.integers(0, 100, size=(40, 30))).to(dtype)
    tensors["codes.weight"] = torch.tensor(rng.integers(-127, 127, size=(40, 30))).to(torch.int8)
    tensors["codes.weight_scale"] = torch.tensor(rng.random((40, 1))).float()
    tensors["bool.weight"] = torch.tensor(rng.random((40, 30)) < 0.3)
    tensors["f8.weight"] = torch.tensor(rng.standard_normal((40, 30))).to(torch.float8_e4m3fn)
    return tensors


def non_finite(rng):
    tensors = {}
    for name, value in (("nan", math.nan), ("inf", math.inf), ("minus_inf", -math.inf)):
        w = rng.standard_normal((40, 30))
        w[3, 4] = value
        tensors[f"{name}.weight"] = w
        k = rng.standard_normal((10, 12, 3, 3))
        k[1, 2, 1, 1] = value
        tensors[f"{name}_conv.weight"] = k
    w = rng.standard_normal((40, 30))
    tensors["f32_max.weight"] = np.where(np.abs(w) > 1, 3e38, w)
    tensors["subnormal.weight"] = w * 1e-42
    tensors["good.weight"] = w
    return tensors


def shuffled_header(rng):
    """The header's order is not the data's: which one counts for layer_id?"""
    return {f"{letter}.weight": rng.standard_normal((20 + i, 20)) for i, letter in enumerate("zyxwabc")}


GROUPS = {
    f.__name__: f
    for f in (
        dense_shapes, dense_heavy_shapes, distributions, degenerate, conv, conv_heavy, dtypes, names_and_ranks, large,
        integer_dtypes, non_finite, shuffled_header,
    )
}
# group -> the runs; `mp` is slow and needs no more than this.
RUNS = {"pool": ([], {}), "slices": (["--conv", "slices"], {"pool": False}), "mp": (["--mp"], {"mp_fit": True})}
GROUP_RUNS = {
    "conv": ["pool", "slices", "mp"], "conv_heavy": ["pool", "slices"], "dtypes": ["pool", "slices"],
    "dense_shapes": ["pool", "mp"], "distributions": ["pool", "mp"], "degenerate": ["pool", "mp"],
    "names_and_ranks": ["pool", "slices"], "large": ["pool"],
}


def write_shuffled(path, tensors):
    """A header whose entries come in another order than the data."""
    offset, entries = 0, {}
    for name in reversed(list(tensors)):
        size = tensors[name].size * 4
        entries[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps({name: entries[name] for name in sorted(tensors)}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in reversed(list(tensors)):
            file.write(tensors[name].astype("<f4").tobytes())


def write(path, group, seed):
    tensors = GROUPS[group](np.random.default_rng([seed, sum(map(ord, group))]))
    if group == "shuffled_header":
        return write_shuffled(path, tensors)
    as_torch = lambda w: w if isinstance(w, torch.Tensor) else torch.tensor(np.asarray(w)).float()
    save_file({name: as_torch(w).contiguous() for name, w in tensors.items()}, path)


# ---------------------------------------------------------------- both tools

def weightwatcher_rows(path, options):
    """Rows by (layer_id, slice_id); None if WeightWatcher raises."""
    state = load_file(path)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            details = weightwatcher.WeightWatcher(model=state).analyze(savefig=False, detX=True, **options)
    except Exception as error:  # whatever it raises is its answer
        return None, f"{type(error).__name__}: {error}"
    table = io.StringIO()
    details.to_csv(table, index=False, float_format="%.17g")
    table.seek(0)
    return {key(row): row for row in csv.DictReader(table) if row["layer_id"] != ""}, None


def spectrald_rows(binary, path, options):
    command = [binary, "analyze", path, "--compat", "ww-0.7.7", "--erg", "--format", "csv", "-q", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        return {}, f"exit code {done.returncode}: {done.stderr.strip()}"
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    return {key(row): row for row in rows if row["status"] != "skipped"}, None


def key(row):
    number = lambda text: -1 if text in ("", None) else int(float(text))
    return number(row["layer_id"]), number(row.get("slice_id"))


def as_number(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def differs(column, theirs, ours):
    """Relative difference as text, or None."""
    a, b = as_number(theirs), as_number(ours)
    if a is None and b is None:
        return None if theirs.strip() in (ours.strip(), "nan") else "text"
    if a is None or b is None:
        # The table has no infinity: it is empty.
        return None if a is not None and math.isinf(a) and ours == "" else "missing"
    if a == b:
        return None
    relative = abs(a - b) / max(abs(a), abs(b))
    if column in EXACT:
        return "integer"
    return f"{relative:.1e}" if not relative <= TOLERANCE else None


# ---------------------------------------------------------------- report

MP_COLUMNS = {"sigma_mp", "bulk_max", "bulk_min", "mp_softrank", "num_spikes", "W_scale"}


def noise(column, layer, theirs, ours):
    """Why a difference says nothing, or None. `layer` is WeightWatcher's row.

    Singular values are right to about N·ε·σ_max: what is made of those below says nothing.
    """
    largest, n = as_number(layer["sv_max"]), max(float(layer["N"]), float(layer["M"]))
    a, b = (as_number(x) for x in (theirs, ours))
    if largest is None:
        return None
    floor = n * 2.3e-16 * largest
    if column == "sv_min" and None not in (a, b) and abs(a - b) <= floor:
        return "the rounding of an SVD"
    detx_val = as_number(layer.get("detX_val", ""))
    if column in ("detX_val", "detX_val_unrescaled") and None not in (a, b, detx_val) and detx_val <= floor**2:
        return "below the rounding of an SVD"
    if column == "log_alpha_norm" and as_number(layer["alpha"]) == -1 and as_number(layer["sv_min"]) <= floor:
        return "sum of 1/eigenvalue, and the smallest is rounding"
    return None


def mp_is_unsure(path, name):
    """Whether WeightWatcher's own Marchenko-Pastur fit jumps when W changes by a millionth: its objective has steps."""
    weights = load_file(path)[f"{name}.weight"].double()
    found = set()
    for factor in (1.0, 1.0 + 1e-6, 1.0 - 1e-6, 1.0 + 3e-7):
        with contextlib.redirect_stdout(io.StringIO()):
            state = {f"{name}.weight": (weights * factor).float()}
            details = weightwatcher.WeightWatcher(model=state).analyze(savefig=False, mp_fit=True)
        found.add(round(float(details["sigma_mp"].iloc[0]), 4))
    return len(found) > 1


def compare(binary, path, label, run, verbose):
    ours_options, theirs_options = RUNS[run]
    theirs, error = weightwatcher_rows(path, theirs_options)
    ours, our_error = spectrald_rows(binary, path, ours_options)
    bad = []
    if error or our_error:
        print(f"{label} [{run}]: WeightWatcher: {error}; spectrald: {our_error}")
        return 0 if not our_error else 1
    for k in sorted(theirs.keys() - ours.keys()):
        bad.append(("ROW", theirs[k]["name"], k, "there", "missing", "row"))
    for k in sorted(ours.keys() - theirs.keys()):
        bad.append(("ROW", ours[k]["name"], k, "missing", f"{ours[k]['status']} {ours[k]['reason']}", "row"))
    for k in sorted(theirs.keys() & ours.keys()):
        for column, value in theirs[k].items():
            if column in NOT_COMPARED:
                continue
            if column not in ours[k]:
                bad.append((column, theirs[k]["name"], k, value, "no such column", "column"))
                continue
            found = differs(column, value, ours[k][column])
            if found:
                bad.append((column, theirs[k]["name"], k, value, ours[k][column], found))
    known = [b for b in bad if b[2] in theirs and b[2] in ours and noise(b[0], theirs[b[2]], b[3], b[4])]
    jumps = {b[1] for b in bad if b[0] in MP_COLUMNS}
    jumps = {name for name in jumps if mp_is_unsure(path, name)}
    known += [b for b in bad if b[0] in MP_COLUMNS and b[1] in jumps]
    new = [b for b in bad if b not in known]
    print(f"{label} [{run}]: {len(theirs)} rows, {len(new)} differences, {len(known)} of noise")
    for b in new + (known if verbose else []):
        print("   {:22} {:28} {} WW {} | ours {} ({})".format(*b))
    return len(new)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", action="append", choices=list(GROUPS))
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--run", action="append", choices=list(RUNS))
    parser.add_argument("--keep")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    total = 0
    with contextlib.ExitStack() as stack:
        folder = options.keep or stack.enter_context(tempfile.TemporaryDirectory())
        os.makedirs(folder, exist_ok=True)
        todo = [(model, os.path.basename(model), list(RUNS)) for model in options.model]
        for group in options.group or ([] if options.model else list(GROUPS)):
            path = os.path.join(folder, f"{group}.safetensors")
            write(path, group, options.seed)
            todo.append((path, group, GROUP_RUNS.get(group, ["pool"])))
        for path, label, runs in todo:
            for run in options.run or runs:
                total += compare(options.binary, path, label, run, options.verbose)
                sys.stdout.flush()
    print(f"{total} differences")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())

"""One run of WeightWatcher in a process of its own: peer_worker.py MODEL OPTIONS-AS-JSON.

Only the call of analyze() is timed. The result is one JSON object on stdout; all that WeightWatcher prints goes to stderr.
"""

import json
import os
import platform
import resource
import sys
import time
import warnings

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
warnings.filterwarnings("ignore")

import numpy
import scipy
import threadpoolctl
import torch
import weightwatcher
from safetensors.torch import load_file


def state_dict(path):
    if path.endswith(".safetensors"):
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def peak():
    """Most resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def kernels():
    pools = (p for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas")
    return sorted({f"{p['internal_api']} {p['version']} {p.get('architecture', '')}, {p['num_threads']} threads" for p in pools})


watcher = weightwatcher.WeightWatcher(model=state_dict(sys.argv[1]))
before = peak()
cpu = time.process_time()
start = time.perf_counter()
details = watcher.analyze(savefig=False, **json.loads(sys.argv[2]))
seconds = time.perf_counter() - start
cpu = time.process_time() - cpu
json.dump(
    {
        "seconds": seconds,
        "cpu": cpu,
        "peak_before": before,
        "layers": len(details),
        "alpha": float(details["alpha"].mean()),
        "kernels": kernels(),
        "versions": {
            "weightwatcher": weightwatcher.__version__,
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
    },
    answer,
)
answer.close()

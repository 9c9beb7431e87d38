#!/usr/bin/env python
"""What holds on this GPU, and how fast: `pytest -m gpu`, then the training step at growing batches (bench/step.py).

Batches that do not fit are left out with a line. Results: bench/results/gpu-BATCH.md and .json."""

import argparse
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 32, 64])
    args = ap.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to check here")
    checks = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py"], cwd=ROOT)
    for batch in args.batch:
        out = ROOT / "bench" / "results" / f"gpu-{batch}"
        numbers = ["--batch", batch, "--rounds", 20, "--compile", batch, "--out", out]
        done = subprocess.run([sys.executable, "bench/step.py", *map(str, numbers)], cwd=ROOT)
        if done.returncode:
            print(f"batch {batch}: no result (see above); it may not fit into the GPU's memory", flush=True)
    sys.exit(checks.returncode)


if __name__ == "__main__":
    main()

"""Small figures in one table: the Frechet distance alone, a folder translated, imports, and the peak memory of each.

    python bench/small.py                           some minutes; the table is printed
    python bench/small.py --repeats 5 --json bench/results/small.json

Each measurement is a process of its own, so that its peak memory is its own; rows alternate, and the median counts.
Seconds are the processor's (user and system), of the work alone, or of the whole process for imports. Frechet: the
same two means and covariances for pytorch-fid's function and ours, of 5,000 made-up features whose spectrum falls.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES, SIDE = 64, 128  # of the folder


def moments(dims: int) -> tuple:
    "Mean and covariance of two sets of features"
    import numpy as np  # here, for the imports that are measured

    rng, found = np.random.default_rng(0), []
    for shift in (0.0, 0.1):
        features = shift + rng.normal(size=(5000, dims)) @ np.diag(1 / np.sqrt(1 + np.arange(dims)))
        features = features @ np.linalg.qr(np.random.default_rng(1).normal(size=(dims, dims)))[0]
        found += [features.mean(0), np.cov(features, rowvar=False)]
    return tuple(found)


def frechet_ours(dims: int):
    from toon2real.fid import frechet_distance

    given = moments(dims)
    return lambda: f"{float(frechet_distance(*given)):.8g}"


def frechet_peer(dims: int):
    from pytorch_fid.fid_score import calculate_frechet_distance

    given = moments(dims)
    return lambda: f"{float(calculate_frechet_distance(*given)):.8g}"


def folder(precision: str):
    "PICTURES scenes of SIDE px, opened, translated by the shipped toon2real, written"
    from toon2real.scenes import write_scenes
    from toon2real.translate import Translator

    here = Path(tempfile.mkdtemp())
    write_scenes(here / "in", PICTURES, "cartoon", seed=0, side=SIDE)
    translator = Translator.load("toon2real", device="cpu", precision=precision)

    def work():
        begun = time.process_time()
        translator.folder(here / "in", here / "out", progress=False)
        return f"{PICTURES / (time.process_time() - begun):.1f} images a second"

    return work


def imported(code: str):
    return lambda: exec(code, {}) or "import"


ROWS = {  # what: (its maker, its argument, the row that it is held against)
    "Frechet, 768 dims, pytorch-fid": (frechet_peer, 768, None),
    "Frechet, 768 dims, toon2real": (frechet_ours, 768, "Frechet, 768 dims, pytorch-fid"),
    "Frechet, 2048 dims, pytorch-fid": (frechet_peer, 2048, None),
    "Frechet, 2048 dims, toon2real": (frechet_ours, 2048, "Frechet, 2048 dims, pytorch-fid"),
    f"folder of {PICTURES} pictures, {SIDE} px, float32": (folder, "float32", None),
    f"folder of {PICTURES} pictures, {SIDE} px, bf16": (folder, "bf16", None),
    "import torch": (imported, "import torch", None),
    "import toon2real": (imported, "import toon2real", None),
    "toon2real.fid": (imported, "import toon2real.fid", "import torch"),
    "toon2real.translate": (imported, "import toon2real.translate", "import torch"),
    "toon2real.training": (imported, "import toon2real.training", "import torch"),
    "toon2real.report": (imported, "import toon2real.report", "import torch"),
}


def measured(what: str) -> dict:
    "A row in a process of its own: what it says, its processor seconds, and the peak of its memory in MB"
    process = subprocess.Popen([sys.executable, __file__, "--only", what], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{what}: ended with {os.waitstatus_to_exitcode(status)}")
    return json.loads(told.splitlines()[-1]) | {"peak": usage.ru_maxrss / 1024}


def only(what: str):
    "What the process of a row does"
    make, argument, _ = ROWS[what]
    begun = time.process_time()
    work = make(argument)
    if make is not imported:
        begun = time.process_time()
    result = work()
    print(json.dumps({"result": result, "seconds": time.process_time() - begun}))


def table(found: dict[str, list[dict]]) -> list[dict]:
    "The medians, and the ratios to the rows that they are held against"
    seconds = {what: statistics.median(one["seconds"] for one in rows) for what, rows in found.items()}
    lines = []
    for what, rows in found.items():
        against = ROWS[what][2]
        peak, result = statistics.median(one["peak"] for one in rows), rows[-1]["result"]
        ratio = seconds[against] / seconds[what] if against else None
        lines.append(dict(what=what, seconds=seconds[what], times_as_fast=ratio, peak_mb=peak, result=result))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--only", help="this row alone, in this process")
    args = parser.parse_args()
    if args.only:
        return only(args.only)
    found = {what: [] for what in ROWS}
    load = [os.getloadavg()[0]]
    for _ in range(args.repeats):
        for what in ROWS:
            found[what].append(measured(what))
    load.append(os.getloadavg()[0])
    from toon2real.engine import environment

    about = environment() | {"load": load, "repeats": args.repeats, "cores": os.cpu_count()}
    print(f"{about}\n\n| | processor seconds | times as fast | peak memory | result |\n|---|---|---|---|---|")
    lines = table(found)
    for line in lines:
        ratio = f"{line['times_as_fast']:.2f}" if line["times_as_fast"] else ""
        print(f"| {line['what']} | {line['seconds']:.2f} | {ratio} | {line['peak_mb']:,.0f} MB | {line['result']} |")
    if args.json:
        args.json.write_text(json.dumps(dict(environment=about, rows=lines), indent=1))


if __name__ == "__main__":
    main()

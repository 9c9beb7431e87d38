#!/usr/bin/env python
"""FID against pytorch-fid's own command: whole processes (imports, weights, decoding, network, distance), real images.

Rows: toon2real cold (empty cache), with the features of the target kept (a training evaluates many outputs against one
target), and cold in bfloat16. Peer and ours alternate, and the median of the repeats counts. CPU seconds (user and
system, workers included) are given beside the wall's, for a machine that others use too. Where the weights are partial
they are completed with the module's own random tail, which the depths measured never reach."""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TOON2REAL_SHARED", ROOT / "../shared")).resolve()

OURS = """
import sys
import torch
from toon2real.features import features
from toon2real.fid import fid
a, b, dims, weights, dtype, only = sys.argv[1:]
kw = dict(dims=int(dims), weights=weights, dtype=getattr(torch, dtype))
print("VALUE", len(features(b, **kw)) if only == "target" else repr(float(fid(a, b, **kw))))
"""


def run(command, env):
    "The finished process, and its (wall, CPU) seconds"
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=env, cwd=ROOT)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, (wall, cpu)


def ours(a, b, dims, weights, dtype, cache, env, only="-"):
    done, seconds = run(["-c", OURS, a, b, dims, weights, dtype, only], env | {"TOON2REAL_CACHE": str(cache)})
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split("VALUE")[1]), seconds


def peer(a, b, dims, env):
    done, seconds = run(["-m", "pytorch_fid", a, b, "--dims", dims], env)
    if done.returncode and "disp" in done.stderr:
        sys.exit("pytorch-fid 0.3.0 needs SciPy < 1.18: its sqrtm(disp=...) is gone; run this with an older SciPy")
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split("FID:")[1]), seconds


def complete(weights, out):
    "Weights that pytorch-fid loads strictly"
    import pytorch_fid.inception
    import torch

    state = torch.load(weights, map_location="cpu", weights_only=True)
    with (
        patch.object(pytorch_fid.inception, "load_state_dict_from_url", lambda *args, **kw: {}),
        patch.object(torch.nn.Module, "load_state_dict", lambda *args, **kw: None),
    ):
        net = pytorch_fid.inception.fid_inception_v3()
    torch.save({**net.state_dict(), **state}, out)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    images, weights = SHARED / "data/scenery128", SHARED / "weights/fid_inception_to_mixed6e.pth"
    ap.add_argument("--generated", type=Path, default=images / "cartoon/val", help="folder of images")
    ap.add_argument("--target", type=Path, default=images / "photo/val", help="folder of images")
    ap.add_argument("--weights", type=Path, default=weights, help="Inception weights")
    ap.add_argument("--dims", type=int, nargs="+", default=[768, 192, 64])
    ap.add_argument("--n", type=int, help="use the first n images of each folder")
    ap.add_argument("--repeats", type=int, default=1)
    ap.add_argument("--json", type=Path, help="write the numbers here too")
    return ap.parse_args()


def copy_images(source, folder, n):
    "The first n images of a folder; returns how many there were"
    from toon2real.images import list_images

    folder.mkdir()
    files = list_images(source)[:n]
    for file in files:
        shutil.copy(file, folder / file.name)
    return len(files)


def measure(folder, dims, weights, repeats, env):
    "{what: [(distance, (wall, CPU)), ...]}"
    a, b = folder / "a", folder / "b"
    got = {what: [] for what in ("pytorch-fid", "cold", "target cached", "cold, bfloat16")}
    for i in range(repeats):
        cold, warm, half = (folder / f"{name}{dims}-{i}" for name in ("cold", "warm", "half"))
        got["pytorch-fid"].append(peer(a, b, dims, env))
        got["cold"].append(ours(a, b, dims, weights, "float32", cold, env))
        ours(a, b, dims, weights, "float32", warm, env, only="target")
        got["target cached"].append(ours(a, b, dims, weights, "float32", warm, env))
        got["cold, bfloat16"].append(ours(a, b, dims, weights, "bfloat16", half, env))
    return got


def rows_of(dims, got):
    "A row for each way, with its ratios to pytorch-fid"

    def median(what, i):
        return statistics.median(seconds[i] for _, seconds in got[what])

    reference = got["pytorch-fid"][0][0]
    for what, runs in got.items():
        distance, wall, cpu = runs[0][0], median(what, 0), median(what, 1)
        yield dict(
            dims=dims,
            what=what,
            distance=distance,
            difference=distance / reference - 1,
            seconds=wall,
            cpu=cpu,
            ratio=median("pytorch-fid", 0) / wall,
            cpu_ratio=median("pytorch-fid", 1) / cpu,
        )


def show(row):
    name = row["what"] if row["what"] == "pytorch-fid" else f"toon2real, {row['what']}"
    numbers = f"{row['distance']:.6g} | {row['difference']:+.1e} | {row['seconds']:.1f} | {row['ratio']:.2f}"
    print(f"| {row['dims']} | {name} | {numbers} | {row['cpu']:.1f} | {row['cpu_ratio']:.2f} |", flush=True)


def main():
    args = arguments()
    import torch

    from toon2real.features import OFFICIAL

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        hub = folder / "torch/hub/checkpoints"
        hub.mkdir(parents=True)
        complete(args.weights, hub / OFFICIAL)
        env = {**os.environ, "TORCH_HOME": str(folder / "torch"), "PYTHONPATH": str(ROOT)}
        env.pop("TOON2REAL_INCEPTION", None)
        sources = {"a": args.generated, "b": args.target}
        counts = {name: copy_images(source, folder / name, args.n) for name, source in sources.items()}
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        machine = f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, {device}"
        print(f"{counts['a']} | {counts['b']} images; torch {torch.__version__}, {machine}; median of {args.repeats}\n")
        print("| features | | distance | relative difference | seconds | times as fast | CPU seconds | times less |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        rows = []
        for dims in args.dims:
            for row in rows_of(dims, measure(folder, dims, args.weights, args.repeats, env)):
                show(row)
                rows.append(row)
        if args.json:
            args.json.write_text(json.dumps(dict(counts=counts, rows=rows), indent=1))


if __name__ == "__main__":
    main()

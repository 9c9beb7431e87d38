#!/usr/bin/env python
"""What holds on this GPU, and how fast. Each part is a process of its own; the next one runs whatever became of it.

    checks    `pytest -m gpu`: gradients, graphs, determinism, resume, memory, the compiler (a minute or two)
    step      batch 1 against a plain step as the public CycleGAN makes it: aim 6 times (two minutes)
    rate      pairs a second at growing batches, and the share of the peak: aims 700 with identity loss and 1,000
              without on an H200. As a step is made by default, where cuDNN tries its ways to convolve
              (torch.backends.cudnn.benchmark), where weights and so activations have their channels last in memory,
              as tensor cores read them, and at the best batch compiled (three minutes, most of them compiling)
    profile   which kernels a step consists of, plain and compiled (a minute)
    fid       seconds of training to a stated FID-768, at batch 1 and at a larger one (four minutes)

    python bench/gpu.py --parts checks step rate     at most 8 minutes; fewer with --identity 0.5
    python bench/gpu.py --parts profile fid          at most 6 minutes
    python bench/gpu.py                              all of it
    python bench/gpu.py --out $OUT --parts rate fid  results into another folder
    python bench/gpu.py --parts fid --data shared/data/scenery128 --target 2.5
    python bench/gpu.py --device cpu --tiny --parts step rate    does the script run? A minute of a processor

Written as it goes, so that a part that is ended leaves what it had: OUT/PART.json, OUT/PART.log and OUT/summary.md.

`step` and `rate` get made-up pictures from our `Pairs`, in the GPU's memory, the peer as well: no picture is decoded.
The peer is float32 (TF32, as PyTorch convolves), with cuDNN's search on, and its losses are not read. Times are of
blocks of steps without a wait between them; medians count, blocks alternate. `prepared` is the seconds before that:
building, compiling, recording. Shares are of the best matrix product or convolution measured here in bf16, not of the
data sheet's.

`fid` trains on embedded scenes, or on --data with cartoon/{train,val} and photo/{train,val}; it needs Inception's
weights (TOON2REAL_INCEPTION, or --weights), without which distances are on simple features and called so. Without
--target the stated value is the lowest that every training reached within its --seconds, evaluations not counted."""

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the library beside this file, installed or not
LIMITS = dict(checks=150, step=120, rate=220, profile=90, fid=270)  # seconds
WAYS = {
    "bf16": {},
    "bf16, searched": dict(search=True),
    "bf16, searched, channels last": dict(search=True, layout=torch.channels_last),
}
AIMS = {0.5: 700, 0.0: 1000}  # pairs a second by identity loss
PEER = "peer, float32"


class Rows:
    "What a part has found, written at once"

    def __init__(self, args, part):
        self.file, self.rows = args.out / f"{part}.json", []
        self.file.unlink(missing_ok=True)

    def add(self, **row):
        self.rows.append(row)
        self.file.write_text(json.dumps(self.rows, indent=1))
        print("  ".join(f"{name} {shown(value)}" for name, value in row.items()), flush=True)


def shown(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def recipe_of(args, **changes):
    from toon2real.cyclegan import toon2real

    recipe = toon2real.replace(seed=0, **changes)
    return recipe.tiny(width=8, blocks=1, **changes) if args.tiny else recipe


def made_up(recipe, device):
    "Batches of random pictures, as a training gets them"
    from toon2real.data import Domain, Pairs, load_side

    side, n = load_side(recipe.side), max(64, 2 * recipe.batch)
    draw = np.random.default_rng(0)
    domains = [Domain.open(draw.integers(0, 256, (n, side, side, 3), np.uint8), side) for _ in range(2)]
    return Pairs(*domains, recipe.side, recipe.batch, recipe.seed, device)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


class Way:
    "A way to make steps: warmed up, and timed in blocks"

    def __init__(self, recipe, device, steps, make):
        self.recipe, self.device, self.steps, self.times, self.done = recipe, device, steps, [], 0
        self.pairs = made_up(recipe, device)
        start = time.perf_counter()
        self.move = make(recipe, device)
        for _ in range(6):  # plain ones, the recording, and a replay
            self.step()
        synchronize(device)
        self.prepared = time.perf_counter() - start

    def step(self):
        batch = self.pairs.batch(1 + self.done // self.pairs.steps, self.done % self.pairs.steps)
        self.done += 1
        return self.move(batch)

    def block(self):
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step()
        synchronize(self.device)
        self.times.append((time.perf_counter() - start) / self.steps)

    @property
    def seconds(self) -> float:
        return statistics.median(self.times)


def peer(recipe, device):
    from step import Peer

    torch.backends.cudnn.benchmark = True
    made = Peer(recipe.build().to(device), device)
    return lambda batch: made.step(batch.c, batch.r, read=False)


def ours(precision, compile, search=False, layout=torch.preserve_format):
    def make(recipe, device):
        torch.backends.cudnn.benchmark = search
        system = recipe.build().to(device, memory_format=layout).speed_up(precision, compile)

        def move(batch):
            system.set_lr(1, 1)
            return system.step(batch.c, batch.r, index=batch.index)

        move.system = system
        return move

    return make


def state(way) -> str:
    "Was the step recorded?"
    system = getattr(way.move, "system", None)
    graph = system is not None and system.captured is not None and system.captured.graph is not None
    return "graph" if graph else "plain"


def emptied(device):
    "The GPU's memory without what was measured before: a system is a circle of references"
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def gigabytes(device) -> float:
    return torch.cuda.max_memory_reserved() / 1e9 if device.type == "cuda" else 0.0


def measured_step(args, device, rows):
    "Batch 1: every way beside the peer"
    from step import same_losses

    graphs = {"float32": ours("float32", "auto"), "bf16": ours("bf16", "auto")}
    for identity in args.identity:
        recipe = recipe_of(args, identity=identity)
        same_losses(recipe, device)
        first = identity == args.identity[0]
        ways = {PEER: peer} | ({"bf16, no graph": ours("bf16", False)} if first else {}) | graphs
        made = {name: Way(recipe, device, args.steps, make) for name, make in ways.items()}
        beside_the_peer(args, made, rows)
    if not args.tiny:
        recipe = recipe_of(args, identity=args.identity[0])
        ways = {PEER: peer, "bf16, compiled": ours("bf16", True)}
        made = {name: Way(recipe, device, args.steps, make) for name, make in ways.items()}
        beside_the_peer(args, made, rows)


def beside_the_peer(args, made, rows):
    "Blocks in turn, and a row for each way"
    for _ in range(args.rounds):
        for way in made.values():
            way.block()
    for name, way in made.items():
        times = statistics.median(p / t for p, t in zip(made[PEER].times, way.times))
        found = dict(batch=1, identity=way.recipe.identity, what=name, step=state(way), ms=1000 * way.seconds)
        rows.add(**found, pairs=1 / way.seconds, times=times, prepared=way.prepared)


def measured_rate(args, device, rows):
    "Pairs a second at growing batches, made in several ways; compiled where the batch was best"
    from step import flops, peak

    best = peak(device, torch.bfloat16)
    rows.add(what="best product or convolution, bf16", tflops=best / 1e12)
    for identity in args.identity:
        work, rates = flops(recipe_of(args, identity=identity)), {}

        def measure(batch, what, compile="auto", identity=identity, work=work, rates=rates, **how):
            emptied(device)
            recipe = recipe_of(args, identity=identity, batch=batch)
            way = Way(recipe, device, max(5, args.steps // batch), ours("bf16", compile, **how))
            for _ in range(args.rounds):
                way.block()
            rate = batch / way.seconds
            rates[batch] = max(rate, rates.get(batch, 0))
            found = dict(batch=batch, identity=identity, what=what, step=state(way), ms=1000 * way.seconds, pairs=rate)
            rows.add(**found, of_peak=rate * work / best, gigabytes=gigabytes(device), prepared=way.prepared)

        for batch in args.batch:
            for name, how in WAYS.items():
                attempt(rows, f"batch {batch}, {name}", partial(measure, batch, name, **how))
        top = max(rates, key=rates.get, default=None)
        if top and not args.tiny:
            attempt(rows, "compiled", partial(measure, top, "bf16, searched, compiled", True, search=True))


def attempt(rows, what, work):
    "A row, or a row that says why there is none"
    try:
        work()
    except RuntimeError as e:  # memory, say
        rows.add(what=what, failed=str(e).strip().partition("\n")[0][:200])


def pictures(args):
    "Training arrays and held-out ones"
    from toon2real.data import Domain, choose
    from toon2real.scenes import scenes

    n, held, side = (16, 8, 64) if args.tiny else (1000, 200, 128)
    if not args.data:
        names = [f"scenes:{kind}:{a}-{b}" for kind, a, b in (("cartoon", 0, n - 1), ("photo", n, 2 * n - 1))]
        judged = scenes(held, seed=2 * n, side=side), scenes(2 * held, seed=3 * n, side=side, kind="photo")
        return names, judged
    folders = [[Path(args.data) / kind / part for kind in ("cartoon", "photo")] for part in ("train", "val")]
    train = [Domain.open(folder, 143, progress=False).images for folder in folders[0]]
    some = [images[choose(len(images), n, 0, "bench")] for images in train]
    return some, tuple(Domain.open(folder, side, progress=False).images for folder in folders[1])


def measured_fid(args, device, rows):
    "Trainings at several batches; when which distance was reached"
    from toon2real.progress import Callback
    from toon2real.training import Trainer

    train, held = pictures(args)
    curves = {}

    class Watch(Callback):
        def epoch(self, trainer, row, samples):
            judged, first = trainer.judge, not self.seen
            self.seconds += row["seconds"]
            value, total = row[judged.main], int(row["pairs"])
            self.seen.append((self.seconds, value))
            if first:
                rows.add(what="untranslated", metric=judged.main, n=judged.n, value=judged.untranslated[judged.main])
            rows.add(what=f"batch {trainer.recipe.batch}", pairs=total, seconds=self.seconds, **{judged.main: value})
            if self.seconds > args.seconds:
                trainer.stop()

    for batch in args.fid_batch:
        emptied(device)
        watch = Watch()
        watch.seen, watch.seconds = curves.setdefault(batch, []), 0.0
        recipe = recipe_of(args, batch=batch).replace(epochs=1000, decay_epochs=0)
        quiet = dict(save_every=1000, save_minutes=60, weights_every=1000, sample_every=1000, progress=False)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            options = dict(device=device, val=held, evaluate_every=1, callbacks=[watch], **quiet)
            Trainer(recipe, *train, run=run, extractor=args.weights or "auto", **options).fit()
    stated = args.target or max(min(value for _, value in seen) for seen in curves.values())
    for batch, seen in curves.items():
        reached = next((seconds for seconds, value in seen if value <= stated), None)
        rows.add(what=f"seconds to {stated:.4g}", batch=batch, seconds=reached or "not reached")


def measured_profile(args, device, rows):
    "Kernels of a block of recorded steps at batch 1 and at the largest batch, there compiled too"
    from torch.profiler import ProfilerActivity, profile

    made = {"1": (1, "auto"), "large": (args.batch[-1], "auto"), "large-compiled": (args.batch[-1], not args.tiny)}
    for name, (batch, compile) in made.items():
        emptied(device)
        way = Way(recipe_of(args, batch=batch), device, max(5, args.steps // batch), ours("bf16", compile, search=True))
        with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]) as seen:
            way.block()
        table = seen.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=40)
        (args.out / f"profile-{name}.txt").write_text(table)
        rows.add(batch=batch, ms=1000 * way.seconds, table=f"profile-{name}.txt")


def checked() -> int:
    "pytest's exit status, in several processes where pytest-xdist is there"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "--durations=15"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "8"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, cwd=ROOT, env=os.environ | dict(PYTHONPATH=paths, TOON2REAL_COMPILE="1")).returncode


def run_part(args, part):
    "In this process; its exit status"
    device = torch.device(args.device)
    if part == "checks":
        return checked()
    works = dict(step=measured_step, rate=measured_rate, fid=measured_fid, profile=measured_profile)
    works[part](args, device, Rows(args, part))
    return 0


def run_parts(args) -> dict:
    "Each part in a process of its own: how it ended"
    ends = {}
    for part in args.parts:
        print(f"\n--- {part}, at most {LIMITS[part]} s", flush=True)
        start, log = time.perf_counter(), args.out / f"{part}.log"
        command = [sys.executable, "-u", __file__, "--part", part, *sys.argv[1:]]
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            ends[part] = followed(process, file, start + LIMITS[part])
        ends[part] += f", {time.perf_counter() - start:.0f} s"
        print(f"--- {part}: {ends[part]}", flush=True)
        (args.out / "summary.md").write_text(summary(args, ends))
    return ends


def followed(process, file, until: float) -> str:
    "What a process prints, here and in a file, until it ends or its time is over"
    watchdog = threading.Timer(max(0, until - time.perf_counter()), process.kill)
    watchdog.start()
    for line in process.stdout:
        file.write(line)
        file.flush()
        print(line, end="", flush=True)
    process.wait()
    over = not watchdog.is_alive()
    watchdog.cancel()
    if over:
        return "its time was over"
    return "done" if process.returncode == 0 else f"failed ({process.returncode})"


def rows_of(args, part) -> list[dict]:
    file = args.out / f"{part}.json"
    return json.loads(file.read_text()) if file.exists() else []


def summary(args, ends) -> str:
    "Markdown: how the parts ended, the aims, and every row"
    device = torch.device(args.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a processor"
    lines = [f"# {name}", f"torch {torch.__version__}, CUDA {torch.version.cuda}, {time.strftime('%Y-%m-%d %H:%M')}"]
    lines += ["\n".join(f"- {part}: {end}{counted(args, part)}" for part, end in ends.items())]
    aims = []
    for row in rows_of(args, "step"):
        if row["what"] != PEER:
            way = f"batch 1, identity {row['identity']:g}, {row['what']}"
            aims.append(f"- {way}: {row['times']:.1f} times the peer (aim 6)")
    for identity, aim in AIMS.items():
        rates = [row for row in rows_of(args, "rate") if row.get("identity") == identity and "pairs" in row]
        if rates:
            top = max(rates, key=lambda row: row["pairs"])
            share = f"{top['of_peak']:.0%} of the peak"
            rate = f"{top['pairs']:.0f} pairs/s at batch {top['batch']} ({top['what']}, {share}; aim {aim})"
            aims.append(f"- identity {identity:g}: {rate}")
    aims += [f"- batch {row['batch']}: {row['what']}: {shown(row['seconds'])}" for row in stated_rows(args)]
    tables = [f"## {part}\n\n{table(rows_of(args, part))}" for part in args.parts if rows_of(args, part)]
    return "\n\n".join([*lines, "\n".join(aims), *tables]) + "\n"


def counted(args, part) -> str:
    "What pytest said of its tests, where the part was tests"
    said = (args.out / f"{part}.log").read_text().splitlines()
    counts = [line for line in said if " in " in line and line.split(" ")[0].isdigit()]
    return f" ({counts[-1]})" if counts else ""


def stated_rows(args) -> list[dict]:
    return [row for row in rows_of(args, "fid") if row["what"].startswith("seconds to")]


def table(rows) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(shown(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    ap.add_argument("--part", choices=LIMITS, help=argparse.SUPPRESS)  # this process is one of them
    ap.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu", help="folder of the results")
    ap.add_argument("--batch", type=int, nargs="+", default=[4, 16, 32, 64], help="of rate; the last of profile")
    ap.add_argument("--identity", type=float, nargs="+", default=[0.5, 0.0], help="of step and rate")
    ap.add_argument("--steps", type=int, default=50, help="of a timed block at batch 1")
    ap.add_argument("--rounds", type=int, default=3, help="blocks of each")
    ap.add_argument("--fid-batch", type=int, nargs="+", default=[1, 16], help="of fid")
    ap.add_argument("--seconds", type=float, default=60, help="of training for each of them")
    ap.add_argument("--target", type=float, help="the distance whose time is wanted (default: one that all reach)")
    ap.add_argument("--data", type=Path, help="pictures for fid (default: embedded scenes)")
    ap.add_argument("--weights", type=Path, help="Inception's (default: TOON2REAL_INCEPTION, torch hub's cache)")
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--tiny", action="store_true", help="networks and numbers that only show whether the script runs")
    args = ap.parse_args()
    if args.tiny:
        args.steps, args.rounds, args.batch, args.fid_batch, args.seconds = 2, 2, [2], [1, 2], 1.0
    for name in ("out", "data", "weights"):
        path = getattr(args, name)
        setattr(args, name, path and path.absolute())
    return args


def main():
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    args = arguments()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no CUDA device: nothing to check here (--device cpu --tiny tries the script)")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        sys.exit(run_part(args, args.part))
    ends = run_parts(args)
    print("\n" + summary(args, ends), flush=True)
    sys.exit(any(not end.startswith("done") for end in ends.values()))


if __name__ == "__main__":
    main()

"""Kill trainings at random instants, resume them, and compare each with one that was never killed, bit for bit.

    python bench/faults.py --kills 300                    some minutes to an hour; the counts are printed at the end
    nice -n 19 python bench/faults.py --kills 1000        beside other work; stopped or killed, the same line goes on
    python bench/faults.py --steps 2000                   no kills: memory and open files over a long training (Linux)

What was done is in `--work` (by default a folder for this seed among the temporary files) and is not done again. A
child hangs when it has used LIMIT processor seconds or lasted PATIENCE seconds, however busy the machine is.

Children are forked from a parent that has imported everything and never computes, so that each is fresh and starts at
once. A kill strikes at a random moment, on entering a part of the work (creation, step, checkpoint, samples,
evaluation, weights, history), before a rename, or with half a file written. Needs fork (Linux, macOS).
"""

import argparse
import ctypes
import inspect
import json
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # noqa: F401 - which optimisers import, at their first use: once, for all

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.engine import commit
from toon2real.files import write_atomic
from toon2real.patchwise import patchwise
from toon2real.progress import Callback
from toon2real.runs import Run
from toon2real.scenes import scenes
from toon2real.training import Trainer
from toon2real.unit import unit

SMALL = dict(width=4, blocks=1, epochs=2, decay_epochs=1)
RECIPES = {
    "toon2real": toon2real.tiny(pool=4, **SMALL),
    "cartoon2real": cartoon2real.tiny(pool=4, **SMALL),
    "unit": unit.tiny(**SMALL | dict(width=8)),
    "patchwise": patchwise.tiny(patches=16, **SMALL),
}
PARTS = {  # of the work, by the method in which it is done
    "creation": (Run, "create"),
    "step": (Trainer, "_step"),
    "checkpoint": (Run, "save_checkpoint"),
    "samples": (Run, "save_samples"),
    "evaluation": (Trainer, "_evaluate"),
    "weights": (Run, "save_epoch"),
    "history": (Run, "_write_history"),
}
NAMES = ["between", *PARTS]
LIMIT, PATIENCE = 300, 7200  # processor seconds, and seconds, until a child counts as hung


def with_parent():
    "On Linux: end when the parent does, so that nothing goes on writing where its successor works"
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def pictures() -> dict:
    "Few and small: training and held-out scenes"
    kinds = {name: scenes(3, seed=seed, side=72, kind=name) for name, seed in (("cartoon", 0), ("photo", 100))}
    held = tuple(scenes(n, seed=200, side=64, kind=name) for name, n in (("cartoon", 4), ("photo", 8)))
    return {**kinds, "val": held}


def train(path: Path, recipe, data: dict):
    "Start the run or go on with it"
    if (path / "run.json").exists():
        trainer = Trainer.resume(path, **data, progress=False)
    else:
        options = dict(
            precision="float32", save_minutes=0, evaluate_every=1, evaluate_n=4, samples=2, extractor="simple"
        )
        trainer = Trainer(recipe, run=path, progress=False, **data, **options)
    trainer.fit()


class Child:
    "A training in a process of its own, and where it is"

    def __init__(self, path: Path, recipe, data: dict, plan: dict, log: Path):
        self.where = mmap.mmap(-1, 1)
        self.pid = os.fork()
        if not self.pid:
            self._be(path, recipe, data, plan, log)

    def _be(self, path, recipe, data, plan, log):
        code = 1
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1), os.dup2(out, 2)
            with_parent()
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
            torch.set_num_threads(1)
            for name, (owner, method) in PARTS.items():
                setattr(owner, method, self._watched(name, getattr(owner, method), plan))
            self._break_files(plan)
            train(path, recipe, data)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _watched(self, name: str, method, plan: dict):
        "The method, which tells that it is under way, and dies soon after it began where the plan says so"
        number, entries = NAMES.index(name), 0

        @wraps(method)
        def inner(*args, **kwargs):
            nonlocal entries
            entries += 1
            before, self.where[0] = self.where[0], number
            if plan.get("part") == name and plan["nth"] == entries:
                signal.setitimer(signal.ITIMER_REAL, plan["after"])  # whose signal kills
            try:
                return method(*args, **kwargs)
            finally:
                self.where[0] = before

        return staticmethod(inner) if inspect.ismethod(method) else inner  # that of a class knows its class

    def _break_files(self, plan: dict):
        "Die before the nth rename, or with half of the nth file written"
        replace, write, counts = os.replace, Path.write_bytes, Counter()

        def due(kind):
            counts[kind] += 1
            return plan.get("file") == kind and plan["nth"] == counts[kind]

        def dying_replace(*args):
            if due("rename"):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*args)

        def dying_write(path, data):
            if due("half"):
                write(path, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(path, data)

        os.replace, Path.write_bytes = dying_replace, dying_write

    def wait(self, seconds: float = PATIENCE) -> int | None:
        "Its exit code (the negative signal that killed it), None if it still runs"
        until = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                return None
            time.sleep(0.002)

    def kill(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def planned(rng: random.Random, seconds: float) -> dict:
    "When a child is to die"
    kind = rng.random()
    if kind < 0.4:
        return {"at": rng.uniform(0, seconds)}
    if kind < 0.7:
        return {"part": rng.choice(list(PARTS)), "nth": rng.randint(1, 5), "after": rng.uniform(1e-6, 0.03)}
    return {"file": rng.choice(["rename", "half"]), "nth": rng.randint(1, 16)}


def differences(whole: Run, run: Run) -> list[str]:
    "What of a run is not, bit for bit, as in the one that was never killed; seconds are"
    (step, a), (other, b) = whole.load_checkpoint(), run.load_checkpoint()
    found = [] if step == other and a.keys() == b.keys() else ["the steps"]
    found += [name for name in a.keys() & b.keys() if name != "loop/seconds" and not torch.equal(a[name], b[name])]
    x, y = (each.history.drop(columns="seconds") for each in (whole, run))
    found += [] if x.equals(y) else ["the history"]
    for folder in ("samples", "weights"):
        names = [sorted(p.name for p in (each.path / folder).iterdir()) for each in (whole, run)]
        found += [] if names[0] == names[1] else [f"the names in {folder}"]
    for name in (p.name for p in (whole.path / "samples").iterdir()):
        if (whole.path / "samples" / name).read_bytes() != (run.path / "samples" / name).read_bytes():
            found.append(name)
    for epoch in whole.weight_epochs:
        p, q = (each.system(epoch).state_dict() for each in (whole, run))
        found += [f"weights {epoch} {name}" for name in p if not torch.equal(p[name], q[name])]
    return found + [f"left behind: {part.name}" for part in run.path.rglob("*.tmp")]


def one(path: Path, start, rng: random.Random, seconds: float, most: int) -> tuple[Counter, list[str]]:
    "A run that is killed up to `most` times and then ended: kills by the part of the work, and what went wrong"
    struck, log = Counter(), path.with_suffix(".log")
    for _ in range(most):
        plan = planned(rng, seconds)
        child = start(path, plan, log)
        code = child.wait(plan.get("at", PATIENCE))
        if code is None:
            code = child.kill()
        if code == 0:
            break
        if code not in (-signal.SIGKILL, -signal.SIGALRM):
            return struck, [f"ended with {code} after {plan}: {log.read_text()[-1500:]}"]
        struck[f"{plan.get('file', '')} {NAMES[child.where[0]]}".strip()] += 1
    last = start(path, {}, log)
    code = last.wait()
    if code is None:
        last.kill()
    return struck, [] if code == 0 else [f"did not end ({code}): {log.read_text()[-1500:]}"]


def faults(kills: int, seed: int = 0, systems=tuple(RECIPES), work: Path = None, say=print) -> dict:
    "Kill until there were so many; counts, and what differed"
    work = Path(work or tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    state_file, data = work / "state.json", pictures()
    new = {"seed": seed, "commit": commit(), "runs": 0, "kills": {}, "wrong": [], "seconds": {}}
    state = json.loads(state_file.read_text()) if state_file.exists() else new
    if (state["seed"], state["commit"]) != (seed, commit()):
        raise SystemExit(f"{work} is of seed {state['seed']} and commit {state['commit']}: remove it, or name another")
    starts, seconds = {name: partial(_start, RECIPES[name], data) for name in systems}, state["seconds"]
    for name in [name for name in systems if name not in seconds]:
        shutil.rmtree(work / f"whole-{name}", ignore_errors=True)  # begun, and cut off with the whole bench
        begun = time.monotonic()
        if starts[name](work / f"whole-{name}", {}, work / "whole.log").wait() != 0:
            raise RuntimeError((work / "whole.log").read_text()[-2000:])
        seconds[name] = time.monotonic() - begun
        write_atomic(state_file, json.dumps(state, indent=1).encode())
    while sum(state["kills"].values()) < kills:
        number, left = state["runs"], kills - sum(state["kills"].values())
        name, path = systems[number % len(systems)], work / f"cut-{number:05d}"
        rng = random.Random(f"{seed} {number}")
        shutil.rmtree(path, ignore_errors=True)
        path.with_suffix(".log").unlink(missing_ok=True)
        struck, wrong = one(path, starts[name], rng, seconds[name], min(rng.randint(1, 5), left))
        wrong = wrong or differences(Run(work / f"whole-{name}"), Run(path))
        log = path.with_suffix(".log").read_text()
        wrong += [line for line in log.splitlines() if "changed after the training" in line]  # a false alarm
        state["wrong"] += [f"{path.name} ({name}): {what}" for what in wrong]
        state["kills"] = dict(Counter(state["kills"]) + struck)
        state["runs"] += 1
        write_atomic(state_file, json.dumps(state, indent=1).encode())
        say(f"{sum(state['kills'].values())} kills, {state['runs']} runs, {len(state['wrong'])} wrong", *wrong[:2])
        if not wrong:
            shutil.rmtree(path)
            path.with_suffix(".log").unlink()
    return state


def _start(recipe, data, path: Path, plan: dict, log: Path) -> Child:
    return Child(path, recipe, data, plan, log)


class Growth(Callback):
    "Resident memory and open files of this process, every hundred steps"

    def __init__(self):
        self.rows = []

    def losses(self, trainer):
        if trainer.step % 100 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.rows.append((trainer.step, pages * mmap.PAGESIZE / 2**20, len(os.listdir("/proc/self/fd"))))


def grow(steps: int, work: Path, name: str):
    "Train so long in this process, with samples, evaluations and checkpoints on the way, and print what it holds"
    data = pictures()
    recipe = RECIPES[name].replace(epochs=-(-steps // len(data["cartoon"])), decay_epochs=0)
    growth = Growth()
    if work:
        work.mkdir(parents=True, exist_ok=True)
    options = dict(precision="float32", evaluate_every=20, sample_every=20, weights_every=50, save_every=10)
    options |= dict(evaluate_n=4, samples=2, extractor="simple", progress=False, callbacks=[growth])
    with tempfile.TemporaryDirectory(dir=work) as folder:
        Trainer(recipe, run=Path(folder) / "run", **data, **options).fit()
    print(f"{name}\n  step   MiB   open files")
    for step, memory, files in growth.rows[:: max(1, len(growth.rows) // 10)]:
        print(f"{step:6} {memory:5.0f} {files:4}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder to work in and to go on in (default: one for the seed)")
    parser.add_argument("--systems", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--steps", type=int, help="instead of kills: memory and open files over so many steps")
    args = parser.parse_args()
    if args.steps:
        for name in args.systems:
            grow(args.steps, args.work, name)
        return
    started, work = time.monotonic(), args.work or Path(tempfile.gettempdir()) / f"toon2real-faults-{args.seed}"
    state = faults(args.kills, args.seed, args.systems, work, partial(print, flush=True))
    print(f"\nseed {args.seed}, {', '.join(args.systems)}, torch {torch.__version__}, numpy {np.__version__}")
    for where, count in sorted(state["kills"].items(), key=lambda item: -item[1]):
        print(f"{count:6} kills: {where}")
    total = sum(state["kills"].values())
    minutes = (time.monotonic() - started) / 60
    print(f"{total:6} kills of {state['runs']} runs, {len(state['wrong'])} differences, {minutes:.0f} minutes")
    for what in state["wrong"]:
        print(what)
    sys.exit(bool(state["wrong"]))


if __name__ == "__main__":
    main()

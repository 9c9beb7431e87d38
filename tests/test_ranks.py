"""Several processes train what one process trains: losses, weights, pools, samples, in one folder.

In float64, whose rounding (1e-16) a few steps of two players multiply by about 1e6: numbers agree to 1e-7, and what
is further apart is a mistake. `accelerate launch` starts two processes once, for most tests; they run this file. With
`--multi_gpu` it does so without a GPU too. The command line is launched by torchrun."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch

from toon2real.cyclegan import CycleGAN, CycleGANRecipe
from toon2real.features import features
from toon2real.fid import fid
from toon2real.progress import Callback
from toon2real.runs import Run
from toon2real.scenes import scenes, write_scenes
from toon2real.system import ranks, system_state
from toon2real.training import Trainer
from toon2real.unit import unit


@dataclass(frozen=True)
class DoubleRecipe(CycleGANRecipe):
    def build(self):
        return Double(self)


class Double(CycleGAN):
    "A CycleGAN in float64 that takes and gives float32"

    interrupted = None  # after so many samples the last process gets a SIGTERM

    def __init__(self, recipe):
        super().__init__(recipe)
        self.double()

    def step(self, c, r, index=None):
        terms = super().step(c.double(), r.double(), index)
        rank, world = ranks()
        if self.seen == self.interrupted and rank == world - 1:
            signal.raise_signal(signal.SIGTERM)
        return terms

    def to_photo(self, c):
        return super().to_photo(c.double()).float()

    def to_cartoon(self, r):
        return super().to_cartoon(r.double()).float()


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # or it asks for a file
CLI = [sys.executable, "-c", "import sys; from toon2real.cli import main; sys.exit(main())", "train"]
# five cartoons make three steps an epoch, so that the second epoch draws from full pools
RECIPE = DoubleRecipe(
    name="double", norm="sn+in", side=24, width=2, blocks=1, pool=3, batch=2, epochs=1, decay_epochs=1
)
PICTURES = scenes(5, side=27), scenes(4, seed=10, side=27, kind="photo")


def trainer(path, recipe=RECIPE, **options):
    return Trainer(recipe, *PICTURES, run=path, precision="float32", samples=2, progress=False, **options)


def resumed(path):
    return Trainer.resume(path, *PICTURES, progress=False)


def unit_steps():
    "Losses of two steps, and the state after them"
    system = unit.replace(side=64, width=2, blocks=1, batch=2).build().double()
    pictures = torch.rand(2, 2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    rank, world = ranks()
    losses = [torch.stack(list(system.step(c[rank::world], r[rank::world]).values())) for c, r in zip(*pictures)]
    return {"losses": torch.stack(losses), **system_state(system)}


class AskedToStop(Callback):
    "Somebody asks for a stop by the folder"

    def losses(self, trainer):
        if trainer.step == 4:
            trainer.run.stop()
            trainer.done["listen"] = 0  # so that it is seen at once


def ended(how) -> str:
    "How a call ends"
    try:
        how()
    except BaseException as e:
        return f"{type(e).__name__}: {e}"
    return "returned"


def among_several(work: Path):
    "What each of the processes does"
    torch.set_num_threads(1)
    resumed(work / "begun").fit(2)
    half = trainer(work / "half")
    half.fit(1)
    whole = trainer(work / "both")
    whole.fit()
    taken = ended(lambda: trainer(work / "both"))
    uneven = ended(lambda: trainer(work / "uneven", RECIPE.replace(batch=3)))
    interrupted, asked = (trainer(work / name, RECIPE.replace(epochs=50)) for name in ("interrupted", "asked"))
    interrupted.system.interrupted = 4
    signalled = ended(interrupted.fit)
    asked.callbacks += [AskedToStop()] * asked.first
    asked.fit()
    told = dict(steps=[half.step, whole.step, interrupted.step, asked.step], ends=[taken, uneven, signalled])
    told["features"] = features(PICTURES[0], "simple", shard=True, batch=2).tolist()
    told["fid"] = fid(*PICTURES, "simple", shard=True, batch=2)
    (work / f"{ranks()[0]}.json").write_text(json.dumps(told))
    torch.save(unit_steps(), work / f"{ranks()[0]}.pt")


if __name__ == "__main__":
    import test_ranks  # under this name the run's recipe is looked up

    test_ranks.among_several(Path(sys.argv[1]))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with runs of one process, of two, and of both in turn"
    work = tmp_path_factory.mktemp("ranks")
    trainer(work / "alone").fit()
    trainer(work / "begun").fit(1)
    done = subprocess.run([*ACCELERATE, __file__, work], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    with pytest.warns(UserWarning, match="processes 2 -> 1"):
        resumed(work / "half").fit(2)
    return work


def told(work: Path) -> list[dict]:
    "By each process"
    return [json.loads((work / f"{rank}.json").read_text()) for rank in (0, 1)]


def same(ours: dict, theirs: dict):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name != "loop/seconds":
            assert value.shape == ours[name].shape and (ours[name] - value).abs().max() <= 1e-7, name


@pytest.mark.parametrize("name", ["both", "begun", "half"])
def test_one_training_however_many_processes(work, name):
    "All of it in two processes, the second epoch in two, the first in two: one history, one checkpoint, one sheet"
    alone, run = Run(work / "alone"), Run(work / name)
    (step, theirs), (own, ours) = alone.load_checkpoint(), run.load_checkpoint()
    assert own == step == 6 and int(ours["seen"]) == 12
    same(ours, theirs)
    rows, others = (k.history.drop(columns="seconds") for k in (run, alone))
    assert rows.columns.equals(others.columns) and len(rows) == 2
    assert np.allclose(rows, others, rtol=1e-7, atol=0)
    for column, pictures in alone.samples().items():
        assert np.abs(run.samples()[column].astype(int) - pictures).max() <= 1, column  # 1e-7 may round a level up
    assert not list(run.path.rglob("*.tmp"))
    assert {p.name for p in run.path.iterdir()} == {p.name for p in alone.path.iterdir()}
    assert run.progress["state"] == "finished"


def test_all_stop_at_the_same_step(work):
    "A signal that the second process gets, or a file that the first one finds"
    first, second = told(work)
    assert first["steps"] == second["steps"] == [3, 6, 2, 4]
    assert (first["ends"][2], second["ends"][2]) == ("returned", "SystemExit: 143")
    for name, step in (("interrupted", 2), ("asked", 4)):
        run = Run(work / name)
        assert run.checkpoint_steps[-1] == step and run.progress["state"] == "stopped" and not run.stop_requested


def test_what_the_first_cannot_do_none_does(work):
    first, second = (it["ends"] for it in told(work))
    assert "both already holds a run" in first[0]
    assert second[0] == "RuntimeError: the first of the processes could not go on; its message says why"
    assert "batch must be a multiple of world" in first[1] and "batch must be a multiple of world" in second[1]
    assert not (work / "uneven").exists()


def test_unit_and_features_are_those_of_one_process(work):
    alone, distance = unit_steps(), fid(*PICTURES, "simple")
    apart = features(PICTURES[0], "simple").tolist()
    for rank, it in enumerate(told(work)):
        same(torch.load(work / f"{rank}.pt"), alone)
        assert it["features"] == apart and it["fid"] == distance


def test_the_command_line_in_two_processes(tmp_path):
    "torchrun gets a SIGTERM, as at the end of a cluster's time: both stop, one saves and speaks"
    for kind in ("cartoon", "photo"):
        write_scenes(tmp_path / kind, 6, kind, side=72)
    path = tmp_path / "run"
    command = [*LAUNCH, "--no-python", "--", *CLI, "--cartoon", tmp_path / "cartoon", "--photo", tmp_path / "photo"]
    small = dict(width=8, blocks=1, side=64, epochs=500, decay_epochs=0, batch=2)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in small.items()]
    command += ["--run", path, "toon2real", *options]
    process = subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (path / "run.json").exists() and (Run(path).progress or {}).get("step", 0) >= 3:
            process.terminate()
            break
        time.sleep(0.1)
    out, err = process.communicate(timeout=200)
    run = Run(path)
    assert run.progress["state"] == "stopped" and run.checkpoint_steps[-1] == run.progress["step"] >= 3, err
    assert out.count(f"saved at step {run.progress['step']}") == out.count("-> " + str(path)) == 1, out + err

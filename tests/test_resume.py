"Kill a training at any instant, resume it: the weights, the history and the samples are of one that was never killed"

import subprocess
import sys

import pytest

# Runs in a process of its own that never computes anything itself, so that its forked children start at once and clean.
HARNESS = r"""
import os, random, signal, sys, time
from pathlib import Path
import torch

torch.set_num_threads(1)
from toon2real.cyclegan import toon2real
from toon2real.patchwise import patchwise
from toon2real.unit import unit
from toon2real.runs import Run
from toon2real.scenes import scenes
from toon2real.progress import Callback
from toon2real.training import Trainer

work, mode, system = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
small = dict(width=8, blocks=1, epochs=2, decay_epochs=1)
presets = {
    "toon2real": toon2real.replace(pool=4, average=0.9),
    "unit": unit,
    "patchwise": patchwise.replace(average=0.9),
}
k = presets[system].tiny(**small)
n = 14 if mode == "random" else 3
c, r = scenes(n, seed=0, side=72, kind="cartoon"), scenes(n - 1, seed=100, side=72, kind="photo")


class Curious(Callback):
    "Looks at the samples, and writes down where it is, every few steps: more files to be killed in"

    def losses(self, trainer):
        if trainer.step % 3 == 0:
            trainer.look()
            trainer.callbacks[0].pause = 0


def train(path, die_at=None):
    if die_at is not None:  # as if the power went in the instant before the die_at-th rename
        replace, calls = os.replace, [0]

        def dying(*a):
            calls[0] += 1
            if calls[0] > die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*a)

        os.replace = dying
    curious = [] if path.name == "whole" else [Curious()]
    if (path / "run.json").exists():
        t = Trainer.resume(path, c, r, progress=False, callbacks=curious)
    else:
        t = Trainer(k, c, r, run=path, precision="float32", progress=False, save_minutes=0, callbacks=curious)
    t.fit()


def child(*args):
    pid = os.fork()
    if not pid:
        try:
            train(*args)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return pid


def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


assert end(child(work / "whole")) == 0
kills, rng = 0, random.Random(0)
if mode == "random":
    while True:
        pid = child(work / "cut")
        if kills < 8:
            time.sleep(rng.uniform(0.05, 0.8))
            os.kill(pid, signal.SIGKILL)
        code = end(pid)
        assert code in (0, -signal.SIGKILL), code
        if code == 0:
            break
        kills += 1
else:
    for die_at in range(0, 1000, 7):  # every seventh rename, each in a run of its own that is then resumed
        path = work / f"cut{die_at}"
        code = end(child(path, die_at))
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        kills += 1
        assert end(child(path)) == 0
assert kills >= 4, kills

whole = Run(work / "whole")
for path in work.glob("cut*"):
    run = Run(path)
    (s, a), (t, b) = whole.load_checkpoint(), run.load_checkpoint()
    assert s == t and a.keys() == b.keys()
    for key in a:
        if key != "loop/seconds":
            assert torch.equal(a[key], b[key]), (path, key)
    x, y = (q.history.drop(columns="seconds") for q in (whole, run))
    assert x.equals(y), (path, x, y)
    assert whole.sample_epochs == run.sample_epochs and whole.weight_epochs == run.weight_epochs
    for e in whole.sample_epochs:
        assert whole._samples(e).read_bytes() == run._samples(e).read_bytes(), (path, e)
    assert not list(path.rglob("*.tmp"))
print("kills", kills)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "mode, system", [("random", "toon2real"), ("random", "unit"), ("random", "patchwise"), ("renames", "toon2real")]
)
def test_killed_runs_equal_the_unbroken_one(tmp_path, mode, system):
    r = subprocess.run(
        [sys.executable, "-c", HARNESS, str(tmp_path), mode, system], capture_output=True, text=True, timeout=300
    )
    assert r.returncode == 0, r.stdout + r.stderr[-4000:]


def test_ctrl_c_saves_and_resume_goes_on(tmp_path):
    "The command line, interrupted: it says what to do, ends with 130, and the resumed run has every step"
    import signal
    import time

    from toon2real.runs import Run
    from toon2real.scenes import write_scenes

    for kind in ("cartoon", "photo"):
        write_scenes(tmp_path / kind, 30, kind, side=72)
    command = [sys.executable, "-c", "import sys; from toon2real.cli import main; sys.exit(main())", "train"]
    p = subprocess.Popen(
        [
            *command,
            "--cartoon",
            tmp_path / "cartoon",
            "--photo",
            tmp_path / "photo",
            "--run",
            tmp_path / "run",
            "--save-minutes",
            "0",
            "toon2real",
            *["--width", "8", "--blocks", "1", "--side", "64", "--epochs", "1", "--decay-epochs", "1"],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("run/checkpoints/step-0000000[3-9].safetensors"))
        and time.monotonic() < deadline
        and p.poll() is None
    ):
        time.sleep(0.02)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    assert p.returncode == 130 and f"toon2real train --resume {tmp_path / 'run'}" in err, out + err
    run = Run(tmp_path / "run")
    assert 3 <= run.checkpoint_steps[-1] < 60
    assert subprocess.run([*command, "--resume", tmp_path / "run"], capture_output=True).returncode == 0
    assert run.history.step.tolist() == [30, 60]

"A training is watched and stopped from outside: another process, a closed terminal, the end of the interpreter"

import os
import signal
import subprocess
import sys
import time
from queue import Empty

import pytest

from toon2real.cyclegan import toon2real
from toon2real.progress import Callback
from toon2real.runs import Run
from toon2real.scenes import write_scenes
from toon2real.training import Trainer
from toon2real.weights import RunError

CLI = [sys.executable, "-c", "import sys; from toon2real.cli import main; sys.exit(main())", "train"]
SMALL = ["toon2real", "--width", "8", "--blocks", "1", "--side", "64", "--epochs", "50", "--decay-epochs", "0"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for kind in ("cartoon", "photo"):
        write_scenes(folder / kind, 30, kind, side=72)
    return ["--cartoon", folder / "cartoon", "--photo", folder / "photo"]


def wait_for(run: str, process: subprocess.Popen, steps: int = 3) -> Run:
    "The run, as soon as it says that it trains and has made some steps"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "run.json").exists():
            told = Run(run).progress
            if told and told["state"] == "training" and told["step"] >= steps:
                return Run(run)
        time.sleep(0.1)
    pytest.fail(f"no training after 200 s\n{process.communicate()}")


def test_another_process_follows_and_stops(scenes, tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [*CLI, *scenes, "--run", path, *SMALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run = wait_for(path, process)
    told = run.progress
    assert run.running and told["until"] == 50 and told["steps_per_epoch"] == 30 and told["losses"]
    assert abs(told["heartbeat"] - time.time()) < 100
    assert run.preview.width == 6 * 66 - 2
    stopping = subprocess.run([*CLI, "--stop", path], capture_output=True, text=True, timeout=200)
    out, err = process.communicate(timeout=200)
    assert (stopping.returncode, process.returncode) == (0, 0), stopping.stderr + err
    last = run.checkpoint_steps[-1]
    assert f"stopped at step {last}: continue with toon2real train --resume {path}" in stopping.stdout
    assert f"toon2real train --resume {path}" in out and "translate" not in out
    assert run.progress["state"] == "stopped" and run.progress["step"] == last and not run.stop_requested
    with pytest.raises(RunError, match="not being trained"):
        run.stop()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that hang up")
def test_a_closed_terminal_saves(scenes, tmp_path):
    import pty

    path = tmp_path / "run"
    master, slave = pty.openpty()
    ends = dict(stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    process = subprocess.Popen([*CLI, *scenes, "--run", path, *SMALL], **ends)
    os.close(slave)
    run = wait_for(path, process)
    os.close(master)  # from now on every write to the terminal fails
    process.send_signal(signal.SIGHUP)
    process.wait(200)
    assert process.returncode == 128 + signal.SIGHUP
    assert run.progress["state"] == "stopped" and run.checkpoint_steps[-1] == run.progress["step"] >= 3


LEAVE = """
import sys, time
from pathlib import Path
from toon2real.cyclegan import toon2real
from toon2real.scenes import pairs
from toon2real.training import Trainer
cartoons, photos = pairs(6, side=64)
recipe = toon2real.tiny(width=8, blocks=1, epochs=500, decay_epochs=0)
trainer = Trainer(recipe, cartoons, photos, run=sys.argv[1], progress=False)
handle = trainer.fit(background=True)
while trainer.step < 3:
    time.sleep(0.05)
print(handle)
"""


def test_the_interpreter_ends_while_it_trains(tmp_path):
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", LEAVE, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    run = Run(path)
    assert run.progress["state"] == "stopped" and run.checkpoint_steps[-1] == run.progress["step"] >= 3
    assert "in the background: epoch 1 of 500" in done.stdout


CELL = """
import warnings
from toon2real.cyclegan import toon2real
from toon2real.scenes import pairs
from toon2real.training import Trainer
cartoons, photos = pairs(6, side=64)
recipe = toon2real.tiny(width=8, blocks=1, epochs=500, decay_epochs=0)
trainer = Trainer(recipe, cartoons, photos, run={run!r})
trainer.fit()
"""


def outputs(client, wanted: str, until=lambda: None) -> list[dict]:
    "What a cell shows: HTML of displays, or tracebacks; `until` is called while it runs"
    request, shown = client.execute(wanted), []
    while True:
        until()
        try:
            message = client.get_iopub_msg(timeout=0.2)
        except Empty:
            continue
        content = message["content"]
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            return shown
        if message["msg_type"] in ("error", "display_data", "update_display_data"):
            shown.append(content.get("traceback") or content["data"].get("text/html", ""))


def test_a_cell_is_interrupted_and_run_again(tmp_path):
    "In a notebook's kernel: a quiet end with the right advice, one line for a run that is there, and going on"
    manager = pytest.importorskip("jupyter_client.manager")
    path = tmp_path / "run"
    kernel, client = manager.start_new_kernel(startup_timeout=200, kernel_name="python3")
    asked = []

    def interrupt():
        told = (path / "run.json").exists() and Run(path).progress
        if told and told["state"] == "training" and told["step"] >= 3 and not asked:
            asked.append(kernel.interrupt_kernel())

    try:
        shown = outputs(client, CELL.format(run=str(path)), interrupt)
        run = Run(path)
        last = run.checkpoint_steps[-1]
        advice = f"saved at step {last}: continue with Trainer.resume({str(path)!r}, cartoon, photo).fit()"
        assert [line.startswith(advice) for line in shown[-1]] == [True]
        pages = [page for page in shown if isinstance(page, str)]
        assert any("<progress" in page and "Losses, smoothed" in page for page in pages)
        assert any("data:image/jpeg" in page for page in pages)
        assert run.progress["state"] == "stopped"

        again = outputs(client, CELL.format(run=str(path)))
        assert len(again) == 1 and len(again[0]) == 1 and "already holds a run" in again[0][0]
        assert "cartoon, photo).fit()" in again[0][0]

        asked.clear()
        outputs(client, "trainer = Trainer.resume(run, cartoons, photos)".replace("run", repr(str(path))))
        outputs(
            client, "trainer.fit(); trainer.step", lambda: last < (run.progress or {}).get("step", 0) and interrupt()
        )
        assert run.checkpoint_steps[-1] > last
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


class Slow(Callback):
    "Takes its time to show itself"

    shown = False

    def begin(self, trainer):
        time.sleep(0.3)
        self.shown = True


def test_callbacks_have_begun_when_fit_returns(tmp_path):
    "So that a monitor stands below the cell that started the training, not below the next, whose widgets find samples"
    slow, recipe = Slow(), toon2real.tiny(width=8, blocks=1, epochs=1, decay_epochs=0)
    options = {"callbacks": [slow], "progress": False}
    trainer = Trainer(recipe, "scenes:cartoon:0-3@72", "scenes:photo:4-7@72", tmp_path / "run", **options)
    handle = trainer.fit(background=True)
    assert slow.shown and trainer.run.sample_epochs == [0]
    handle.stop()
    handle.wait()

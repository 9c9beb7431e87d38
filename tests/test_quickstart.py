"Trainings in processes of their own: a hostile working folder, a parent that is killed, one that fails"

import os
import signal
import subprocess
import sys
import time

import pytest

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.experiment import train_all
from toon2real.quickstart import train_side_by_side
from toon2real.runs import Run
from toon2real.scenes import write_scenes
from toon2real.weights import RunError

TINY = [recipe.tiny(width=8, blocks=1, epochs=2, decay_epochs=0) for recipe in (cartoon2real, toon2real)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("scenes")
    for kind in ("cartoon", "photo"):
        write_scenes(top / kind, 5, kind, seed=50, side=72)
    return top / "cartoon", top / "photo"


def test_same_as_one_after_the_other_and_nothing_of_the_working_folder_runs(folders, tmp_path, monkeypatch, capfd):
    trap = tmp_path / "trap"
    for name in ("toon2real/__init__.py", "torch.py", "json.py", "sitecustomize.py"):
        (trap / name).parent.mkdir(parents=True, exist_ok=True)
        (trap / name).write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.chdir(trap)
    runs = train_side_by_side(TINY, *folders, tmp_path / "apart", at_once=2)
    assert not (tmp_path / "sprung").exists()
    assert [run.name for run in runs] == ["cartoon2real", "toon2real"]
    told = capfd.readouterr().err.splitlines()
    assert "100%|" in told[-1] and "20/20" in told[-1], told
    alone = train_all(TINY, *folders, tmp_path / "alone", progress=False)
    for a, b in zip(runs, alone):
        assert a.history.drop(columns="seconds").equals(b.history.drop(columns="seconds"))
        assert a.about["environment"]["threads"] == 1 or os.cpu_count() > 2
    before = [run.path.stat().st_mtime_ns for run in runs]
    again = train_side_by_side(TINY, *folders, tmp_path / "apart")
    assert [run.path.stat().st_mtime_ns for run in again] == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_goes_leaves_runs_that_go_on(folders, tmp_path, number):
    long = "[toon2real.tiny(width=8, blocks=1, epochs=1000, decay_epochs=0)]"
    code = f"""if True:
        from toon2real.cyclegan import toon2real
        from toon2real.quickstart import train_side_by_side
        train_side_by_side({long}, {str(folders[0])!r}, {str(folders[1])!r}, {str(tmp_path)!r}, save_minutes=60)
    """
    parent = subprocess.Popen([sys.executable, "-P", "-c", code], stderr=subprocess.DEVNULL)
    _until(lambda: (tmp_path / "toon2real" / "history.csv").exists())
    parent.send_signal(number)
    assert parent.wait() != 0
    run = Run(tmp_path / "toon2real")
    _until(lambda: not run.running)
    assert run.checkpoint_steps[-1] >= 5 and len(run.history) < 1000


def _until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_training_that_fails_is_named_and_the_others_save(folders, tmp_path):
    long, bad = TINY[0].replace(epochs=1000), TINY[1].replace(lr=1e18)
    with pytest.raises(RunError, match="toon2real: step .* is not finite"):
        train_side_by_side([long, bad], *folders, tmp_path, at_once=2, progress=False)
    other = Run(tmp_path / "cartoon2real")
    assert not other.running and len(other.history) < 1000

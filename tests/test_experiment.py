"Metrics while training, judging afterwards, and the table of runs"

import json

import pytest

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.experiment import compare, judge_run, train_all
from toon2real.fid import FLOOR, UNTRANSLATED
from toon2real.progress import Callback
from toon2real.runs import Run
from toon2real.scenes import scenes
from toon2real.training import Trainer
from toon2real.weights import RunError

RECIPE = toon2real.tiny(width=8, blocks=1, epochs=3, decay_epochs=1)
C, R = scenes(5, seed=0, side=72, kind="cartoon"), scenes(4, seed=50, side=72, kind="photo")
VAL = scenes(6, seed=100, side=64, kind="cartoon"), scenes(12, seed=150, side=64, kind="photo")
GIVEN = {"cartoon": VAL[0], "photo": VAL[1]}
QUIET = dict(progress=False, precision="float32", extractor="simple")


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def losses(self, t):
        t.stop() if t.step == self.step else None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Trainer(
        RECIPE, C, R, run=tmp_path_factory.mktemp("whole") / "run", val=VAL, evaluate_every=1, weights_every=9, **QUIET
    ).fit()


@pytest.mark.parametrize("step", [7, 10, 13])
def test_metrics_and_best_survive_an_interruption(whole, tmp_path, step):
    Trainer(
        RECIPE,
        C,
        R,
        run=tmp_path / "run",
        val=VAL,
        evaluate_every=1,
        weights_every=9,
        callbacks=[StopAt(step)],
        **QUIET,
    ).fit()
    cut = Trainer.resume(tmp_path / "run", C, R, VAL, progress=False).fit()
    assert cut.history.drop(columns="seconds").equals(whole.history.drop(columns="seconds"))
    assert cut.best == whole.best and cut.weight_epochs == whole.weight_epochs == sorted({whole.best, 4})
    assert cut.about["judge"] == whole.about["judge"]


def test_metrics_change_nothing_in_the_training(whole, tmp_path):
    plain = Trainer(RECIPE, C, R, run=tmp_path / "run", val=VAL, progress=False, precision="float32").fit()
    losses = [k for k in plain.history if k != "seconds"]
    assert plain.history[losses].equals(whole.history[losses]) and plain.best is None and plain.metric is None


def test_former_best_epochs_are_dropped_and_nothing_else(tmp_path):
    t = Trainer(RECIPE, C, R, run=tmp_path / "run", val=VAL, evaluate_every=1, weights_every=2, **QUIET)
    values = iter((5.0, 4.0, 3.0, 3.5))
    real = t.judge.__class__.__call__
    t.judge.__class__ = type(
        "Told", (t.judge.__class__,), {"__call__": lambda self, x: real(self, x) | {self.metric: next(values)}}
    )
    run = t.fit()
    assert run.best == 3 and run.weight_epochs == [2, 3, 4]  # 1 was the best once, and is gone


def test_a_judge_that_fails_does_not_end_the_training(tmp_path):
    t = Trainer(RECIPE, C, R, run=tmp_path / "run", val=VAL, evaluate_every=1, **QUIET)
    real, calls = t.judge.__class__.__call__, []

    def sometimes(self, x):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return real(self, x)

    t.judge.__class__ = type("Failing", (t.judge.__class__,), {"__call__": sometimes})
    with pytest.warns(UserWarning, match="no metrics for this epoch .out of memory."):
        run = t.fit()
    assert run.history[run.metric].isna().tolist() == [False, True, False, False]
    judge_run(run, *VAL, extractor="simple")  # fills the gap
    assert run.history[run.metric].notna().all()


def test_another_judge_never_shares_a_column(tmp_path):
    path = tmp_path / "run"
    Trainer(RECIPE, C, R, run=path, val=VAL, evaluate_every=1, callbacks=[StopAt(7)], **QUIET).fit()
    with pytest.raises(RunError, match="other images"):
        Trainer.resume(path, C, R, (VAL[0], scenes(14, seed=950, side=64, kind="photo")), progress=False)
    about = json.loads((path / "run.json").read_text())
    about["judge"]["extractor"] = "another"
    (path / "run.json").write_text(json.dumps(about))
    with pytest.warns(UserWarning, match="continues without metrics"):
        run = Trainer.resume(path, C, R, VAL, progress=False).fit()
    assert run.history[run.metric].isna().tolist() == [False, True, True, True]
    judge_run(run, *VAL, n=4, extractor="simple")
    assert run.about["judge"]["n"] == 4 and run.history[run.metric].notna().all()


def test_runs_from_before_there_were_metrics_go_on(tmp_path):
    Trainer(
        RECIPE, C, R, run=tmp_path / "run", val=VAL, callbacks=[StopAt(7)], progress=False, precision="float32"
    ).fit()
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    for k in ("evaluate_every", "evaluate_n", "extractor"):
        del about["options"][k]
    for d in about["data"].values():
        del d["stills"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert len(Trainer.resume(tmp_path / "run", C, R, VAL, progress=False).fit().history) == 4


def test_a_run_in_use_is_not_judged(whole):
    with whole.locked(), pytest.raises(RunError, match="another process"):
        judge_run(Run(whole.path), *VAL, n=5, extractor="simple")


def test_seeds_and_tables(whole, tmp_path):
    tiny = [r.tiny(width=8, blocks=1, epochs=1, decay_epochs=0) for r in (cartoon2real, toon2real)]
    runs = train_all(
        tiny, C, R, tmp_path / "runs", seeds=(1, 2), val=VAL, evaluate_every=1, extractor="simple", progress=False
    )
    assert [r.path.name for r in runs] == [
        "cartoon2real-seed1",
        "cartoon2real-seed2",
        "toon2real-seed1",
        "toon2real-seed2",
    ]
    t = compare(runs, **GIVEN, extractor="simple", reps=5).table
    assert list(t.index) == [
        FLOOR,
        UNTRANSLATED,
        *(f"{s}, seed {k}, best = last" for s in ("Cartoon-to-real", "toon2real") for k in (1, 2)),
    ]
    assert (
        t.attrs["notes"] == ["The floor is of other photographs."]
        and (t.pairs.dropna() == 5).all()
        and t.attrs["n"] == 6
    )
    assert t.paper.dropna().tolist() == [45.2566] * 2 + [39.2574] * 2
    assert t[t.attrs["metric"]][UNTRANSLATED] == pytest.approx(0.8 * t[t.attrs["main"]][UNTRANSLATED])
    notes = compare([whole, runs[0]], **GIVEN, extractor="simple", reps=5).notes
    assert "Different numbers of pairs seen. Cartoon-to-real: 5; toon2real: 20." in notes
    with pytest.raises(ValueError, match="the same run twice"):
        compare([whole, whole], extractor="simple")
    with pytest.raises(RunError, match="was trained on arrays"):
        compare([whole], extractor="simple").table
    other = Trainer(toon2real.tiny(width=8, blocks=1, side=32), C, R, run=tmp_path / "side", progress=False).run
    with pytest.raises(RunError, match="side has 32 px.*: name those of one side"):
        compare([whole, other], **GIVEN)

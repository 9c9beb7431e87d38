"""What a recipe's numbers change: one training a call, its numbers appended to a file of JSON lines

`python bench/ablation.py toon2real norm=sn seed=1` trains that recipe, made small, with these fields changed.
`--data scenes` trains on embedded scenes, where the truth is known; a folder with cartoon/{train,val} and
photo/{train,val} is judged on held-out pictures. Several calls may run side by side and share the file. A call that
was stopped goes on when it is typed again.
"""

import argparse
import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.data import Domain, choose
from toon2real.experiment import against_truth, judge_run
from toon2real.generator import convolutions, raw_weight
from toon2real.images import LUMA, to_tensor
from toon2real.losses import generator_loss
from toon2real.patchwise import patchwise
from toon2real.progress import Callback, luma_correlation
from toon2real.scenes import pairs, scenes
from toon2real.training import Trainer
from toon2real.unit import unit
from toon2real.weights import translate_all

SYSTEMS = {recipe.name: recipe for recipe in (cartoon2real, toon2real, unit, patchwise)}
WATCHED = 16  # held-out cartoons whose brightness is followed
EVERY = 100  # steps between two looks


class Trace(Callback):
    """Every `EVERY` steps: step, luma correlation, the norm of the gradient that the judge of photographs gives the
    fake, and the largest singular value of each of its kernels, as they are before spectral normalization"""

    def __init__(self, path: Path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.exists() else []

    def losses(self, trainer):
        if trainer.step % EVERY == 0:
            self.rows = [row for row in self.rows if row[0] < trainer.step] + [self._look(trainer)]
            self.path.write_text(json.dumps(self.rows))

    def _look(self, trainer):
        system = trainer.system
        cartoons = trainer.val[0].images[:WATCHED]
        fake = translate_all(system, cartoons)
        row = [trainer.step, round(luma_correlation(cartoons, fake), 4)]
        judge = system.D_r.eval()  # a power iteration of this look would change the run
        picture = to_tensor(fake[:4]).requires_grad_()
        (slope,) = torch.autograd.grad(generator_loss(judge(picture)), picture)
        judge.train()
        sigmas = [spectral_norm(raw_weight(conv)) for conv in convolutions(judge)]
        return [*row, float(f"{slope.norm():.4g}"), sigmas]


def spectral_norm(kernel):
    "The largest singular value of a kernel, its outputs as rows"
    return round(float(torch.linalg.matrix_norm(kernel.detach().flatten(1), 2)), 3)


def pictures(options):
    "Training arrays, held-out ones, and the truth where it is known"
    n, side = options.images, options.side
    kinds = "cartoon", "photo"
    if options.data == "scenes":
        train = [scenes(n, seed=k * n, side=128, kind=kind) for k, kind in enumerate(kinds)]
        cartoons, truth = pairs(100, seed=2 * n, side=side)
        return train, (cartoons, scenes(200, seed=2 * n + 100, side=side, kind="photo")), truth
    root = Path(options.data)
    train = [Domain.open(root / kind / "train", 143, progress=False).images for kind in kinds]
    some = [images[choose(len(images), n, 0, f"ablation {kind}")] for images, kind in zip(train, kinds)]
    return some, tuple(Domain.open(root / kind / "val", side, progress=False).images for kind in kinds), None


def changed(recipe, words):
    "A recipe with fields given as name=value"
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    changes = dict(word.split("=", 1) for word in words)
    return recipe.replace(**{name: kinds[name](value) for name, value in changes.items()})


def grid(pictures):
    "Power at periods of 2 and 4 pixels over the power three frequencies beside: 1 for pictures without a grid"
    power = np.square(np.abs(np.fft.fft2(pictures @ LUMA))).mean(0)
    power = power.sum(0) + power.sum(1)  # along both axes
    half, quarter = len(power) // 2, len(power) // 4
    beside = power[half - 3] * np.sqrt(power[quarter - 3] * power[quarter + 3])
    return float(np.sqrt(power[half] * power[quarter] / beside))


def rounded(numbers):
    return {name: float(f"{value:.5g}") for name, value in numbers.items()}


def results(options, run, val, truth):
    "The numbers of the last epoch; without truth, those of every epoch too"
    made = translate_all(run.system(), val[0])
    last = {"luma": luma_correlation(val[0], made), "grid": grid(made)}
    if truth is not None:
        return {"last": rounded(last | against_truth(made, truth, val[1][:100]))}
    judged = judge_run(run, *val, extractor=options.extractor, again=True).to_dict("records")
    return {"epochs_judged": [rounded(row) for row in judged], "last": rounded(last | judged[-1])}


def train(options, recipe, path, given, val):
    "The finished run; one that was begun goes on"
    callbacks = [Trace(path.with_name(f"{path.name}.trace.json"))] if hasattr(recipe, "norm") else []
    how = {"val": val, "callbacks": callbacks, "progress": False}
    if (path / "run.json").exists():
        trainer = Trainer.resume(path, *given, **how)
    else:
        how |= {"precision": options.precision, "weights_every": 1}
        trainer = Trainer(recipe, *given, path, evaluate_every=1, extractor="simple", save_minutes=3, **how)
    return trainer.fit(), callbacks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("changes", nargs="*", help="recipe fields, name=value")
    parser.add_argument("--data", default="scenes", help="scenes, or a folder with {cartoon,photo}/{train,val}")
    parser.add_argument("--images", type=int, default=1000, help="of each domain; an epoch is so many pairs")
    parser.add_argument("--epochs", type=int, default=6, help="half of them with a falling rate")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--extractor", default="auto", help="features of the last judgement of a folder")
    parser.add_argument("--runs", default="ablation", help="folder for the runs")
    parser.add_argument("--out", default="ablation.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)

    half = options.epochs // 2 if hasattr(SYSTEMS[options.system], "norm") else 0  # UNIT's rate has steps of its own
    size = {"width": options.width, "side": options.side, "epochs": options.epochs - half, "decay_epochs": half}
    recipe = changed(SYSTEMS[options.system].tiny(**size), options.changes)
    place = Path(options.data).name
    path = Path(options.runs) / "-".join([place, options.system, *options.changes])
    path.parent.mkdir(parents=True, exist_ok=True)
    given, val, truth = pictures(options)
    start = time.process_time()
    run, traces = train(options, recipe, path, given, val)
    seconds = time.process_time() - start
    curve = run.history[run.metric].round(2).tolist()
    row = {
        "data": place,
        "system": options.system,
        "changes": dict(word.split("=", 1) for word in options.changes),
        **{name: getattr(options, name) for name in ("images", "epochs", "width", "side", "precision")},
        "pairs": int(run.history.pairs.iloc[-1]),
        "core_seconds": round(seconds),
        "curve": curve,  # Frechet on simple features after each epoch
        "roughness": round(float(np.abs(np.diff(curve, n=2)).mean()), 2) if len(curve) > 2 else None,
        "late_rise": round(curve[-1] - min(curve), 2),
        **results(options, run, val, truth),
        "trace": traces[0].rows if traces else [],
    }
    with open(options.out, "a") as out:
        out.write(json.dumps(row) + "\n")
    print({name: value for name, value in row.items() if name != "trace"})


if __name__ == "__main__":
    main()

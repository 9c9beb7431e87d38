"""The fourth system on embedded scenes, where the truth is known, and on real pictures: one training a call

Numbers are appended to a file of JSON lines; several calls may run side by side and share the file. Recipe fields are
given as name=value: `python bench/fourth.py seed=1 upsample=transposed`. `--system toon2real` trains that instead.
"""

import argparse
import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from toon2real.cyclegan import toon2real
from toon2real.data import Domain, choose
from toon2real.experiment import against_truth, judge_run
from toon2real.patchwise import patchwise
from toon2real.runs import Run, translate_all
from toon2real.scenes import pairs, scenes
from toon2real.training import LUMA, Trainer, luma_correlation

SYSTEMS = {"patchwise": patchwise, "toon2real": toon2real}


def pictures(options):
    "Training arrays, and held-out ones; the truth where it is known"
    n, side = options.images, options.side
    if options.data == "scenes":
        kinds = () if options.judge else ("cartoon", "photo")
        train = [scenes(n, seed=k * n, side=128, kind=kind) for k, kind in enumerate(kinds)]
        cartoons, truth = pairs(100, seed=2 * n, side=side)
        return train, (cartoons, scenes(200, seed=2 * n + 100, side=side, kind="photo")), truth
    kinds, root = ("cartoon", "photo"), Path(options.data)
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


def final(options, run, made, val, truth):
    "The numbers of the last epoch"
    if truth is None:
        return judge_run(run, *val, extractor=options.extractor, again=True).iloc[-1].to_dict()
    row = against_truth(made, truth, val[1][:100]) | {"luma": luma_correlation(val[0], made), "grid": grid(made)}
    return {name: round(value, 3) for name, value in row.items()}


def judged(options, run, val, truth):
    "What a finished run has come to; with a running mean also what its generator of the last step has"
    system, name = run.system(), run.recipe.name
    row = {
        "data": Path(options.data).name,
        "system": name,
        "differs": differences(run.recipe, SYSTEMS[name].tiny()),
        "seed": run.recipe.seed,
        "pairs": int(run.history.pairs.iloc[-1]),
        "width": run.recipe.width,
        "side": run.recipe.side,
        "last": final(options, run, translate_all(system, val[0]), val, truth),
    }
    if truth is not None and getattr(run.recipe, "average", 0):
        system.generators = ("G_r",)
        row["unaveraged"] = final(options, run, translate_all(system, val[0]), val, truth)
    return row


def differences(recipe, preset):
    "Fields that differ from the preset's, but for size, length and seed"
    own = {"seed", "side", "width", "epochs", "decay_epochs"}
    return {name: value for name, value in vars(recipe).items() if name not in own and value != getattr(preset, name)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("changes", nargs="*", help="recipe fields, name=value")
    parser.add_argument("--system", default="patchwise", choices=SYSTEMS)
    parser.add_argument("--data", default="scenes", help="scenes, or a folder with {cartoon,photo}/{train,val}")
    parser.add_argument("--images", type=int, default=1000, help="of each domain; an epoch is so many pairs")
    parser.add_argument("--epochs", type=int, default=6, help="half of them with a falling rate")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--judge", help="a finished run, to be judged only")
    parser.add_argument("--extractor", default="auto", help="features of the last judgement of a folder")
    parser.add_argument("--runs", default="fourth", help="folder for the runs")
    parser.add_argument("--out", default="fourth.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)

    train, val, truth = pictures(options)
    if options.judge:
        return write(options, judged(options, Run(options.judge), val, truth), val, truth)
    half = options.epochs // 2
    size = {"width": options.width, "side": options.side, "epochs": options.epochs - half, "decay_epochs": half}
    recipe = changed(SYSTEMS[options.system].tiny(**size), options.changes)
    path = Path(options.runs) / "-".join([Path(options.data).name, options.system, *options.changes])
    how = {"precision": "float32", "weights_every": options.epochs, "val": val, "progress": False}
    start = time.process_time()
    run = Trainer(recipe, *train, path, **how).fit()
    seconds = round(time.process_time() - start)
    write(options, judged(options, run, val, truth) | {"core_seconds": seconds}, val, truth)


def write(options, row, val, truth):
    "Append the row; on scenes also those of the untranslated cartoons and of the truth, once"
    out = Path(options.out)
    rows = [row]
    if truth is not None and not out.exists():
        given = {"cartoons, untranslated": val[0], "truth": truth}
        rows = [{"system": name, "last": final(options, None, x, val, truth)} for name, x in given.items()] + rows
    with open(out, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    print(row)


if __name__ == "__main__":
    main()

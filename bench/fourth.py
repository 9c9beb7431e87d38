"""The fourth system on embedded scenes, where the truth is known, and on real pictures: one training a call

Numbers are appended to a file of JSON lines; several calls may run side by side and share the file. Recipe fields are
given as name=value: `python bench/fourth.py seed=1 upsample=transposed`. `--system toon2real` trains that instead.
"""

import argparse
import json
import time
from dataclasses import fields
from pathlib import Path

import torch
from toon2real.cyclegan import toon2real
from toon2real.data import Domain, choose
from toon2real.experiment import against_truth, judge_run, side_by_side
from toon2real.patchwise import PatchwiseRecipe
from toon2real.runs import translate_all
from toon2real.scenes import pairs, scenes
from toon2real.training import Trainer, luma_correlation

patchwise = PatchwiseRecipe()

SYSTEMS = {"patchwise": patchwise, "toon2real": toon2real}


def pictures(options):
    "Training arrays, and held-out ones; the truth where it is known"
    n, side = options.images, options.side
    if options.data == "scenes":
        train = [scenes(n, seed=k * n, side=128, kind=kind) for k, kind in enumerate(("cartoon", "photo"))]
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


def final(options, run, system, val, truth):
    "The numbers of the last epoch"
    if truth is None:
        judged = judge_run(run, *val, extractor=options.extractor, again=True)
        return judged.iloc[-1].to_dict()
    made = translate_all(system, val[0])
    return against_truth(made, truth, val[1][:100]) | {"luma": luma_correlation(val[0], made)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("changes", nargs="*", help="recipe fields, name=value")
    parser.add_argument("--system", default="patchwise", choices=SYSTEMS)
    parser.add_argument("--data", default="scenes", help="scenes, or a folder with {cartoon,photo}/{train,val}")
    parser.add_argument("--images", type=int, default=1000, help="of each domain; an epoch is so many pairs")
    parser.add_argument("--epochs", type=int, default=6, help="half of them with a falling rate")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--extractor", default="auto", help="features of the last judgement of a folder")
    parser.add_argument("--runs", default="fourth", help="folder for the runs")
    parser.add_argument("--out", default="fourth.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)

    half = options.epochs // 2
    size = {"width": options.width, "side": options.side, "epochs": options.epochs - half, "decay_epochs": half}
    recipe = changed(SYSTEMS[options.system].tiny(**size), options.changes)
    place = Path(options.data).name
    path = Path(options.runs) / "-".join([place, str(options.epochs), options.system, *options.changes])
    (cartoon, photo), val, truth = pictures(options)
    how = {"precision": "float32", "weights_every": options.epochs, "val": val, "progress": False}
    start = time.process_time()
    run = Trainer(recipe, cartoon, photo, path, **how).fit()
    seconds = time.process_time() - start
    system = run.system()
    row = {
        "data": place,
        "system": options.system,
        "changes": options.changes,
        **{name: getattr(options, name) for name in ("images", "width", "side")},
        "pairs": int(run.history.pairs.iloc[-1]),
        "core_seconds": round(seconds),
        "losses": run.history.drop(columns=["epoch", "step", "pairs", "seconds", "lr"]).iloc[-1].round(3).to_dict(),
        "last": final(options, run, system, val, truth),
    }
    if options.system == "patchwise" and truth is not None:
        system.generators = ("G_r",)
        row["unaveraged"] = final(options, run, system, val, truth)
    with open(options.out, "a") as out:
        out.write(json.dumps(row) + "\n")
    made = translate_all(run.system(), val[0][:8])
    sheet = {"cartoon": val[0], recipe.name: made}
    side_by_side(sheet | ({} if truth is None else {"truth": truth})).savefig(path / "sheet.png", dpi=100)
    print({name: value for name, value in row.items() if name != "trace"})


if __name__ == "__main__":
    main()

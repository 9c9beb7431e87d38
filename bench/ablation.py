"""What normalization and identity loss change: one training a call, its numbers appended to a file of JSON lines

`--data scenes` trains on embedded scenes, where the truth is known; a folder with cartoon/{train,val} and
photo/{train,val} is judged on held-out pictures. Several calls may run side by side and share the file.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from toon2real.cyclegan import toon2real
from toon2real.data import Domain, choose
from toon2real.experiment import against_truth, judge_run
from toon2real.images import to_tensor
from toon2real.losses import generator_loss
from toon2real.runs import translate_all
from toon2real.scenes import pairs, scenes
from toon2real.progress import Callback, luma_correlation
from toon2real.training import Trainer

EPOCHS = 6  # half of them with a falling rate
WATCHED = 16  # held-out cartoons whose brightness is followed
EVERY = 100  # steps between two looks


class Trace(Callback):
    "Luma correlation and the gradient that reaches the fake, every `EVERY` steps"

    def __init__(self):
        self.rows = []

    def losses(self, trainer):
        if trainer.step % EVERY == 0 and (not self.rows or self.rows[-1][0] < trainer.step):
            self.rows.append((trainer.step, *self._look(trainer)))

    def _look(self, trainer):
        system = trainer.system
        cartoons = trainer.val[0].images[:WATCHED]
        fake = translate_all(system, cartoons)
        judge = system.D_r.eval()  # a power iteration of this look would change the run
        picture = to_tensor(fake[:4]).requires_grad_()
        (slope,) = torch.autograd.grad(generator_loss(judge(picture)), picture)
        judge.train()
        return round(luma_correlation(cartoons, fake), 4), float(slope.norm())


def pictures(options):
    "Training arrays, and held-out ones; scenes too are held as arrays"
    n, side = options.images, options.side
    if options.data == "scenes":
        train = [scenes(n, seed=k * n, side=128, kind=kind) for k, kind in enumerate(("cartoon", "photo"))]
        cartoons, truth = pairs(100, seed=2 * n, side=side)
        return train, (cartoons, scenes(200, seed=2 * n + 100, side=side, kind="photo")), truth
    kinds = "cartoon", "photo"
    root = Path(options.data)
    train = [Domain.open(root / kind / "train", 143, progress=False).images for kind in kinds]
    some = [images[choose(len(images), n, 0, f"ablation {kind}")] for images, kind in zip(train, kinds)]
    val = tuple(Domain.open(root / kind / "val", side, progress=False).images for kind in kinds)
    return some, val, None


def final(options, run, val, truth):
    "The numbers of the last epoch"
    if truth is not None:
        return against_truth(translate_all(run.system(), val[0]), truth, val[1][:100])
    judged = judge_run(run, *val, extractor=options.extractor, again=True)
    return judged.iloc[-1].to_dict()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--norm", default="in", choices=("in", "sn", "sn+in"))
    parser.add_argument("--identity", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1000, help="of each domain; an epoch is so many pairs")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--extractor", default="auto", help="features of the last judgement of a folder")
    parser.add_argument("--runs", default="ablation", help="folder for the runs")
    parser.add_argument("--out", default="ablation.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)

    named = {"norm": options.norm, "identity": options.identity, "seed": options.seed}
    size = {"width": options.width, "side": options.side, "epochs": EPOCHS // 2, "decay_epochs": EPOCHS // 2}
    recipe = toon2real.tiny(**named, **size)
    place = "scenes" if options.data == "scenes" else Path(options.data).name
    path = Path(options.runs) / f"{place}-{options.norm}-{options.identity:g}-{options.seed}"
    (cartoon, photo), val, truth = pictures(options)
    trace, start = Trace(), time.perf_counter()
    how = {"precision": "float32", "evaluate_every": 1, "extractor": "simple", "weights_every": EPOCHS}
    run = Trainer(recipe, cartoon, photo, path, val=val, callbacks=[trace], progress=False, **how).fit()
    curve = run.history[run.metric].round(2).tolist()
    row = {
        "data": place,
        **named,
        **{name: getattr(options, name) for name in ("images", "width", "side")},
        "pairs": int(run.history.pairs.iloc[-1]),
        "seconds": round(time.perf_counter() - start),
        "curve": curve,
        "roughness": round(float(np.abs(np.diff(curve, n=2)).mean()), 2),
        "late_rise": round(curve[-1] - min(curve), 2),
        "last": final(options, run, val, truth),
        "trace": trace.rows,
    }
    with open(options.out, "a") as out:
        out.write(json.dumps(row) + "\n")
    print({name: value for name, value in row.items() if name != "trace"})


if __name__ == "__main__":
    main()

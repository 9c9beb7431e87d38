"""The epoch to report of a run of bench/ablation.py: python bench/select_epoch.py DATA RUN...

An epoch that is chosen on the pictures that judge it looks better than it is. So it is chosen here on training pictures
that `--images` of the ablation left out, lowest KID first, and reported on the held-out ones (already judged).
Prints one line of JSON a run.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from toon2real.data import Domain, choose
from toon2real.experiment import judge_run
from toon2real.features import best_extractor
from toon2real.fid import Judge
from toon2real.runs import Run
from toon2real.weights import translate_all


def left_out(root, kind, run, n):
    "`n` training pictures that the run never saw, at its side"
    images = Domain.open(root / kind / "train", run.recipe.side, progress=False).images
    used = choose(len(images), run.about["data"][kind]["images"], 0, f"ablation {kind}")
    unused = np.setdiff1d(np.arange(len(images)), used)
    return images[unused[choose(len(unused), n, 0, f"select {kind}")]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with {cartoon,photo}/{train,val}")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--n", type=int, default=196, help="pictures in each set")
    parser.add_argument("--extractor", default="auto")
    options = parser.parse_args()
    extractor = best_extractor(options.extractor)
    for path in options.runs:
        run = Run(path)
        cartoons = left_out(options.data, "cartoon", run, options.n)
        photos = left_out(options.data, "photo", run, 2 * options.n)
        judge = Judge(photos, cartoons, n=options.n, extractor=extractor)
        rows = {epoch: judge(translate_all(run.system(epoch), cartoons)) for epoch in run.weight_epochs}
        best = min(rows, key=lambda epoch: rows[epoch][judge.kid])
        val = [
            Domain.open(options.data / kind / "val", run.recipe.side, progress=False) for kind in ("cartoon", "photo")
        ]
        reported = judge_run(run, *val, extractor=extractor).loc[best].to_dict()
        numbers = {"run": path.name, "epoch": int(best), "reported": reported}
        numbers["chosen on"] = {int(epoch): row[judge.kid] for epoch, row in rows.items()}
        print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main()

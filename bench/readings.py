"""Does the order hang on how the paper is read? python bench/readings.py DATA RUN[:EPOCH]...

"80 % of photographs and 20 % of cartoons" can be a weighted sum of two distances (the kit's choice) or one distance to
a set mixed so, and "an intermediate layer" can be Inception's 768-d or its 192-d one. Prints the table of all four for
the runs and the untranslated cartoons, lower is better.
"""

import argparse
from pathlib import Path

import numpy as np

from toon2real.data import Domain
from toon2real.features import best_extractor, features
from toon2real.fid import Judge, fid, weighted_fid
from toon2real.runs import Run
from toon2real.weights import translate_all

DIMS = 768, 192


def row(made, photos, cartoons):
    "Four distances of translations, from features {dims: N x dims}"
    numbers = []
    for dims in DIMS:
        mixed = np.concatenate([photos[dims], cartoons[dims][: len(photos[dims]) // 4]])
        numbers += [weighted_fid(made[dims], photos[dims], cartoons[dims]).weighted, fid(made[dims], mixed)]
    return numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with {cartoon,photo}/val")
    parser.add_argument("runs", nargs="+", help="folders, each with an epoch after a colon or its last one")
    options = parser.parse_args()
    extractor = best_extractor("auto")
    side = Run(options.runs[0].partition(":")[0]).recipe.side
    cartoons, photos = (
        Domain.open(options.data / kind / "val", side, progress=False).images for kind in ("cartoon", "photo")
    )
    judge = Judge(photos, cartoons, DIMS, extractor=extractor)
    print("| | " + " | ".join(f"{how}, {dims}" for dims in DIMS for how in ("sum", "mixture")) + " |")
    print("|---|---|---|---|---|")
    rows = {"untranslated input": judge.input}
    for words in options.runs:
        path, _, epoch = words.partition(":")
        run = Run(path)
        made = translate_all(run.system(int(epoch) if epoch else run.weight_epochs[-1]), cartoons)
        rows[f"{run.path.name}, epoch {epoch or 'last'}"] = features(made, DIMS, extractor=extractor)
    for name, made in rows.items():
        print(f"| {name} | " + " | ".join(f"{number:.3g}" for number in row(made, judge.target, judge.input)) + " |")


if __name__ == "__main__":
    main()

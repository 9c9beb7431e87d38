"""Weights of a run on real pictures as one file with its card: python bench/ship.py RUN weights/NAME.safetensors

The run must have been judged (bench/ablation.py does that). The card goes into the file; `demo.card` prints it.
"""

import argparse
from pathlib import Path

from toon2real.runs import Run
from toon2real.weights import save_weights

TEXT = """{recipe.name}: cartoon scenery to photographs, trained on real pictures.
Data: {cartoons:,} crops of stills of animated films (several studios) and {photos:,} crops of landscape photographs
of several collections, each of 128 px; held-out ones come from other stills and other photographs.
Training: {pairs:,} pairs at {recipe.side} px, batch {recipe.batch}, width {recipe.width}, seed {recipe.seed}{mean}.
Epoch {epoch} of {last}{which}.
Judged on held-out pictures at {recipe.side} px, N = {n} in every set:
{figures}
Limits: {limits}
It was trained at {recipe.side} px and does best on pictures of about that size; faces and figures are not scenery.
Licence: research and teaching only, see LICENSE beside the file: the rights in the pictures are with others."""


def figures_of(run, epoch):
    "A line for each distance, beside the untranslated cartoons and other photographs"
    judge = run.about["judge"]
    row = run.history.set_index("epoch").loc[epoch]
    lines = []
    for name, untranslated in judge["untranslated"].items():
        if name.endswith(" se") or name in ("precision", "recall"):
            continue
        digits = 4 if name.startswith("KID") else 2
        beside = f"untranslated cartoons {untranslated:.{digits}f}, other photographs {judge['floor'][name]:.{digits}f}"
        lines.append(f"  {name}: {row[name]:.{digits}f} ({beside})")
    return "\n".join(lines)


def card_of(run, epoch, limits):
    data, last = run.about["data"], run.weight_epochs[-1]
    return TEXT.format(
        recipe=run.recipe,
        cartoons=data["cartoon"]["images"],
        photos=data["photo"]["images"],
        pairs=int(run.history.set_index("epoch").pairs[epoch]),
        epoch=epoch,
        last=last,
        which="" if epoch == last else ", chosen on training pictures that it never saw (bench/select_epoch.py)",
        mean=f", running mean of the weights {run.recipe.average}" if run.recipe.average else "",
        n=run.about["judge"]["n"],
        figures=figures_of(run, epoch),
        limits=limits,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--epoch", type=int, help="as bench/select_epoch.py chose it; by default the last")
    parser.add_argument("--limits", required=True, help="what a user must know: a sentence or two")
    options = parser.parse_args()
    run = Run(options.run)
    epoch = options.epoch or run.weight_epochs[-1]
    system = run.system(epoch)
    card = card_of(run, epoch, options.limits)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(options.file, system, modules=system.to_photo_modules, epoch=epoch, run=options.file.stem, card=card)
    print(card)


if __name__ == "__main__":
    main()

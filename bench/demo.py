"""Train the three runs that ship with the library, and pack them: python bench/demo.py FOLDER

On one thread they took 56, 24 and 29 minutes; what was begun goes on. A packed run has what tables, figures and widgets
read: history, samples as WebP, and the last weights, of the way from cartoon to photograph. `demo.card` prints
its card.
"""

import argparse
import json
import shutil
from pathlib import Path

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.experiment import train_all
from toon2real.files import write_atomic
from toon2real.images import open_image
from toon2real.runs import Run
from toon2real.unit import unit
from toon2real.weights import SHIPPED, save_weights

CARTOONS, PHOTOS = "scenes:cartoon:0-799", "scenes:photo:800-1599"
HELD_OUT = "scenes:cartoon:2000-2099@64", "scenes:photo:2100-2299@64"
CARD = """{recipe.name}: cartoon scenery to photographs, trained on embedded scenes.
Data: {images} cartoons and as many photographs, drawn by toon2real.scenes.
Training: {pairs:,} pairs at {recipe.side} px, batch {recipe.batch}, width {recipe.width},
seed {recipe.seed}{norm}.
{distance}, N = {n}: {reached:.1f}.
Untranslated cartoons have {untranslated:.1f}, other photographs {floor:.1f}.
This distance is on hand-made features and no FID.
Limits: it has never seen a real cartoon or a real photograph. On drawings unlike the embedded scenes it
changes colours and adds texture, no more. It does best on pictures of the size it was trained at.
To train it again: python bench/demo.py FOLDER, in a clone of the repository.
Licence: Apache-2.0, like the library; the scenes are the library's own."""


def recipes():
    "64 px, width 32, 8 epochs at the full rate and 8 of decay; UNIT's rate, four times the usual, halves instead"
    presets = unit.replace(lr=4e-4, halve_every=3200), cartoon2real, toon2real
    return [recipe.tiny(width=32, epochs=8, decay_epochs=8) for recipe in presets]


def card_of(run):
    "What a judged run was trained on, what it reaches, and what it cannot do"
    recipe, row, judge = run.recipe, run.history.iloc[-1], run.about["judge"]
    distance = judge["main"]
    return CARD.format(
        recipe=recipe,
        images=run.about["data"]["cartoon"]["images"],
        pairs=int(row.pairs),
        norm=f", discriminators' norm {recipe.norm}" if hasattr(recipe, "norm") else "",
        distance=distance,
        n=judge["n"],
        reached=row[distance],
        untranslated=judge["untranslated"][distance],
        floor=judge["floor"][distance],
    )


def pack(run, out):
    "A finished, judged run on embedded scenes, as it ships, in the new folder `out`"
    about = run.about | {"init_from": None, "card": card_of(run)}
    write_atomic(out / "run.json", json.dumps(about, indent=1).encode())
    shutil.copyfile(run.path / "history.csv", out / "history.csv")
    packed = Run(out)
    for epoch in run.sample_epochs:
        sheet = packed._samples(epoch).with_suffix(".webp")
        sheet.parent.mkdir(exist_ok=True)
        open_image(run._samples(epoch)).save(sheet, quality=90)
    last = run.weight_epochs[-1]
    system = run.system(last)
    save_weights(packed._weights(last), system, modules=system.to_photo_modules, epoch=last, run=run.name)
    return packed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the runs, and for what is packed of them")
    folder = parser.parse_args().folder
    options = dict(val=HELD_OUT, evaluate_every=1, extractor="simple", weights_every=4, samples=8)
    for run in train_all(recipes(), CARTOONS, PHOTOS, folder / "runs", **options):
        packed = pack(run, folder / "packed" / run.name)
        print(f"{packed!r}: put it into {SHIPPED}\n{packed.about['card']}\n")


if __name__ == "__main__":
    main()

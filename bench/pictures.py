"""Make docs/demo.jpg, the picture at the top of the README, and print README's table, of the shipped runs.

python bench/pictures.py
"""

from pathlib import Path

from toon2real import demo
from toon2real.experiment import TITLES, against_truth, validation
from toon2real.features import best_extractor
from toon2real.fid import judge_of
from toon2real.files import write_atomic
from toon2real.images import jpeg_bytes
from toon2real.quickstart import UNTOUCHED, side_by_side
from toon2real.scenes import pairs
from toon2real.weights import translate_all

FIRST_SCENE = 5000  # beyond the scenes of training and validation
SCENES = 6
HELD_OUT = 2000  # the first of the hundred scenes that the runs were judged on


def picture():
    "Cartoons, what the shipped runs make of them, and the true photographs"
    cartoons, photos = pairs(SCENES, seed=FIRST_SCENE, side=64)
    translations = {run.name: translate_all(run.system(), cartoons) for run in demo.runs()}
    return side_by_side({"cartoon": cartoons, **translations, "photograph": photos}, side=160)


def table():
    "Lines of Markdown: how near the shipped runs come to the truth, held against the photographs of their judge"
    runs = demo.runs()
    cartoons, photos = validation(runs[0])
    _, truth = pairs(len(cartoons), seed=HELD_OUT, side=64)
    target = photos[judge_of(cartoons, photos, extractor=best_extractor("simple")).photos]
    rows = {UNTOUCHED: cartoons} | {TITLES[run.name]: translate_all(run.system(), cartoons) for run in runs}
    lines = []
    for name, made in rows.items():
        numbers = " | ".join(f"{value:.1f}" for value in against_truth(made, truth, target).values())
        lines.append(f"| {name} | {numbers} |")
    return lines


def main():
    write_atomic(Path(__file__).parent.parent / "docs" / "demo.jpg", jpeg_bytes(picture(), quality=90))
    print("\n".join(table()))


if __name__ == "__main__":
    main()

"""Make docs/demo.jpg, the picture at the top of the README, from the shipped runs.

python bench/pictures.py
"""

from pathlib import Path

from toon2real import demo
from toon2real.images import jpeg_bytes, write_atomic
from toon2real.quickstart import side_by_side
from toon2real.runs import translate_all
from toon2real.scenes import pairs

FIRST_SCENE = 5000  # beyond the scenes of training and validation
SCENES = 6


def main():
    cartoons, photos = pairs(SCENES, seed=FIRST_SCENE, side=64)
    translations = {run.name: translate_all(run.system(), cartoons) for run in demo.runs()}
    sheet = side_by_side({"cartoon": cartoons, **translations, "photograph": photos}, side=160)
    write_atomic(Path(__file__).parent.parent / "docs" / "demo.jpg", jpeg_bytes(sheet, quality=90))


if __name__ == "__main__":
    main()

"""Make docs/demo.jpg, the picture at the top of the README, from the shipped runs.

python bench/pictures.py
"""

from pathlib import Path

from toon2real import demo
from toon2real.experiment import TITLES
from toon2real.images import grid, jpeg_bytes, resize, to_pil, write_atomic
from toon2real.runs import translate_all
from toon2real.scenes import pairs

FIRST_SCENE = 5000  # beyond the scenes of training and validation
SCENES = 6


def main():
    cartoons, photos = pairs(SCENES, seed=FIRST_SCENE, side=64)
    translations = {TITLES[run.name]: translate_all(run.system(), cartoons) for run in demo.runs()}
    columns = {"cartoon": cartoons, **translations, "photograph": photos}
    pictures = [to_pil(images[scene]) for scene in range(SCENES) for images in columns.values()]
    enlarged = [resize(picture, 160, filter="bicubic") for picture in pictures]
    captions = [*columns, *[""] * (len(pictures) - len(columns))]
    top = grid(enlarged[: len(columns)], cols=len(columns), captions=captions[: len(columns)])
    rest = grid(enlarged[len(columns) :], cols=len(columns))
    sheet = to_pil(top).crop((0, 0, top.width, top.height + 2 + rest.height))
    sheet.paste("white", (0, top.height, top.width, sheet.height))
    sheet.paste(rest, (0, top.height + 2))
    write_atomic(Path(__file__).parent.parent / "docs" / "demo.jpg", jpeg_bytes(sheet, quality=90))


if __name__ == "__main__":
    main()

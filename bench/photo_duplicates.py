"""Near-duplicates among real photographs by the catalogue's rule: a perceptual hash, and colours.

Usage: python bench/photo_duplicates.py [folder] [n]
Default: the first 2,500 photographs of $TOON2REAL_SHARED/data/scenery128/photo. Prints the pairs that the rule joins
(look at them: are they one picture?), and the share of altered copies that it finds.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from toon2real.images import list_images, open_image
from toon2real.picks import near_pairs, settle
from toon2real.scores import look


def jpeg40(im):
    buffer = io.BytesIO()
    im.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def cropped(im):
    x, y = round(0.03 * im.width), round(0.03 * im.height)
    return im.crop((x, y, im.width - x, im.height - y))


COPIES = {
    "JPEG quality 40": jpeg40,
    "half size": lambda im: im.resize((im.width // 2, im.height // 2), Image.Resampling.LANCZOS),
    "brightness x 1.05": lambda im: ImageEnhance.Brightness(im).enhance(1.05),
    "brightness x 1.2": lambda im: ImageEnhance.Brightness(im).enhance(1.2),
    "contrast x 0.8": lambda im: ImageEnhance.Contrast(im).enhance(0.8),
    "saturation x 1.3": lambda im: ImageEnhance.Color(im).enhance(1.3),
    "cropped by 3 % on each side": cropped,
}


def duplicates(images):
    "The index of the earlier one that each of these repeats, or -1"
    scores = [look(im) for im in images]
    hashes = np.array([score["hash"] for score in scores], np.uint64)
    tiny = np.stack([np.frombuffer(score["tiny"], np.uint8) for score in scores])
    return settle(near_pairs(hashes, tiny), len(images))


def main():
    default = Path(os.environ.get("TOON2REAL_SHARED", "../shared")) / "data/scenery128/photo"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    files = list_images(folder)[: int(sys.argv[2]) if len(sys.argv) > 2 else 2500]
    images = [open_image(file) for file in files]
    original = duplicates(images)
    joined = np.flatnonzero(original >= 0)
    print(f"{len(images)} photos of {folder.name}: {len(joined)} near-duplicates of an earlier one")
    for i in joined:
        print(f"  {files[original[i]].name}  {files[i].name}")
    some = images[::5]
    for name, alter in COPIES.items():
        found = [duplicates([im, alter(im)])[1] == 0 for im in some]
        print(f"{name}: found {np.mean(found):.1%} of {len(found)}")


if __name__ == "__main__":
    main()

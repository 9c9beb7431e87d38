"Broken files by the hundred: `open_image` gives an RGB image or an ImageError that names the file, nothing else."

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from toon2real import files, images
from toon2real.images import ImageError, list_images, open_image


def picture(mode, fmt, **kw):
    y, x = np.mgrid[0:48, 0:64]
    a = np.stack([x * 4, y * 5, (x * y) % 256], -1).astype(np.uint8)
    im = Image.fromarray(a) if mode != "I;16" else Image.fromarray((x * y * 20).astype(np.uint16))
    if mode not in ("RGB", "I;16"):
        im = im.convert(mode)
    im.save(b := io.BytesIO(), fmt, **kw)
    return b.getvalue()


exif = Image.Exif()
exif[0x112] = 6
FILES = dict(
    jpeg=("RGB", "JPEG", dict(quality=90, exif=exif)),
    progressive=("RGB", "JPEG", dict(progressive=True)),
    cmyk=("CMYK", "JPEG", {}),
    png=("RGB", "PNG", {}),
    palette=("P", "PNG", dict(transparency=3)),
    alpha=("RGBA", "PNG", {}),
    deep=("I;16", "PNG", {}),
    gif=("P", "GIF", {}),
    webp=("RGB", "WEBP", {}),
    bmp=("RGB", "BMP", {}),
    tiff=("RGB", "TIFF", dict(compression="tiff_lzw")),
    ppm=("RGB", "PPM", {}),
)


def attempt(path, data):
    "True: an image; False: a clear refusal. Any other exception fails the test"
    path.write_bytes(data)
    try:
        im = open_image(path, max_pixels=10**6)
    except ImageError as e:
        assert str(path) in str(e) and len(str(e)) > len(str(path)) + 10
        return False
    assert im.mode == "RGB" and min(im.size) >= 1 and im.size[0] * im.size[1] <= 10**6
    np.asarray(im)
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_fuzz(tmp_path, name):
    mode, fmt, kw = FILES[name]
    data = picture(mode, fmt, **kw)
    r = np.random.default_rng(list(name.encode()))
    path = tmp_path / f"{name}.bin"
    assert attempt(path, data)
    opened = []
    for _ in range(40):
        opened.append(attempt(path, data[: int(r.integers(0, len(data)))]))  # cut short
    for _ in range(120):  # flipped bits, more of them in the header
        b = bytearray(data)
        for _ in range(int(r.integers(1, 9))):
            b[int(r.integers(0, len(b) if r.random() < 0.5 else min(len(b), 160)))] ^= 1 << int(r.integers(0, 8))
        opened.append(attempt(path, bytes(b)))
    for _ in range(20):
        i, n = int(r.integers(0, len(data))), int(r.integers(1, 64))
        opened.append(attempt(path, data[:i] + r.bytes(n) + data[i + n :]))  # overwritten
    assert not all(opened)  # the damage was real


def test_warnings_as_errors(tmp_path):
    "A bomb that Pillow only warns about is refused in the same words when warnings are errors"
    im = Image.new("1", (11_000, 9_000))
    im.save(p := tmp_path / "big.png")
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(ImageError, match="big.png"):
                open_image(p)


def test_closed_after_failure(tmp_path):
    "No handle is left open on a file that could not be read (Windows could not delete it)"
    p = tmp_path / "x.png"
    p.write_bytes(picture("RGB", "PNG")[:80])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(ImageError):
            open_image(p)
        import gc

        gc.collect()


def test_unreadable_folder(tmp_path):
    import os

    (tmp_path / "a.png").write_bytes(picture("RGB", "PNG"))
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        if os.access(locked, os.R_OK):
            pytest.skip("running as a user who may read everything")
        with pytest.raises(ImageError, match="locked"):
            list_images(tmp_path)
    finally:
        locked.chmod(0o700)


def test_names_of_files_can_be_imported_from_images():
    assert all(getattr(images, name) is getattr(files, name) for name in files.__all__)

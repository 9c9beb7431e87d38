"The map under faults: killed and competing builds, folders of odd files, a full disk; and the real data where it is"

import csv
import json
import os
import random
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toon2real import data
from toon2real.data import DataError, Domain, Pairs
from toon2real.images import ImageError, list_images

SHARED = Path(os.environ.get("TOON2REAL_SHARED", Path(__file__).parents[2] / "shared"))
REAL = SHARED / "data" / "scenery128"


def picture(i, side=40):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8))


def folder(path, n, side=40):
    path.mkdir(parents=True)
    for i in range(n):
        picture(i, side).save(path / f"{i:04}.png", compress_level=1)
    return path


def quiet(*args, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Domain.open(*args, **kw)


def opening(src, cache):
    "A process that opens a domain and prints its hash"
    code = f"""
from toon2real.data import Domain
print("go", flush=True)
print(Domain.open({str(src)!r}, 143, cache={str(cache)!r}, progress=False).hash)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def parts(cache):
    return list(cache.glob("*/.*.tmp"))


def test_killed_while_building(tmp_path):
    "kill -9 at any instant leaves nothing that is taken for a map, and nothing behind after the next build"
    src = folder(tmp_path / "src", 200, 64)
    want = Domain.open(src, 143, cache=tmp_path / "other").hash
    files = json.loads(next(tmp_path.glob("other/*/about.json")).read_text())["files"]
    rng, partial = random.Random(0), 0
    for i in range(6):
        cache = tmp_path / f"cache{i}"
        process = opening(src, cache)
        assert process.stdout.readline() == "go\n"
        while process.poll() is None and not parts(cache):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        partial += bool(parts(cache))
        for place in cache.iterdir():
            found = data._read(place, files)
            assert found is None or found.hash == want
        assert Domain.open(src, 143, cache=cache).hash == want
        assert not parts(cache)
    assert partial, "no kill struck a build at work: the test tested nothing"


def test_three_build_at_once(tmp_path):
    src, cache = folder(tmp_path / "src", 150, 64), tmp_path / "cache"
    processes = [opening(src, cache) for _ in range(3)]
    outs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outs
    assert {out for out, _ in outs} == {"go\n" + Domain.open(src, 143, cache=cache).hash + "\n"}
    assert len(list(cache.iterdir())) == 1 and not parts(cache)


def test_the_second_waits_and_decodes_nothing(tmp_path, monkeypatch):
    src, cache, seen = folder(tmp_path / "src", 20), tmp_path / "cache", []
    real = data.read_image

    def slow(path, *args):
        seen.append(path)
        time.sleep(0.01)
        return real(path, *args)

    monkeypatch.setattr(data, "read_image", slow)
    with ThreadPoolExecutor(3) as pool:
        domains = list(pool.map(lambda _: Domain.open(src, 32, cache=cache, progress=False), range(3)))
    assert len(seen) == 20 and len({domain.hash for domain in domains}) == 1


def test_odd_folder(tmp_path):
    "Nested, unicode, very long, undecodable names; cut short, empty, text, a dangling link, a loop"
    src = folder(tmp_path / "src", 40)
    names = [
        "\u6d77/\u30a2\u30cb\u30e1 \u00e9\u00e8.png",
        "l/" + "x" * 240 + ".png",
        'a,b"c.png',
        "new\nline.png",
        "-dash.png",
        "=1+1.png",
        "a/b/c/d/e.png",
    ]
    for i, o in enumerate(names):
        (src / o).parent.mkdir(parents=True, exist_ok=True)
        picture(100 + i).save(src / o)
    odd = os.fsdecode(b"latin-\xe9.png")
    try:
        (src / odd).write_bytes((src / "0000.png").read_bytes())
        names.append(odd)
    except OSError:
        pass  # a file system of unicode names only
    whole = (src / "0001.png").read_bytes()
    broken = {f"cut{k}.png": whole[:k] for k in (1, 8, 20, 33, 100, 1000, len(whole) // 2)} | {
        "page.jpg": b"<!doctype html>",
        "empty.png": b"",
        "noise.webp": os.urandom(999),
    }
    for o, b in broken.items():
        (src / o).write_bytes(b)
    os.symlink(src, src / "loop")
    os.symlink(src / "nowhere", src / "dangling.png")
    with pytest.warns(UserWarning, match="11 of .* images cannot be read") as said:
        d = Domain.open(src, 32, cache=tmp_path / "cache")
    assert len(said) == 1
    assert set(d.names) == {f"{i:04}.png" for i in range(40)} | set(names)
    assert {o for o, _ in d.skipped} == set(broken) | {"dangling.png"} and all(reason for _, reason in d.skipped)
    for i, o in enumerate(names[:7]):
        assert (d[d.names.index(o)] == np.asarray(picture(100 + i).resize((32, 32), Image.Resampling.BICUBIC))).all()
    again = quiet(src, 32, cache=tmp_path / "cache")
    assert (again.names, again.skipped, again.hash) == (d.names, d.skipped, d.hash)


def test_unreadable_file_is_tried_again(tmp_path):
    "A link to a drive that is not there today"
    src, drive = folder(tmp_path / "src", 3), tmp_path / "drive"
    os.symlink(drive / "a.png", src / "a.png")
    assert len(quiet(src, 32, cache=tmp_path / "cache")) == 3
    drive.mkdir()
    picture(9).save(drive / "a.png")
    d = Domain.open(src, 32, cache=tmp_path / "cache")
    assert d.names[-1] == "a.png" and len(d) == 4 and not d.skipped


def test_a_changed_folder_gets_a_new_map(tmp_path):
    src = folder(tmp_path / "src", 20)
    a = Domain.open(src, 32, cache=tmp_path / "cache")
    picture(99).save(src / "0003.png")
    (src / "0007.png").unlink()
    picture(98).save(src / "0099.png")
    b = Domain.open(src, 32, cache=tmp_path / "cache")
    for name in b.names:
        assert (
            b[b.names.index(name)] == np.asarray(Image.open(src / name).resize((32, 32), Image.Resampling.BICUBIC))
        ).all()
    assert (
        a.hash != b.hash and (a[7] == np.asarray(picture(7).resize((32, 32), Image.Resampling.BICUBIC))).all()
    )  # an open map outlives its files


@pytest.mark.parametrize("harm", ["shorten", "pixels", "about", "name", "older", "remove"])
def test_damaged_map_is_made_again(tmp_path, harm):
    src, cache = folder(tmp_path / "src", 5), tmp_path / "cache"
    d = Domain.open(src, 32, cache=cache)
    want, names, pixels = d.hash, d.names, d.images.copy()
    del d
    b = next(cache.iterdir())
    if harm == "shorten":
        os.truncate(b / "images.bin", 500)
    elif harm == "pixels":
        with open(b / "images.bin", "r+b") as f:
            f.seek(1000)
            f.write(b"xyz")
    elif harm == "about":
        (b / "about.json").write_text("{")
    elif harm == "name":
        about = b / "about.json"
        about.write_text(about.read_text().replace(names[0], f"x{names[0][1:]}"))
    elif harm == "older":  # colours last in the file, as maps were before they were planes
        pixels.tofile(b / "images.bin")
        about = json.loads((b / "about.json").read_text())
        del about["sha256"]
        about["shape"] = [*pixels.shape]
        del about["planes"]
        about["mtime_ns"] = (b / "images.bin").stat().st_mtime_ns
        about["sha256"] = data._digest(about)
        (b / "about.json").write_text(json.dumps(about))
    else:
        (b / "images.bin").unlink()
    d = Domain.open(src, 32, cache=cache)
    assert (d.hash, d.names) == (want, names) and (d.images == pixels).all()


def test_copied_cache_is_believed_after_a_look(tmp_path):
    src, cache = folder(tmp_path / "src", 5), tmp_path / "cache"
    want = Domain.open(src, 32, cache=cache).hash
    f = next(cache.glob("*/images.bin"))
    os.utime(f, (0, 0))
    ino = f.stat().st_ino
    assert Domain.open(src, 32, cache=cache).hash == want and f.stat().st_ino == ino


def test_working_folder_is_not_imported(tmp_path):
    "Decoding runs no `toon2real` or `csv.py` that lies where one stands"
    src, here = folder(tmp_path / "src", 45), tmp_path / "here"
    (here / "toon2real").mkdir(parents=True)
    for name in ("toon2real/__init__.py", "csv.py", "json.py"):
        (here / name).write_text("print('pwned', flush=True)")
    script = tmp_path / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(f"""
import time
from toon2real import data, images
real = data.read_image
data.read_image = lambda *args: (time.sleep(.1), real(*args))[1]  # as slow as pictures from a film
print(len(data.Domain.open({str(src)!r}, 32, cache={str(tmp_path / "cache")!r}, progress=False)))
""")
    env = os.environ | {"PYTHONPATH": str(Path(data.__file__).parents[1])}
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=here, env=env)
    assert (out.stdout, out.returncode) == ("45\n", 0), out.stderr


def test_full_disk(tmp_path, monkeypatch):
    src = folder(tmp_path / "src", 5)

    def full(*a):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left.*cache=.*TOON2REAL_CACHE"):
        Domain.open(src, 32, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*.bin")) and not parts(tmp_path / "cache")
    monkeypatch.undo()
    assert len(Domain.open(src, 32, cache=tmp_path / "cache")) == 5


def test_cache_place(tmp_path, monkeypatch):
    src = folder(tmp_path / "src", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TOON2REAL_CACHE", raising=False)
    Domain.open(src, 32)
    assert list((tmp_path / "xdg" / "toon2real").glob("src-32-*/images.bin"))
    monkeypatch.setenv("TOON2REAL_CACHE", str(tmp_path / "env"))
    Domain.open(src, 32)
    assert list((tmp_path / "env").glob("src-32-*/images.bin"))
    Domain.open(src, 32, cache=tmp_path / "arg")
    assert list((tmp_path / "arg").glob("src-32-*/about.json"))
    monkeypatch.chdir(tmp_path)
    Domain.open("src", 32)
    assert len(list((tmp_path / "env").iterdir())) == 1  # a relative path is the same folder
    monkeypatch.setenv("TOON2REAL_CACHE", "~nobody-of-this-name/maps")
    with pytest.raises(DataError, match="nobody-of-this-name.*TOON2REAL_CACHE"):
        Domain.open("src", 32)


def test_ranks_and_batch_sizes(tmp_path):
    "The union of the ranks is the single process' batch; a run's pairs do not depend on its batch size"
    rng = np.random.default_rng(0)
    C, R = (Domain.open(rng.integers(0, 256, (n, 36, 36, 3), dtype=np.uint8), 36) for n in (7, 11))
    whole, single = Pairs(C, R, 32, batch=4, seed=5), Pairs(C, R, 32, batch=1, seed=5)
    ranks = [Pairs(C, R, 32, batch=4, seed=5, rank=k, world=2) for k in range(2)]
    for epoch in (1, 2, 9):
        for step in range(whole.steps):
            b = whole.batch(epoch, step)
            for k, p in enumerate(ranks):
                part = p.batch(epoch, step)
                assert (
                    torch.equal(part.c, b.c[k::2])
                    and torch.equal(part.r, b.r[k::2])
                    and (part.index == b.index[k::2]).all()
                )
            for j in range(4):
                i = step * 4 + j
                if i < 11:
                    s = single.batch(epoch, i)
                    assert torch.equal(s.c[0], b.c[j]) and torch.equal(s.r[0], b.r[j])
    index = np.concatenate([whole.batch(e, step).index for e in (1, 2) for step in range(whole.steps)])
    assert (index == np.arange(24)).all()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no {REAL}: set TOON2REAL_SHARED")
def test_real_data(tmp_path):
    with open(REAL / "manifest.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    count = {
        (o, s): sum(line["domain"] == o and line["split"] == s for line in lines)
        for o in ("cartoon", "photo")
        for s in ("train", "val")
    }
    assert count["cartoon", "train"] == 4469 and count["cartoon", "val"] == 196
    for (o, s), n in count.items():
        assert len(list_images(REAL / o / s)) == n
    C, V = (
        Domain.open(REAL / "cartoon" / s, side, cache=tmp_path, progress=False)
        for s, side in (("train", 143), ("val", 128))
    )
    assert [len(C), len(V)] == [4469, 196] and not C.skipped and not V.skipped
    for d in (C, V):
        for i in (0, len(d) // 2, len(d) - 1):
            assert (
                d[i]
                == np.asarray(
                    Image.open(Path(d.source) / d.names[i])
                    .convert("RGB")
                    .resize((d.side, d.side), Image.Resampling.BICUBIC)
                )
            ).all()
    pairs = Pairs(C, V, 128, batch=16)
    assert pairs.steps == 280 and pairs.batch(200, 279).c.shape == (16, 3, 128, 128)


def test_errors_are_one_kind(tmp_path):
    for bad in ("nowhere", []):
        with pytest.raises(ValueError):
            Domain.open(tmp_path / bad if bad else bad, 32)
    with pytest.raises(ImageError, match="nowhere"):
        Domain.open(tmp_path / "nowhere", 32)

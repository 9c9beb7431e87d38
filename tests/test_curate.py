"Curation under hard conditions: killed, sharded, fed broken files"

import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from av.stream import Disposition
from PIL import Image, ImageDraw, ImageFilter

from toon2real import picks
from toon2real.cli import main
from toon2real.curate import MANIFEST_COLUMNS, Catalogue, CurateError, Curation, Thresholds
from toon2real.images import jpeg_bytes
from toon2real.picks import Picks, near_pairs, settle
from toon2real.scores import letters

SHARED = Path(os.environ.get("TOON2REAL_SHARED", Path(__file__).resolve().parents[1] / ".." / "shared"))
CODEC = "libx264" if "libx264" in av.codecs_available else "mpeg4"


def make_film(path, seconds=20, seed=0, fps=8, size=(160, 96), faststart=False, options=None):
    "A film of moving coloured blocks, each shot its own colours: cheap to make, different at every moment"
    rng = np.random.default_rng(seed)
    w, h = size
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as out:
        v = out.add_stream(
            CODEC, rate=fps, options=options or ({"g": str(3 * fps), "bf": "2"} if CODEC == "libx264" else {})
        )
        v.width, v.height, v.pix_fmt = w, h, "yuv420p"
        for i in range(seconds * fps):
            if i % (4 * fps) == 0:
                base = rng.integers(60, 256, (6, 10, 3), np.uint8)
            im = np.roll(np.kron(base, np.ones((h // 6, w // 10, 1), np.uint8)), 3 * i, 1)
            for p in v.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(im), format="rgb24")):
                out.mux(p)
        for p in v.encode():
            out.mux(p)
    return path


def content(cat):
    "All that a catalogue knows, without its row numbers"
    f = pd.read_sql_query(
        "SELECT f.content, r.pts, r.name, r.time, r.luma, r.contrast, r.text, r.cut, r.hash, r.top, r.bottom, r.tiny, "
        "r.thumb, r.error FROM frames r JOIN films f ON f.id=r.film ORDER BY 1, 2, 3",
        cat.db,
    )
    return f, pd.read_sql_query(
        "SELECT content, name, kind, width, height, duration, every, status, error FROM films ORDER BY content", cat.db
    )


def same(a, b):
    for x, y in zip(content(a), content(b)):
        pd.testing.assert_frame_equal(x, y)
    x, y = a.frames(), b.frames()
    assert x.reason.tolist() == y.reason.tolist() and x.kept.tolist() == y.kept.tolist()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    d = tmp_path_factory.mktemp("films")
    for i in range(3):
        make_film(d / f"film{i}.mp4", seconds=24 + 8 * i, seed=i)
    (d / "stills").mkdir()
    rng = np.random.default_rng(9)
    for i in range(12):
        Image.fromarray(np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((16, 16, 1), np.uint8))).save(
            d / "stills" / f"s{i}.png"
        )
    return d


@pytest.fixture(scope="module")
def whole(films):
    with Catalogue(films.parent / "whole.sqlite") as c:
        assert not len(c.add(films, every=0.25, progress=False))
        yield c


def test_needs_no_torch():
    code = "import sys, toon2real.curate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_kill_and_go_on(films, whole, tmp_path):
    "kill -9 at several moments, then go on: the catalogue of a run that was never killed"
    path = tmp_path / "killed.sqlite"
    slow = f"""import time, toon2real.catalogue as C, toon2real.scores as S
look = S.look
def slowly(im, **kw): time.sleep(.02); return look(im, **kw)
S.look = slowly; put = C.Catalogue._put
def told(self, rows): put(self, rows); print('stored', flush=True)
C.Catalogue._put = told; C.Catalogue({str(path)!r}).add({str(films)!r}, every=.25, progress=False)"""
    seen = []
    for wait in (0, 0.3):
        p = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE)
        p.stdout.readline()
        time.sleep(wait)
        p.send_signal(signal.SIGKILL)
        p.wait()
        with Catalogue(path) as c:
            seen.append(len(c.frames()))
    with Catalogue(path) as c:
        assert 0 < seen[0] < seen[1] < len(whole.frames()), seen  # it was indeed cut off, twice, and went on
        c.add(films, every=0.25, progress=False)
        same(c, whole)


def test_again_adds_nothing(films, whole, capsys):
    with Catalogue(whole.path.with_name("again.sqlite")) as c:
        c.merge(whole.path)
        ids = c.frames().index.tolist()
        assert not len(c.add(films, every=0.25))
        assert "reading" not in capsys.readouterr().err  # no bar over nothing
        same(c, whole)
        assert c.frames().index.tolist() == ids  # not a row was written anew


def test_shards(films, whole, tmp_path):
    parts = []
    for i in (1, 2):
        with Catalogue(tmp_path / f"{i}.sqlite") as c:
            c.add(films, every=0.25, shard=(i, 2), progress=False)
            parts.append(c.path)
            assert 0 < len(c.frames()) < len(whole.frames())
    with Catalogue(tmp_path / "merged.sqlite") as c:
        same(c.merge(parts[::-1]), whole)
        same(c.merge(parts), whole)
    with Catalogue(tmp_path / "x.sqlite") as c, pytest.raises(CurateError, match="1 to 2"):
        c.add(films, shard=(3, 2))


def test_broken_films(tmp_path):
    "Whatever cannot be read is reported, what can be is kept, and the rest goes on"
    d = tmp_path / "films"
    d.mkdir()
    make_film(d / "good.mp4", 12)
    whole = make_film(tmp_path / "long.mp4", 40, seed=5, faststart=True).read_bytes()
    (d / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    late = make_film(tmp_path / "late.mp4", 12, seed=6).read_bytes()
    (d / "headless.mp4").write_bytes(late[: len(late) * 8 // 10])  # the index stands at the end
    hole = bytearray(whole)
    hole[len(hole) // 2 : len(hole) // 2 + 3000] = os.urandom(3000)
    (d / "hole.mp4").write_bytes(hole)
    (d / "text.mp4").write_text("I am a film, honestly")
    (d / "zero.mkv").touch()
    make_film(d / "raw.ts", 6, seed=7)
    (d / "audio.mp4").write_bytes(silence(tmp_path / "a.mp4"))
    silence(d / "song.mp4", cover=True)
    with Catalogue(tmp_path / "c.sqlite") as c:
        r = c.add(d, every=0.5, progress=False)
        f = c.films().set_index("name")
        assert f.status["good.mp4"] == f.status["raw.ts"] == "done" and f.frames["good.mp4"] == 24
        assert f.status["cut.mp4"] == "partial" and 30 < f.frames["cut.mp4"] < 70 and "cut short" in f.error["cut.mp4"]
        assert f.frames["hole.mp4"] > 60
        assert (
            (f.status[["headless.mp4", "text.mp4", "zero.mkv", "audio.mp4", "song.mp4"]] == "broken").all()
            and "no video" in f.error["audio.mp4"]
            and "cover picture" in f.error["song.mp4"]
            and "empty" in f.error["zero.mkv"]
        )
        assert {"cut.mp4", "text.mp4", "zero.mkv"} <= {Path(o).name for o in r.file} and all(
            Path(o.file).name in o.what or o.status == "partial" for o in r.itertuples()
        )
        r2 = c.add(d, every=0.5, progress=False)
        assert sorted(r2.file) == sorted(r.file)  # told again, not read again
        assert (c.frames().reason != "").sum() + c.counts()["kept"] == len(c.frames())


def test_a_film_that_a_phone_turned(tmp_path):
    "The matrix in the header turns it clockwise: what was above is on the right"

    def film(path, turn):
        with av.open(str(path), "w") as out:
            v = out.add_stream(CODEC, rate=4)
            v.width, v.height, v.pix_fmt = 160, 96, "yuv420p"
            im = np.full((96, 160, 3), 90, np.uint8)
            im[:30] = 230
            for _ in range(8):
                out.mux(v.encode(av.VideoFrame.from_ndarray(im, format="rgb24")))
            out.mux(v.encode())
        b = bytearray(path.read_bytes())
        at = b.index(b"tkhd") + 44  # version, times, track and so on lie between
        if turn:
            b[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 96 << 16, 0, 1 << 30)
        path.write_bytes(b)

    for turn in (False, True):
        film(tmp_path / f"{turn}.mp4", turn)
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add(tmp_path, every=0.5, progress=False)
        c.thresholds = Thresholds(trim=0, duplicate=0, colour=0)
        df = c.frames()
        c.decide(df.index, keep=True)
        c.export(tmp_path / "x", side=48, how="short", progress=False)
        up, turned = (
            np.asarray(Image.open(next((tmp_path / "x").rglob(f"{o}*.png"))).convert("L"), float)
            for o in ("False", "True")
        )
        assert (
            up.shape == (48, 80)
            and turned.shape == (80, 48)
            and up[:10].min() > 200 > 120 > up[-20:].max()
            and turned[:, -10:].min() > 200 > 120 > turned[:, :20].max()
        )


def test_a_clock_that_begins_anew(tmp_path):
    "Two recordings in one file: the second one has the times of the first. That is said, not passed over."
    (tmp_path / "two.ts").write_bytes(
        make_film(tmp_path / "a.ts", 6, seed=1).read_bytes() + make_film(tmp_path / "b.ts", 5, seed=2).read_bytes()
    )
    with Catalogue(tmp_path / "c.sqlite") as c:
        r = c.add(tmp_path / "two.ts", progress=False)
        assert (
            r.status.tolist() == ["partial"]
            and "begin anew at 0:00:05" in r.what[0]
            and "ffmpeg" in r.what[0]
            and len(c.frames()) == 6
        )


def silence(path, cover=False):
    with av.open(str(path), "w") as out:
        a = out.add_stream("aac", rate=44100)
        if cover:
            v = out.add_stream("mjpeg", rate=1)
            v.width = v.height = 64
            v.pix_fmt = "yuvj420p"
            v.disposition = Disposition.attached_pic
            for p in [
                *v.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")),
                *v.encode(),
            ]:
                out.mux(p)
        f = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        f.sample_rate = 44100
        for p in a.encode(f):
            out.mux(p)
        for p in a.encode():
            out.mux(p)
    return path.read_bytes()


def test_names(tmp_path):
    "Quotes, percent signs, other scripts, a leading dash: all are data"
    d = tmp_path / 'it\'s "100%"; DROP TABLE films; -- 風の谷'
    d.mkdir()
    names = ["l'été.mp4", "-rf.mp4", '風 "谷".mp4', "a%20b;.mp4"]
    for i, n in enumerate(names):
        make_film(d / n, 5, seed=20 + i)
    (d / "st").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(d / "st" / "naïve 'x'.png")
    with Catalogue(tmp_path / "c'at.sqlite") as c:
        c.add(d, licence='own; "mine"', progress=False)
        assert sorted(c.films().name) == sorted([*names, "st"])
        c.split(val=0.4)
        out = c.export(tmp_path / "out 'x'", side=48, progress=False)
        back = pd.read_csv(tmp_path / "out 'x'" / "manifest.csv", keep_default_na=False)
        assert (
            tuple(back.columns) == MANIFEST_COLUMNS
            and set(back.source) <= {*names, "st/naïve 'x'.png"}
            and len(back) == len(out)
            and back.file.map(str.isascii).all()
        )
        assert all((tmp_path / "out 'x'" / o).is_file() for o in back.file)


def test_decisions_outlive(films, whole, tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.merge(whole.path)
        c.thresholds = Thresholds(whole=0)
        df = c.frames()
        gone, kept = df.index[df.kept][:3], df.index[~df.kept][:2]
        c.decide(gone, keep=False, who="ann")
        c.decide(kept, keep=True, who="bob")
        for t in (Thresholds(dark=0.9), Thresholds(flat=0.9, small=10**6), Thresholds(duplicate=0)):
            c.thresholds = t
            now = c.frames()
            assert not now.kept[gone].any() and now.kept[kept].all() and now.reason[gone].str.contains("ann").all()
        with Catalogue(tmp_path / "d.sqlite") as d:
            assert (
                d.merge(c.path).frames().decision.value_counts().to_dict()
                == c.frames().decision.value_counts().to_dict()
            )
        assert (
            Picks(c, Thresholds(licences=("CC*",))).counts()["kept"] == 0
            and Picks(c, Thresholds(licences=("CC*",))).table().reason[kept].eq("licence: none stated").all()
        )  # but no licence is made up
        c.thresholds = Thresholds(dark=0.9, picked=True)
        assert c.counts()["kept"] == 2
    with Catalogue(tmp_path / "c.sqlite") as c:
        assert c.thresholds == Thresholds(dark=0.9, picked=True)


def test_splits_never_mix(films, whole, tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.merge(whole.path)
        c.split(val=0.3, seed=3)
        out = c.export(tmp_path / "set", side=32, progress=False)
        kept = c.frames().query("kept")
        assert (
            set(out.split) == {"train", "val"}
            and out.assign(film=out.source.str.split("/").str[0]).groupby("film").split.nunique().max() == 1
        )
        first = c.films().split.to_dict()
        c.thresholds = Thresholds(duplicate=0)
        c.split(val=0.3, seed=9)
        assert c.films().split.to_dict() == first  # films stay where they are
        assert len(out) == len(kept) == len(list((tmp_path / "set").rglob("*.png")))


def test_changed_and_moved(tmp_path):
    d = tmp_path / "d"
    d.mkdir()
    make_film(d / "a.mp4", 6)
    make_film(d / "b.mp4", 6, seed=2)
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add(d, progress=False)
        n = len(c.frames())
        (d / "a.mp4").rename(d / "moved.mp4")
        with pytest.raises(CurateError, match="gone or changed"):
            c.export(tmp_path / "x", progress=False)
        c.add(d, progress=False)
        assert len(c.frames()) == n
        c.export(tmp_path / "x", progress=False)
        make_film(d / "b.mp4", 8, seed=3)
        with pytest.raises(CurateError, match="b.mp4: gone or changed"):
            c.export(tmp_path / "x", progress=False)
        c.add(d, progress=False)
        df = c.frames()
        out = c.export(tmp_path / "x", progress=False)  # told about the change, the catalogue goes on
        assert (
            df.reason[df.reason.str.startswith("gone: another film")].size == 6
            and len(df) == n + 8
            and set(out.source) == {"moved.mp4", "b.mp4"}
        )
        (d / "moved.mp4").unlink()
        with pytest.raises(CurateError, match=r"forget\(1\)"):
            c.export(tmp_path / "x", progress=False)
        c.forget(1)
        assert set(c.export(tmp_path / "x", progress=False).source) == {"b.mp4"}
        with pytest.raises(CurateError, match="film 1: not in"):
            c.forget(1)


def test_stills_moved_and_gone(tmp_path):
    "A folder that is moved takes its decisions along; a picture that is deleted says so, and comes back"
    d = tmp_path / "a"
    d.mkdir()
    rng = np.random.default_rng(3)
    for i in range(5):
        Image.fromarray(np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((12, 12, 1), np.uint8))).save(
            d / f"{i}.png"
        )
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add(d, progress=False)
        df = c.frames()
        c.decide(df.index[df.name == "3" + ".png"], keep=False, who="ann")
        e = d.rename(tmp_path / "b")
        c.add(e, progress=False)
        assert (
            len(c.films()) == 1
            and c.films().name.tolist() == ["b"]
            and c.frames().index.equals(df.index)
            and c.counts()["kept"] == 4
        )
        data = (e / "2.png").read_bytes()
        (e / "2.png").unlink()
        r = c.add(e, progress=False)
        assert r.status.tolist() == ["gone"] and c.frames().set_index("name").reason["2.png"].endswith(
            "gone since it was read"
        )
        assert len(c.export(tmp_path / "x", side=32, progress=False)) == 3 and not len(c.add(e, progress=False))
        (e / "2.png").write_bytes(data)
        c.add(e, progress=False)
        assert len(c.export(tmp_path / "x", side=32, progress=False)) == 4 and c.frames().index.equals(df.index)
        (e / "4.png").write_text("no picture")
        assert (
            c.add(e, progress=False).status.tolist() == c.add(e, progress=False).status.tolist() == ["broken"]
        )  # told again


def test_few_films_and_more_later(tmp_path, capsys):
    "Two equal films give one for validation; films that come later do not move those that are placed, unless told to"
    d = tmp_path / "d"
    d.mkdir()
    args = dict(every=0.5, progress=False)
    for i in (1, 2):
        make_film(d / f"{i}.mp4", 6, seed=10 + i)
    with Catalogue(tmp_path / "c.sqlite") as c:
        Curation(c.path, sources=(d,), val=0.2, **args)()
        assert "films are not divided: 50% of the frames are for validation instead of 20%" in capsys.readouterr().out
        assert sorted(c.films().split) == ["train", "val"]
        c.split(val=0.95, again=True)
        assert sorted(c.films().split) == ["train", "val"]
        first = c.films().set_index("name").split.to_dict()
        for i in (3, 4, 5):
            make_film(d / f"{i}.mp4", 4 + 2 * i, seed=10 + i)
        Curation(c.path, sources=(d,), val=0.5, **args)()
        now = c.films().set_index("name").split.to_dict()
        assert {k: now[k] for k in first} == first and all(now.values())
        sides = set()
        for seed in range(8):
            Curation(c.path, val=0.4, seed=seed, resplit=True)()
            sides.add(tuple(c.films().split))
        assert len(sides) > 1 and all(set(o) == {"train", "val"} for o in sides)


@pytest.fixture
def toon2real(capsys):
    "Runs a command; what it printed"

    def run(*words, fails=False):
        code = main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert code == fails, err
        assert not fails or err.count("\n") == 1, err
        return err if fails else out

    return run


def test_picking_in_the_shell(films, whole, tmp_path, capsys):
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.merge(whole.path)
        c.thresholds = Thresholds(whole=0)
        df = c.frames()
        no, yes = (tuple(int(o) for o in df.index[m][:2]) for m in (df.kept, ~df.kept))
        Curation(c.path, keep=yes, reject=no, sheet=tmp_path / "s", reasons=tmp_path / "all.csv")()
        now = c.frames()
        assert now.kept[list(yes)].all() and not now.kept[list(no)].any()
        assert {o.name for o in (tmp_path / "s").iterdir()} >= {"kept-1.jpg", "kept-2.jpg", "reject-1.jpg"}
        assert now.kept.sum() > 200
        table = pd.read_csv(tmp_path / "all.csv", index_col="id", keep_default_na=False)
        assert (table.kept == (table.reason == "")).all() and len(table) == len(df)
        Curation(c.path, forget=(int(c.films().index[-1]),), thresholds=Thresholds(small=10**6), sheet=tmp_path / "s")()
        assert {o.name for o in (tmp_path / "s").iterdir()} >= {"kept-1.jpg", "reject-1.jpg", "small-2.jpg"}
        assert not (tmp_path / "s" / "kept-2.jpg").exists() and len(c.films()) == 3


def test_words_of_the_command(films, whole, tmp_path, toon2real):
    "Thresholds that are not named stay; ranges, undo, --picked without a value, films and their numbers, credits"
    path = tmp_path / "c.sqlite"
    toon2real("curate", path, "--merge", whole.path, "--dark", 0.3, "--whole", 0)
    said = toon2real("curate", path, "--reject", "4-10", "2", "--text", 0.3, "--films")
    assert "by_hand 8" in said and "film1.mp4" in said and "number" in said
    assert "thresholds: whole 0.0 (usually 300.0), dark 0.3 (usually 0.15), text 0.3 (usually 0.25)\n" in said
    with Catalogue(path) as c:
        assert (c.thresholds.dark, c.thresholds.text, c.thresholds.whole) == (0.3, 0.3, 0)
    assert "by_hand 5" in toon2real("curate", path, "--undo", "5-7")
    assert "kept 1" in toon2real("curate", path, "--keep", 5, "--picked")
    assert "kept 1" in toon2real("curate", path)
    assert "kept 1" not in toon2real("curate", path, "--no-picked")
    toon2real(
        "curate", path, "--sources", films, "--every", 0.25, "--no-progress", "--licence", "CC0", "--author", "ann"
    )
    with Catalogue(path) as c:
        assert set(c.films().licence) == {"CC0"} and set(c.frames().author) == {"ann"}
    assert "900-999: no such frames" in toon2real("curate", path, "--keep", "900-999", fails=True)
    assert "such as 7 or 4-10" in toon2real("curate", path, "--keep", "all", fails=True)


def test_only_broken_stills(tmp_path, toon2real):
    "Said in one line, and the catalogue goes on"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.png").write_text("no picture")
    said = toon2real(
        "curate", tmp_path / "c.sqlite", "--no-progress", "--sources", tmp_path / "d", "--sheet", tmp_path / "s"
    )
    assert "broken: " in said and "x.png" in said and "kept 0" in said
    assert "kept 0" in toon2real("curate", tmp_path / "c.sqlite")
    assert "no frame is kept" in toon2real("curate", tmp_path / "c.sqlite", "--export", tmp_path / "x", fails=True)
    Image.new("RGB", (90, 90), "red").save(tmp_path / "d" / "y.png")
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    for i in range(2):
        Image.fromarray(np.kron(noise + i, np.ones((10, 10, 1), np.uint8))).save(tmp_path / "d" / f"z{i}.png")
    assert "frames 4" in toon2real("curate", tmp_path / "c.sqlite", "--no-progress", "--sources", tmp_path / "d")
    with Catalogue(tmp_path / "c.sqlite") as c:  # a still without a hash leaves those of the others whole
        stored = pd.Series(dict(c.db.execute("SELECT id, hash FROM frames WHERE hash IS NOT NULL").fetchall()))
        assert (c.frames().hash[stored.index] == stored).all() and (stored.abs() > 2**53).any()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_odd_files(tmp_path, toon2real):
    "Pipes, broken links and names that are no text are told, one line each, and the rest is read"
    d = tmp_path / "d"
    d.mkdir()
    make_film(d / "good.mp4", 4)
    os.mkfifo(d / "pipe.mp4")
    os.mkfifo(d / "pipe.png")
    (d / "link.png").symlink_to(tmp_path / "nowhere")
    (d / "round").symlink_to(d)  # links to folders are followed, but each folder is read once
    (d / "zero.jpg").symlink_to("/dev/zero")
    Image.new("RGB", (90, 90), "red").save(d / "bell\a.png")
    (d / "bell\a.png").rename(os.fsdecode(os.fsencode(d) + b"/\xff.png"))
    (d / "no\x1b[2Jfilm.mp4").write_text("no film")
    said = toon2real("curate", tmp_path / "c.sqlite", "--no-progress", "--sources", d)
    assert said.count("no file (a broken link") == 4 and "its name is not UTF-8" in said
    assert "\x1b" not in said and r"no\x1b[2Jfilm.mp4" in said and "2 sources" in said and "1 done" in said


def test_full_disk_and_interrupt(films, tmp_path, monkeypatch):
    "What a person can do is said, and what was read is kept"

    def full(self, rows):
        if rows:
            raise sqlite3.OperationalError("database or disk is full")

    def stopped(im, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Catalogue, "_put", full)
        with pytest.raises(
            CurateError, match="c.sqlite: cannot be written .database or disk is full.: free some space"
        ):
            Curation(tmp_path / "c.sqlite", (films,), progress=False)()
    with monkeypatch.context() as patched:
        patched.setattr("toon2real.scores.look", stopped)
        with pytest.raises(KeyboardInterrupt, match="films, 0 frames so far: the same command goes on"):
            Curation(tmp_path / "c.sqlite", (films,), progress=False)()
    Curation(tmp_path / "c.sqlite", (films,), progress=False)()
    with Catalogue(tmp_path / "c.sqlite") as c:
        assert (c.films().status == "done").all()


def test_the_best_twin_stays_and_the_next_comes_back(tmp_path):
    "Of one view with a title over it, blurred, and clean: the clean one; then the blurred one"
    rng = np.random.default_rng(1)
    view = Image.fromarray(np.kron(rng.integers(60, 255, (9, 16, 3), np.uint8), np.ones((20, 20, 1), np.uint8)))
    titled = view.copy()
    ImageDraw.Draw(titled).text((60, 80), "ONCE UPON A TIME", fill="white", font_size=15)
    for name, im in {"a": titled, "b": view.filter(ImageFilter.GaussianBlur(2)), "c": view}.items():
        im.save(tmp_path / f"{name}.png")
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add(tmp_path, progress=False)
        picks = Picks(c, Thresholds(text=2))
        names = picks.table().name
        assert picks.table().text[names == "a.png"].item() > 0.2
        assert names[picks.select()].tolist() == ["c.png"]
        picks.decide(picks.select(), keep=False)
        assert names[picks.select()].tolist() == ["b.png"]
        picks.undo()
        assert names[picks.select()].tolist() == ["c.png"]
        picks.decide(names.index[names == "a.png"], keep=True)
        assert names[picks.select()].tolist() == ["a.png"]  # who was kept by hand stands for the others


def test_decisions_outlive_a_killed_process(whole, tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.merge(whole.path)
    code = f"""import os, signal; from toon2real.picks import Picks
p = Picks({str(tmp_path / "c.sqlite")!r}); p.decide(p.select()[:50], False); p.decide(p.select()[:5]); p.undo()
os.kill(os.getpid(), signal.SIGKILL)"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert Picks(tmp_path / "c.sqlite").counts()["by_hand"] == 50


def test_k_frames_a_shot_and_trim_in_seconds(whole):
    picks = Picks(whole, Thresholds(per_shot=2, duplicate=0))
    kept = picks.table(picks.select())
    assert kept.groupby(["film", "shot"]).size().max() == 2
    shots = len(kept.drop_duplicates(["film", "shot"]))
    assert len(picks.select(one_a_shot=True)) == len(picks.select("all", one_a_shot=True)) == shots
    picks.thresholds = Thresholds(trim=3, whole=0)
    marked = picks.table(picks.select("trim"))
    assert len(marked) and (np.minimum(marked.time, marked.duration - marked.time) < 3).all()
    picks.thresholds = Thresholds(trim=3)
    assert not picks.counts()["trim"]  # off for films as short as these


def test_thumbnails_of_an_earlier_version(tmp_path):
    "Catalogues once kept thumbnails of 224 pixels: the same pictures come of them, at the size that is asked for"
    film = make_film(tmp_path / "film.mp4", seconds=8, size=(640, 360))
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add(film, progress=False)
        picks = Picks(c)
        ids = picks.select("all")
        now = np.stack(picks.crops(ids)).astype(float)
        for frame in map(int, ids):
            (im,) = c.thumbnails([frame])
            assert im.size == (320, 180)
            c.db.execute("UPDATE frames SET thumb=? WHERE id=?", (jpeg_bytes(im.resize((224, 126)), 80), frame))
        before = np.stack(picks.crops(ids)).astype(float)
    assert before.shape == now.shape == (len(ids), 128, 128, 3)
    apart = np.abs(before - now).mean((1, 2, 3))
    assert apart.max() < np.abs(now[1:] - now[:-1]).mean((1, 2, 3)).min() / 2  # nearer than frames a second apart


def test_merge_believes_who_read_more(films, tmp_path):
    film = films / "film0.mp4"
    with Catalogue(tmp_path / "a.sqlite") as a, Catalogue(tmp_path / "b.sqlite") as b:
        for c in (a, b):
            c.add(film, every=0.5, progress=False, licence="CC0" if c is b else "")
        n = len(a.frames())
        with a.db:
            a.db.execute("UPDATE films SET status='partial', error='crashed', path=''")
            a.db.execute("DELETE FROM frames WHERE time > 5")
        with b.db:
            b.db.execute("UPDATE films SET split='val'")
        a.merge(b.path)
        f = a.films().iloc[0]
        assert (f.status, f.error, f.licence, f.split, f.path) == (
            "done",
            "",
            "CC0",
            "val",
            str(film.resolve()),
        ) and len(a.frames()) == n
        with b.db:
            b.db.execute("UPDATE films SET status='broken'")
        assert a.merge(b.path).films().status.tolist() == ["done"] and b.merge(a.path).films().status.tolist() == [
            "done"
        ]


def test_photos_keep_their_credits(tmp_path):
    "What `photos` wrote in its manifest comes along picture by picture: licence, author, link, split"
    rng = np.random.default_rng(4)
    manifest = []
    for who, split in {"ann": "train", "bob": "val", "cem": "train", "dee": "val"}.items():
        (tmp_path / "photos" / split).mkdir(parents=True, exist_ok=True)
        for i in range(3):
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((12, 12, 1), np.uint8))
            file = f"{split}/{who}{i}.png"
            Image.fromarray(pixels).save(tmp_path / "photos" / file)
            licence = "CC BY 4.0" if who != "dee" else "own work"
            link = f"https://example.org/{who}"
            manifest.append({"file": file, "split": split, "licence": licence, "author": who, "link": link})
    pd.DataFrame(manifest).to_csv(tmp_path / "photos" / "manifest.csv", index=False)
    told = pd.read_csv(tmp_path / "photos" / "manifest.csv").set_index("file")
    with Catalogue(tmp_path / "c.sqlite") as c:
        assert not len(c.add(tmp_path / "photos", progress=False))
        df = c.frames()
        assert len(df) == 12 and set(df.source) == {"ann", "bob", "cem", "dee"}
        assert [
            (told.licence[f"{r.split}/{r.name}"], told.author[f"{r.split}/{r.name}"], told.link[f"{r.split}/{r.name}"])
            for r in df.itertuples()
        ] == list(zip(df.licence, df.author, df.link))
        c.thresholds = Thresholds(licences=("CC*",))
        out = c.export(tmp_path / "set", side=32, progress=False)
        assert (
            set(out.author) == {"ann", "bob", "cem"}
            and (out.link == "https://example.org/" + out.author).all()
            and set(out.split) == set(told.split[told.author != "dee"])
        )
        assert "licence: own work" in c.frames().query("author == 'dee'").reason.iloc[0]
        text = (tmp_path / "photos" / "manifest.csv").read_text()
        (tmp_path / "photos" / "manifest.csv").write_text(text.replace("own work", "CC0 1.0"))
        c.add(tmp_path / "photos", progress=False)
        assert c.frames().index.equals(df.index) and c.counts()["kept"] == 12  # a licence that was corrected is heard
        (tmp_path / "photos" / "manifest.csv").write_bytes(b'file,"licence\n\xff\xfe')
        with pytest.raises(CurateError, match="manifest.csv: cannot be read as a manifest"):
            c.add(tmp_path / "photos", progress=False)
    with Catalogue(tmp_path / "again.sqlite") as c:  # and frames that were exported know their film
        c.add(tmp_path / "set", progress=False)
        assert set(c.films().name) == {"ann", "bob", "cem"} and set(c.frames().split) == set(out.split)


def test_catalogue_of_another_version(tmp_path):
    Catalogue(tmp_path / "c.sqlite").close()
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        db.execute("UPDATE about SET value='9' WHERE key='version'")
    db.close()
    with pytest.raises(CurateError, match="c.sqlite: made by another version of this library"):
        Catalogue(tmp_path / "c.sqlite")


def test_print_is_told_from_windows():
    "Five letters are a row of print, five windows of one size are not; a long row is believed either way"

    def row(*widths):
        im = np.full((100, 200), 200, np.uint8)
        x = 30
        for w in widths:
            im[40:56, x : x + w] = 90
            im[46:56, x + 3 : x + w - 2] = 200
            x += w + 9  # an arch of its own width
        return len(letters(im))

    assert row(10, 8, 12, 8, 11) == 5 and row(10, 10, 10, 10, 10) == 0 and row(*[10] * 7) == 7


def test_not_a_catalogue(tmp_path):
    (tmp_path / "c.sqlite").write_text("x" * 5000)
    with pytest.raises(CurateError, match="c.sqlite: cannot be used"):
        Catalogue(tmp_path / "c.sqlite")
    with pytest.raises(CurateError, match="no such catalogue"):
        Catalogue(tmp_path / "none.sqlite", create=False)


def test_duplicates_are_fast_and_right():
    rng = np.random.default_rng(0)
    n = 20000
    H = rng.integers(0, 2**64, n, np.uint64)
    T = rng.integers(0, 256, (n, 192), np.uint8)
    i = rng.permutation(n)[:4000]
    a, b = np.minimum(i[:2000], i[2000:]), np.maximum(i[:2000], i[2000:])
    H[b] = H[a] ^ np.uint64(0x11)
    T[b] = T[a]
    of = settle(near_pairs(H, T), n)
    assert set(np.flatnonzero(of >= 0)) == set(b) and (of[b] == a).all()


@pytest.mark.parametrize("most", [3, 100])
def test_moved_thresholds_mark_what_a_new_search_marks(tmp_path, monkeypatch, most):
    "Near-duplicates, also where frames have more pairs than are listed, and frames were decided"
    film = make_film(tmp_path / "a.mkv")
    with Catalogue(tmp_path / "c.sqlite") as cat:
        cat.add(film, every=0.125, progress=False)
        monkeypatch.setattr(picks, "near_pairs", partial(near_pairs, most=most))
        moved = Picks(cat)
        moved.decide(moved.now.index[[5, 9]], True)
        moved.decide(moved.now.index[[20]], False)
        marked = set()
        for bits, colour in [(8, 0.05), (12, 0.1), (2, 0.1), (20, 0.2), (0, 0.01), (12, 0.2), (8, 0.05)]:
            searched = Picks(cat, Thresholds(duplicate=bits, colour=colour))
            moved.thresholds = searched.thresholds
            pd.testing.assert_frame_equal(moved.now, searched.now)
            marked.add((moved.now.duplicate_of > 0).sum())
        assert len(marked) > 3


@pytest.mark.skipif(not (SHARED / "data" / "video").is_dir(), reason="needs the real clips")
def test_real_clips(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add(SHARED / "data" / "video", progress=False)
        df = c.frames()
        b = df[df.source.str.startswith("big")].set_index("time")
        s = df[df.source.str.startswith("sintel")]
        text = b.marks.str.contains("text")
        assert set(b.index[text]) == {
            0.0,
            21.0,
            22.0,
            23.0,
            26.0,
            27.0,
            28.0,
            29.0,
        }  # the titles, seen by eye, and nothing else
        assert b.index[b.shot.diff() > 0].tolist() == [1, 12, 16, 24, 34]  # cuts, and the end of a dissolve
        assert s.letterbox.all() and s.top.between(0.1, 0.14).all() and not b.letterbox.any()


@pytest.mark.skipif(not (SHARED / "data" / "scenery128").is_dir(), reason="needs the real stills")
def test_real_stills(tmp_path):
    "Windows, an awning, a crowd, trunks: pictures that a rule of rows alone takes for text; and letterbox bars"
    d = SHARED / "data" / "scenery128"
    rows = [
        "cartoon/val/cartoon_val_00022",
        "cartoon/train/cartoon_train_00550",
        "cartoon/train/cartoon_train_00625",
        "photo/train/photo_train_02905",
        "photo/train/photo_train_02822",
        "photo/train/photo_train_02949",
        "photo/val/photo_val_00353",
        "cartoon/train/cartoon_train_00530",
    ]
    boxed = [f"photo/train/photo_train_{i:05}" for i in (2060, 2563, 1183, 944, 41)]
    with Catalogue(tmp_path / "c.sqlite") as c:
        c.add([d / f"{o}.jpg" for o in rows + boxed], progress=False)
        df = c.frames()
        assert df.marks.str.contains("text").sum() <= 1 and set(df.name[df.letterbox]) == {
            f"{Path(o).name}.jpg" for o in boxed
        }
        assert (df.licence != "").all()  # as its manifest says


def test_a_hostile_catalogue_writes_nowhere_else(tmp_path):
    "Splits and names become paths: refused where they come in (merge, manifest) and where they go out (export)"
    d = tmp_path / "in" / "stills"
    d.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(noise.integers(0, 255, (90, 90, 3), np.uint8)).save(d / f"{i}.png")
    evil = {"films": "../../../x", "frames": "/tmp/x"}
    for table, split in evil.items():
        with Catalogue(tmp_path / f"{table}.sqlite") as hostile:
            hostile.add(d, progress=False)
            hostile.db.execute(f"UPDATE {table} SET split=?", (split,))
            hostile.db.commit()
            with pytest.raises(CurateError, match=rf"{table}.sqlite: split '{split}' is none of train, val"):
                hostile.export(tmp_path / "out" / "deep" / "set", progress=False)
            with Catalogue(tmp_path / "own.sqlite") as own:
                with pytest.raises(CurateError, match=rf"{table}.sqlite: split '{split}' is none of train, val"):
                    own.merge(hostile.path)
                assert not len(own.films())
    with Catalogue(tmp_path / "names.sqlite") as hostile, Catalogue(tmp_path / "own.sqlite") as own:
        hostile.add(d, progress=False)
        hostile.db.execute("UPDATE frames SET name='../' || name")
        hostile.db.commit()
        for act in (lambda: own.merge(hostile.path), lambda: hostile.export(tmp_path / "out" / "set", progress=False)):
            with pytest.raises(CurateError, match=r"names.sqlite: '../0.png' is no plain file name"):
                act()
        own.add(d, progress=False)
        (d / "manifest.csv").write_text("file,split\n0.png,../../x\n")
        with pytest.raises(CurateError, match=r"manifest.csv: split '../../x'"):
            own.add(d, progress=False)
    assert not (tmp_path / "out").exists() and not (tmp_path / "x").exists()


def a_picture(folder):
    "A folder with one still"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE films SET licence=NULL",
        "UPDATE films SET name=x'ff'",
        "UPDATE frames SET width='wide'",
        "UPDATE frames SET tiny=x'00'",
        "UPDATE frames SET tiny='text'",
        "INSERT INTO about VALUES('thresholds', 'null')",
        """INSERT INTO about VALUES('thresholds', '{"dark": "x"}')""",
    ],
)
def test_cells_that_no_catalogue_has_are_told(tmp_path, capsys, change):
    path = tmp_path / "c.sqlite"
    with Catalogue(path) as cat:
        cat.add(a_picture(tmp_path / "in"), progress=False)
        cat.db.execute(change)
        cat.db.commit()
    assert main(["curate", str(path), "--films"]) == 1
    assert "c.sqlite" in capsys.readouterr().err


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "bookmarks.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks(x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(CurateError, match="bookmarks.sqlite: a database of something else"):
        Catalogue(path)
    assert path.read_bytes() == before


def test_names_and_credits_do_not_steer_the_terminal(tmp_path, capsys):
    folder = a_picture(tmp_path / "in")
    (folder / "manifest.csv").write_text("file,licence,author\n0.png,CC0,A\x1b[2J\u202eB\n", encoding="utf-8")
    args = ["curate", str(tmp_path / "c.sqlite"), "--sources", str(folder), "--films", "--val", "0", "--no-progress"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert r"A\x1b[2J\u202eB" in out and "\x1b" not in out


@pytest.mark.parametrize("words", [["--dark", "nan"], ["--dark", "2"], ["--per-shot", "-1"], ["--forget", "9" * 20]])
def test_numbers_that_make_no_sense(tmp_path, capsys, words):
    path = tmp_path / "c.sqlite"
    Catalogue(path).close()
    with pytest.raises(SystemExit) if words[0] != "--forget" else nullcontext():
        assert main(["curate", str(path), *words]) == 1
    assert words[1] in capsys.readouterr().err

"""Malformed inputs through every entry point: each must give its result, or one line that names what is wrong.

    nice -n 19 python bench/fuzz.py --cases 1500      the counts are printed at the end, what failed before them
    python bench/fuzz.py --cases 100 --seed 7 --keep failures

Stopped or killed, the same line goes on: what was found is in `cases.jsonl` under `--work` (by default a folder for
this seed among the temporary files), a line for each case.

A case is a function of the seed and its number. It runs in a child forked from a parent that has imported everything,
in a folder of its own that is kept out of sys.path and holds modules that betray themselves when they are imported;
processor seconds, idleness and memory are limited. Verdicts:

    fine        the result, and whatever is lacking in it is named
    clean       one line that names the file or the value
    no name     one line, and nobody knows of what
    traceback   a traceback, or an end by a signal
    hang        no end within the limit
    silent      success, but results and named failures are fewer than inputs
    outside     something was written, changed or run that was not asked for
    steers      control characters of a stranger reached the terminal
"""

import argparse
import ctypes
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from itertools import product
from pathlib import Path

import av
import numpy as np
import torch
import torch._dynamo  # noqa: F401 - which optimisers import, at their first use: once, for all
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from toon2real import cli, experiment, figures, photos, report, translate  # noqa: F401 - imported once, for all
from toon2real.catalogue import Catalogue
from toon2real.curate import Curation
from toon2real.cyclegan import CycleGANRecipe, toon2real
from toon2real.data import Domain
from toon2real.engine import commit
from toon2real.features import features
from toon2real.files import printable
from toon2real.films import decode
from toon2real.runs import Run
from toon2real.scenes import scene, scenes
from toon2real.scores import Thresholds
from toon2real.training import Options, Trainer
from toon2real.translate import Translator
from toon2real.widgets import (
    CompareSystems,
    EpochStepper,
    FramePicker,
    HumanStudy,
    TrainingMonitor,
    study_results,
    take_answers,
)

LIMIT, IDLE = 60, 300  # processor seconds of a case; seconds in which it may use none
VERDICTS = "fine", "clean", "no name", "traceback", "hang", "silent", "outside", "steers"
PICTURES = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}
JUNK = ["", "null", "[]", "{}", "0", '"x"', "\0", "file,group\n,\n", "a,b\n1\n1,2,3\n", "\x1b[2J", "é" * 9, "NaN", "-1"]
HTML = "<img src=x onerror=alert(1)>"
WEIRD = [
    HTML,
    "a b",
    "bell\a",
    "esc\x1b[31m",
    "new\nline",
    "-dash",
    "x" * 246,
    os.fsdecode(b"lat\xe9"),
    "海",
    "$\\frac{",
    "%s",
]
VALUES = [
    "-1",
    "0",
    "1e99",
    "nan",
    "inf",
    "1000000000",
    "99999999999999999999",
    "x",
    "",
    "é",
    "../../x",
    "\x1b[2J",
    "1.5",
]


@dataclass
class Case:
    "One malformed input"

    args: list = None  # of the command line,
    call: callable = None  # or what to do instead
    names: tuple = ()  # one of which the message must hold
    inputs: int = None  # of a translation: so many results and named failures there must be
    writes: tuple = ("out",)  # what may change in the folder
    about: dict = field(default_factory=dict)  # environment variables
    told: str = field(default="", repr=False)  # what came out
    seconds: float = 0  # of the processor


MAKERS = []


def maker(function):
    MAKERS.append(function)
    return function


# --- what is well formed


FRAMES = 12


def film(path: Path, frames: int = FRAMES):
    codec = "mpeg4" if path.suffix in (".avi", ".mp4") else "libx264"
    with av.open(str(path), "w") as box:
        stream = box.add_stream(codec, rate=10, width=64, height=48, pix_fmt="yuv420p")
        for i in range(frames):
            box.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(scene(2, side=64)[:48], i, 1), format="rgb24")))
        box.mux(stream.encode(None))


def prepare(home: Path):
    "Pictures, films, weights and a run, all sound, to be spoilt"
    home.mkdir(parents=True)
    for name in ("cartoon", "photo"):
        (home / name).mkdir()
        for i, pixels in enumerate(scenes(9, seed=3, side=72, kind=name)):
            Image.fromarray(pixels).save(home / name / f"{i}.png")
    for suffix, kind in PICTURES.items():
        Image.fromarray(scene(1, side=40)).save(home / f"a.{suffix}", kind)
    for suffix in ("mkv", "mp4", "ts", "avi"):
        film(home / f"a.{suffix}")
    recipe = toon2real.tiny(width=4, blocks=1, epochs=1, decay_epochs=0)
    folders = [Domain.open(home / name, 72, cache=home / "cache", progress=False) for name in ("cartoon", "photo")]
    val = [Domain.open(home / name, 64, cache=home / "cache", progress=False) for name in ("cartoon", "photo")]
    options = dict(evaluate_every=1, extractor="simple", progress=False)
    Trainer(recipe, *folders, home / "run", val=val, **options).fit()
    with Catalogue(home / "c.sqlite") as catalogue:
        catalogue.add(home / "cartoon", progress=False)
        catalogue.db.execute("PRAGMA journal_mode=DELETE")  # one file, to be copied
    weights = next((home / "run" / "weights").iterdir())
    shutil.copy(weights, home / "w.safetensors")
    torch.save(load_tensors(weights.read_bytes()), home / "w.pth")


# --- ways to spoil


def mangle(rng: random.Random, data: bytes) -> bytes:
    "Cut short, flip bits, overwrite, insert, repeat, blot out, or replace"
    way, at = rng.randrange(8), rng.randrange(len(data) + 1)
    if way == 0:
        return data[:at]
    if way == 1:
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            spoilt[rng.randrange(min(len(data), rng.choice([64, 4096, 10**9])))] ^= 1 << rng.randrange(8)
        return bytes(spoilt)
    if way == 2:
        return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at + 32 :]
    if way == 3:
        return data[:at] + bytes(rng.randint(1, 5000)) + data[at:]
    if way == 4:
        return data[:at] + data
    if way == 5:
        hole = rng.randint(1, 600)
        return data[:at] + bytes(len(data[at : at + hole])) + data[at + hole :]
    return rng.choice([b"", rng.randbytes(300), *(text.encode() for text in JUNK)])


def deranged(rng: random.Random, value):
    "A JSON value of which one part is of another kind, missing, or absurd"
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        changed = dict(value)
        if rng.random() < 0.2:
            del changed[key]
        else:
            changed[key] = deranged(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.6:
        return [deranged(rng, value[0]), *value[1:]]
    texts = "x", "../../x", "$\\frac{", "\x1b[2J", HTML, "\ud800"
    return rng.choice([None, -1, 10**12, 1e300, [], {}, [None], True, *texts])


def entry(rng: random.Random, folder: Path, home: Path) -> Path:
    "Something in a folder that is no plain picture"
    kind = rng.randrange(9)
    name = f"{rng.choice(WEIRD)}{len(os.listdir(folder))}"
    path = folder / f"{name}.{rng.choice(['png', 'jpg', 'mkv', 'mp4'])}"
    if kind == 0:
        path.symlink_to(path.name)
    elif kind == 1:
        path.symlink_to("nowhere")
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        with open(path, "wb") as file:
            file.truncate(40 << 30)
    elif kind == 5:
        path.symlink_to(folder)  # a folder that is called like a picture, and a loop
    elif kind == 6:
        shutil.copy(home / "a.png", path)
    else:
        kind = rng.choice([*PICTURES, "mkv", "mp4", "ts", "avi"])
        path = folder / f"{name}.{kind}"
        path.write_bytes(mangle(rng, (home / f"a.{kind}").read_bytes()))
    return path


def options(rng: random.Random, **known) -> list[str]:
    "One or two options with values that may be wrong"
    chosen = rng.sample(sorted(known), min(len(known), rng.randint(1, 2)))
    return [part for name in chosen for part in (f"--{name}", rng.choice([*VALUES, *known[name]]))]


def values(args: list[str]) -> tuple[str, ...]:
    "What a message about these options may name"
    return tuple(word.lstrip("-") or word for word in args if word)


# --- the entry points

PLAIN = ["--device", "cpu", "--no-progress"]


@maker
def translate_folder(rng, here, home):
    (here / "given").mkdir()
    shutil.copy(home / "a.png", here / "given" / "good.png")
    found = [entry(rng, here / "given", home) for _ in range(rng.randint(1, 3))]
    count = len({path for path in found if not path.is_dir()}) + 1
    names = tuple(printable(path.name) for path in found)
    return Case(["translate", str(home / "w.safetensors"), "given", "--out", "out", *PLAIN], names=names, inputs=count)


@maker
def translate_names(rng, here, home):
    "Results that share a name"
    given = []
    for _ in range(rng.randint(2, 5)):
        folder, suffix = here / rng.choice("abc"), rng.choice(["png", "gif", "jpg", "mkv", "avi"])
        folder.mkdir(exist_ok=True)
        path = folder / f"{rng.choice('xy')}.{suffix}"
        shutil.copy(home / f"a.{suffix}", path)
        given.append(str(path.relative_to(here)))
    extra = rng.choice([[], ["--suffix", ".png"], ["--overwrite"]])
    args = ["translate", str(home / "w.safetensors"), *given, "--out", "out", *PLAIN, *extra]
    return Case(args, names=tuple(given), inputs=len(given))


@maker
def translate_options(rng, here, home):
    shutil.copy(home / "a.png", here / "x.png")
    known = {
        "side": ["32"],
        "tile": ["64"],
        "precision": ["bf16"],
        "direction": ["to_photo"],
        "suffix": [".png", ".exe"],
    }
    known |= {"epoch": ["1"], "device": ["cpu", "cuda:9"], "out": ["out", "x.png", "/dev/null/x", "y" * 300]}
    chosen = options(rng, **known)
    args = ["translate", rng.choice([str(home / "run"), str(home / "w.safetensors")]), "x.png", *chosen]
    writes = "out", *top_level(chosen)
    return Case(args + ["--out", "out"] * ("--out" not in chosen), names=values(chosen), writes=writes)


@maker
def translate_weights(rng, here, home):
    name = rng.choice(["w.safetensors", "w.pth"])
    data = (home / name).read_bytes()
    if name.endswith("tensors") and rng.random() < 0.6:
        about = json.loads(json.dumps(Run(home / "run").about["recipe"]))
        about = rng.choice([deranged(rng, {"recipe": about}), {"recipe": about | _absurd(rng)}, None, {"recipe": None}])
        data = save_tensors(load_tensors(data), {"toon2real": json.dumps(about)})
    else:
        data = mangle(rng, data)
    (here / name).write_bytes(data)
    shutil.copy(home / "a.png", here / "x.png")
    return Case(["translate", name, "x.png", "--out", "out", *PLAIN], names=(name,), inputs=1)


def _absurd(rng):
    return {rng.choice(["width", "blocks", "side", "batch", "pool", "seed"]): rng.choice([20_000, 3000, 10**9, 10**18])}


def spoilt_run(rng, here, home) -> str:
    "A copy of the run in which one file is not as it was; its name"
    shutil.copytree(home / "run", here / "run")
    files = sorted(p for p in (here / "run").rglob("*") if p.is_file() and not p.name.startswith("."))
    chosen = rng.choice([here / "run" / "run.json", here / "run" / "history.csv", rng.choice(files)])
    if chosen.name == "run.json" and rng.random() < 0.8:
        chosen.write_text(json.dumps(deranged(rng, json.loads(chosen.read_text()))))
    elif rng.random() < 0.15:
        chosen.unlink()
        if rng.random() < 0.5:
            os.mkfifo(chosen)
    else:
        chosen.write_bytes(mangle(rng, chosen.read_bytes()))
    return chosen.name


@maker
def spoilt_run_commands(rng, here, home):
    spoilt = spoilt_run(rng, here, home)
    judged = ["--extractor", "simple", "--cartoon", str(home / "cartoon"), "--photo", str(home / "photo")]
    shutil.copy(home / "a.png", here / "x.png")
    args = rng.choice(
        [
            ["translate", "run", "x.png", "--out", "out", *PLAIN],
            ["train", "--resume", "run"],
            ["train", "--resume", "run"],
            ["evaluate", "run", *judged[:2]],
            ["compare", "run", str(home / "run"), "--reps", "2", *judged],
            ["compare", "run", "--reps", "2", *judged[:2]],
            ["report", "run", "--out", "out", *judged[:2]],
        ]
    )
    return Case(args, names=(spoilt, "run"), writes=("out", "run"))


@maker
def spoilt_run_reading(rng, here, home):
    spoilt = spoilt_run(rng, here, home)

    def read():
        run = Run(here / "run")
        looks = [repr, Run._repr_html_, EpochStepper, lambda r: r.system(), lambda r: r.samples(), lambda r: r.progress]
        for look in rng.sample([*looks, lambda r: r.history, lambda r: r.best], 3):
            look(run)
        Translator.load(here / "run", device="cpu")

    return Case(call=read, names=(spoilt, "run"), writes=("run",))


@maker
def judging_options(rng, here, home):
    shutil.copytree(home / "run", here / "run")
    known = {"reps": ["-1", "2"], "n": ["4", "-3"], "seed": ["-1", "5"], "extractor": ["simple", "/dev/zero", "w.pth"]}
    known |= {"cartoon": [str(home / "photo"), "nowhere"], "photo": [str(home / "cartoon"), "run"], "until": ["1", "9"]}
    chosen = options(rng, **known)
    command = rng.choice(["compare", "compare", "evaluate", "report"])
    return Case(
        [command, "run", *chosen, *["--extractor", "simple"] * ("--extractor" not in chosen)],
        names=(*values(chosen), "run"),
        writes=("out", "run", "report"),
    )


@maker
def training(rng, here, home):
    for name in ("cartoon", "photo"):
        shutil.copytree(home / name, here / name)
    found = [entry(rng, here / "cartoon", home) for _ in range(rng.randint(0, 2))]
    names = tuple(printable(path.name) for path in found)
    if rng.random() < 0.4:
        (here / "manifest.csv").write_bytes(mangle(rng, b"file,group\ncartoon/0.png,a\ncartoon/1.png,b\n"))
        names += ("manifest.csv",)
    numbers = {
        "width": ["4"],
        "side": ["64", "66"],
        "epochs": ["1"],
        "batch": ["1"],
        "lr": ["0", "-1"],
        "name": ["run"],
    }
    small = {"width": "4", "blocks": "1", "side": "64", "epochs": "1", "decay-epochs": "0"}
    chosen = options(rng, **numbers) if rng.random() < 0.6 else []
    given = dict(zip((name[2:] for name in chosen[::2]), chosen[1::2]))
    if any(value in ("1000000000", "99999999999999999999") for value in given.values()):
        given = {}  # such a training is allowed, and takes as long as it says
    system = [part for name, value in (small | given).items() for part in (f"--{name}", value)]
    args = ["train", "--cartoon", "cartoon", "--photo", "photo", "--run", "out", "toon2real", *system]
    return Case(args, names=(*names, *values(system), "cartoon"))


@maker
def catalogues(rng, here, home):
    (here / "given").mkdir()
    found = [entry(rng, here / "given", home) for _ in range(rng.randint(1, 3))]
    names = [printable(path.name) for path in found]
    if rng.random() < 0.5:
        shutil.copy(home / "a.png", here / "given" / "good.png")
    if rng.random() < 0.4:
        (here / "given" / "manifest.csv").write_bytes(mangle(rng, b"file,licence,split\ngood.png,CC0,train\n"))
        names.append("manifest.csv")
    if rng.random() < 0.2:
        (here / "c.sqlite").write_bytes(mangle(rng, b"SQLite format 3\0" + bytes(500)))
    known = {"every": ["1"], "val": ["0.5"], "side": ["32"], "dark": ["5"], "how": ["crop"], "shard": ["1/1", "3/2"]}
    chosen = options(rng, **known) if rng.random() < 0.5 else []
    args = ["curate", "c.sqlite", "--sources", "given", "--export", "out", *chosen, "--no-progress"]
    return Case(args, names=(*names, *values(chosen), "c.sqlite", "given"), writes=("out", "c.sqlite"))


@maker
def cells(rng, here, home):
    "A stranger's catalogue: one cell, or a setting, is of another kind"
    shutil.copy(home / "c.sqlite", here / "c.sqlite")
    with sqlite3.connect(here / "c.sqlite") as db:
        table = rng.choice(["films", "frames", "about"])
        fields = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] not in ("id", "film")]
        value = rng.choice([None, -1, 10**15, 1e300, "x", "../../x", b"\xff", "\x1b[2J", "null", '{"dark": []}', HTML])
        db.execute(f'UPDATE OR IGNORE {table} SET "{rng.choice(fields)}"=?', (value,))
        if table == "about":
            db.execute("INSERT OR REPLACE INTO about VALUES('thresholds', ?)", (value,))
    db.close()
    asked = rng.choice([["--films"], ["--export", "out"], ["--sheet", "out"], ["--pick", "out/p.html"], ["--val", "0"]])
    args = rng.choice([["c.sqlite", *asked], ["c.sqlite", *asked], ["new.sqlite", "--merge", "c.sqlite", *asked]])
    names = "c.sqlite", "cartoon", "new.sqlite"
    return Case(["curate", *args, "--no-progress"], names=names, writes=("out", "c.sqlite", "new.sqlite"))


@maker
def picks(rng, here, home):
    "What a page of picks gave back is not as it was"
    shutil.copy(home / "c.sqlite", here / "c.sqlite")
    with closing(sqlite3.connect(here / "c.sqlite")) as db:
        rows = db.execute("SELECT content, pts, frames.name FROM frames JOIN films ON films.id=film LIMIT 3").fetchall()
    decisions = [{"film": film, "pts": pts, "name": name, "keep": True} for film, pts, name in rows]
    told = json.dumps(deranged(rng, {"who": "p", "decisions": decisions})).encode()
    (here / "picks.json").write_bytes(mangle(rng, told) if rng.random() < 0.3 else told)
    args = ["curate", "c.sqlite", "--picks", "picks.json", "--no-progress"]
    return Case(args, names=("picks.json",), writes=("c.sqlite",))


@maker
def answers(rng, here, home):
    "A file of answers to a study, or what a page gave back, that is not as it was"
    pixels = np.zeros((2, 16, 16, 3), np.uint8)
    study = HumanStudy({"a": pixels, "b": pixels + 1}, pixels, here / "a.jsonl", photos=pixels, trials=4)
    kept = {"study": study.study, "participant": "p", "trial": 0, "question": "photo", "image": 0}
    kept |= {"left": "a", "right": "b", "chosen": "a", "seconds": 1.0}
    page = {"study": study.study, "participant": "p", "answers": [{"trial": 1, "chosen": 0, "seconds": 1.0}]}
    whole = {"a.jsonl": kept, "page.json": page}
    name = rng.choice(list(whole))
    for file, told in whole.items():
        (here / file).write_text(json.dumps(deranged(rng, told) if file == name else told) + "\n")
    if rng.random() < 0.3:
        (here / name).write_bytes(mangle(rng, (here / name).read_bytes()))

    def read():
        study_results(here / "a.jsonl", reps=2)
        take_answers(study, here / "page.json")
        study_results(here / "a.jsonl", reps=2)

    return Case(call=read, names=("a.jsonl", "page.json"), writes=("a.jsonl", "page.json"))


@maker
def pages(rng, here, home):
    "Messages of a page that is out of date, or a stranger's"
    shutil.copy(home / "c.sqlite", here / "c.sqlite")
    told = {"number": 1, "key": "0/0", "offset": 0, "count": 9, "frames": [1], "version": 1, "tiles": [0], "keep": True}
    told |= {"tab": "kept", "order": "time", "film": None, "shots": True, "shot": None, "name": "dark", "value": 0.1}
    kinds = ["rows", "pictures", "view", "back", "decide", "film", "undo", "threshold", "picture", "own", "nothing"]
    messages = [deranged(rng, told | {"kind": rng.choice(kinds)}) for _ in range(6)]

    def heard():
        picker = FramePicker(here / "c.sqlite")
        compared = CompareSystems({"same": lambda image: image}, np.zeros((2, 16, 16, 3), np.uint8))
        for message in filter(lambda one: isinstance(one, dict), messages):
            picker._hear(picker, message, [b"x"])
            compared._hear(compared, message, [b"x"])
        compared.image = rng.choice([-1, 1, 10**15])
        picker.close()

    return Case(call=heard, names=("c.sqlite",), writes=("c.sqlite",))


@maker
def other_pages(rng, here, home):
    "The same, of the other widgets: what they refuse changes nothing, and they go on"
    shutil.copytree(home / "run", here / "run")
    told = {"key": "0/0", "trial": 0, "chosen": 1, "seconds": 1.0}
    kinds = ["picture", "refresh", "answer", "hello", "stop", "look", "go_on", "nothing"]
    messages = [deranged(rng, told | {"kind": rng.choice(kinds)}) for _ in range(6)]

    def heard():
        pixels = np.zeros((2, 16, 16, 3), np.uint8)
        study = HumanStudy({"a": pixels, "b": pixels + 1}, pixels, here / "a.jsonl", photos=pixels, trials=4)
        widgets = study, EpochStepper(here / "run"), TrainingMonitor()
        for message, widget in product(filter(lambda one: isinstance(one, dict), messages), widgets):
            with suppress(Exception):  # it goes to the notebook's log
                widget._hear(widget, message, [])
        study.answer(3, 0, 1.0)
        assert 3 in study.answered("somebody") and widgets[1].picture("0/input")

    return Case(call=heard, names=("a.jsonl", "run"), writes=("a.jsonl", "run"))


KEY = "0123456789abcdef"


@maker
def photo_manifests(rng, here, home):
    (here / "photos").mkdir()
    table = ",".join(photos.MANIFEST_COLUMNS) + "\n" + ",".join("x" for _ in photos.MANIFEST_COLUMNS) + "\n"
    name = "manifest.csv"
    (here / "photos" / name).write_bytes(mangle(rng, table.encode()))

    def fetched():
        site = photos.Flickr(KEY, "http://127.0.0.1:9/", rate=1e3, backoff=0.01)
        photos.download(("sea",), here / "photos", n=1, flickr=site, progress=False)

    return Case(call=fetched, names=(name, "127.0.0.1"), writes=("photos",))


@maker
def flickr(rng, here, home):
    "A server whose answers are not Flickr's: each photo that it offers is kept or refused with a reason"
    size = {"width_m": 40, "height_m": 40}
    found = [size | {"id": str(i), "title": "t", "owner": "o", "license": "4"} for i in range(3)]
    licences = {
        "licenses": {"license": [{"id": "4", "name": "", "url": "https://creativecommons.org/licenses/by/4.0/"}]}
    }
    picture = (home / "a.png").read_bytes()
    pictures = [mangle(rng, picture) if rng.random() < 0.5 else picture for _ in found]
    odd, how = rng.choice(["licences", "photos", "neither"]), rng.random()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            base = f"http://127.0.0.1:{self.server.server_port}/"
            offered = [one | {"url_m": f"{base}{one['id']}.png"} for one in found]
            told = {"licences": licences, "photos": {"stat": "ok", "photos": {"pages": 1, "photo": offered}}}
            kind = "licences" if "getInfo" in self.path else "photos"
            answer = deranged(random.Random(how), told[kind]) if odd == kind else told[kind]
            number = self.path[1:].removesuffix(".png")
            body = pictures[int(number)] if number.isdigit() else json.dumps(answer).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    def fetched():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = photos.Flickr(KEY, f"http://127.0.0.1:{server.server_port}/", rate=1e3, backoff=0.01)
        told = photos.download(("sea",), here / "photos", n=9, side=32, flickr=site, progress=False)
        kept = sorted((here / "photos").glob("*.png"))
        assert [Image.open(path).size for path in kept] == [(40, 40)] * told.new, "silent"
        assert odd == "photos" or len(told.states) == len(found), "silent"

    return Case(call=fetched, names=("Flickr", "127.0.0.1", "licence"), writes=("photos",))


@maker
def domains(rng, here, home):
    (here / "given").mkdir()
    found = [entry(rng, here / "given", home) for _ in range(rng.randint(1, 3))]
    scenes = "scenes:cartoon:9-1", "scenes:x", "scenes:photo:0-1@0"
    source = rng.choice([here / "given", *scenes, found, rng.choice(VALUES)])
    side = rng.choice([32, 32, 0, -1])
    names = (
        *(printable(path.name) for path in found),
        str(source) or "'' names",
        f"{type(source).__name__} is not",
        os.path.normpath(here / str(source)),
        f"side={side}",
        "given",
        "0 images",
    )

    def opened():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            domain = Domain.open(source, side, cache=here / "cache", progress=False)
        files = any(not path.is_dir() for path in found)
        assert len(domain) + len(domain.skipped) >= files and (not domain.skipped or told), "silent"

    return Case(call=opened, names=names, writes=("cache",))


@maker
def damaged_films(rng, here, home):
    "As many frames as the sound film has, or a word about those that are missing"
    path = here / f"f.{rng.choice(['mkv', 'mp4', 'ts', 'avi'])}"
    path.write_bytes(mangle(rng, (home / f"a{path.suffix}").read_bytes()))

    def translated():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            report = Translator.load(home / "w.safetensors", device="cpu").video(path, here / "out.mkv", progress=False)
        frames = sum(1 for _ in decode(here / "out.mkv"))
        assert frames == report.frames and (frames >= FRAMES or told), f"silent: {frames}, {report}"

    return Case(call=translated, names=(path.name,), writes=("out.mkv",))


@maker
def caches(rng, here, home):
    "What is kept of pictures and of their features is damaged: it is made again, and nothing is changed"

    def seen():
        domain = Domain.open(home / "cartoon", 32, progress=False)
        return domain.images.tobytes(), domain.names, domain.hash, features(domain, "simple").tobytes()

    def again():
        before = seen()
        kept = sorted(path for path in (here / "cache").rglob("*") if path.suffix in (".bin", ".json", ".npy"))
        file = rng.choice(kept)
        file.write_bytes(mangle(rng, file.read_bytes()))
        assert seen() == before, f"silent: {file}"

    return Case(call=again, names=("cache",))


@maker
def surroundings(rng, here, home):
    "Environment variables that name nothing good"
    shutil.copytree(home / "run", here / "run")
    shutil.copy(home / "a.png", here / "x.png")
    (here / "spoilt").write_bytes(mangle(rng, (home / "w.safetensors").read_bytes()))
    names = "CACHE", "WEIGHTS", "INCEPTION"
    places = "/dev/null/x", "/dev/zero", "spoilt", "run", "/proc/1", "y" * 300, str(home / "w.pth")
    about = {f"TOON2REAL_{name}": rng.choice([*places, *filter(None, VALUES)]) for name in names}
    args = rng.choice(
        [
            ["translate", "w", "x.png", "--out", "out", *PLAIN],
            ["evaluate", "run", "--cartoon", str(home / "cartoon"), "--photo", str(home / "photo")],
            ["compare", "run", "--reps", "2", "--extractor", "simple"],
            ["train", "--cartoon", str(home / "cartoon"), "--photo", str(home / "photo"), "--run", "out", *TINY],
        ]
    )
    writes = "out", "run", *(Path(value).parts[0] for value in about.values())
    return Case(args, names=tuple(about.values()), writes=writes, about=about)


@maker
def translations(rng, here, home):
    "A folder of translations to be judged, with something else in it"
    shutil.copytree(home / "photo", here / "given")
    found = [entry(rng, here / "given", home) for _ in range(rng.randint(0, 2))]
    known = {"n": ["4", "-3"], "reps": ["-1", "2"], "seed": ["5"], "out": ["out", "/dev/null/x", "given"]}
    chosen = options(rng, **known)
    judged = ["--extractor", "simple", "--cartoon", str(home / "cartoon"), "--photo", str(home / "photo")]
    names = *(printable(path.name) for path in found), *values(chosen), "given"
    return Case(["evaluate", "given", *judged, *chosen], names=names, writes=("out", *top_level(chosen)))


@maker
def outputs(rng, here, home):
    "Results that would replace an input or somebody's file: nothing but `out` may change"
    for name in ("cartoon", "photo", "run"):
        shutil.copytree(home / name, here / name)
    for name in ("c.sqlite", "d.sqlite"):
        shutil.copy(home / "c.sqlite", here / name)
    (here / "mine").mkdir()
    for name in ("table.csv", "report.html", "about.json", "notes.csv"):
        (here / "mine" / name).write_text(rng.choice(JUNK) or "mine")
    judged = ["--extractor", "simple", "--cartoon", "cartoon", "--photo", "photo"]
    file = rng.choice(["d.sqlite", "cartoon/0.png", "run/history.csv", "run/x.csv", "mine/notes.csv", "out/x.csv"])
    folder = rng.choice(["run", "mine", "out", "cartoon/0.png"])
    args = rng.choice(
        [
            ["curate", "c.sqlite", "--no-progress", "--reasons", file],
            ["curate", "c.sqlite", "--no-progress", "--pick", rng.choice([file, "mine/report.html", "out/p.html"])],
            ["evaluate", "photo", *judged, "--n", "4", "--reps", "2", "--out", file],
            ["compare", "run", "--extractor", "simple", "--reps", "2", "--out", folder],
            ["report", "run", "--extractor", "simple", "--reps", "2", "--out", folder],
        ]
    )
    return Case(args, names=values(args[-1:]), writes=("out", "c.sqlite"))


# --- every option of every command

TINY = ["toon2real", "--width", "4", "--blocks", "1", "--side", "64", "--epochs", "1", "--decay-epochs", "0"]
GOOD = ["1", "4", "0.5", "simple", "cartoon", "run", "out", "a.png", "w.safetensors", "c.sqlite", "1-3", "in-*", "1/2"]
PLACES = ["/dev/zero", "/dev/null/x", "y" * 300, os.fsdecode(b"lat\xe9"), HTML, "(a+)+$", "-", "~"]


def flags(*what) -> list[str]:
    "The options that fields of dataclasses and parameters of functions become"
    known = (vars(one)["__dataclass_fields__"] if is_dataclass(one) else signature(one).parameters for one in what)
    return [f"--{name.replace('_', '-')}" for names in known for name in names if name not in POSITIONAL]


POSITIONAL = "catalogue", "thresholds", "source", "inputs", "what", "runs", "on", "options", "recipe"
COMMANDS = {  # a sound command, what follows it, and all its options
    "curate": (["c.sqlite", "--no-progress"], [], flags(Curation, Thresholds)),
    "photos": (["--base", "http://127.0.0.1:9/", "--n", "1"], [], flags(photos.photos_command)),
    "translate": (["w.safetensors", "a.png", "--out", "out", *PLAIN], [], flags(translate.translate_command)),
    "evaluate": (["run", "--extractor", "simple"], [], flags(cli.Judging, cli.evaluate)),
    "compare": (["run", "--extractor", "simple", "--reps", "2"], [], flags(cli.Judging, cli.compare)),
    "report": (["run", "--out", "out"], [], flags(cli.report)),
    "train": (["--cartoon", "cartoon", "--photo", "photo", "--run", "out"], TINY, flags(cli.train_class(), Options)),
}
RECIPE = flags(CycleGANRecipe)


def top_level(args: list[str]) -> tuple[str, ...]:
    "What in the working folder these values may name"
    return tuple(Path(value).parts[0] for value in args if Path(value).parts)


@maker
def every_option(rng, here, home):
    for name in ("cartoon", "photo", "run"):
        shutil.copytree(home / name, here / name)
    for name in ("c.sqlite", "w.safetensors", "a.png"):
        shutil.copy(home / name, here / name)
    command = rng.choice([*COMMANDS, "curate", "train"])
    sound, after, known = COMMANDS[command]

    def chosen(names):
        picked = rng.sample(names, rng.randint(1, 2))
        return [part for name in picked for part in (name, rng.choice([*VALUES, *GOOD, *PLACES]))]

    odd, own = chosen(known), chosen(RECIPE) if after and rng.random() < 0.5 else []
    endless = "1000000000", "99999999999999999999"
    if any("epochs" in name and value in endless for name, value in zip(own, own[1:])):
        own = []  # such a training is allowed, and takes as long as it says
    named = [name.lstrip("-").replace("-", "_") for name in [*odd, *own]]
    writes = *("out", "report", "run", "photos", "c.sqlite", "runs"), *top_level(odd)
    hosts = [part for part in sound if part.startswith("http")]  # nobody answers there, which may be noticed first
    names = *values([*odd, *own]), *named, *sound[:1], *hosts
    return Case([command, *sound, *odd, *after, *own], names=tuple(filter(None, names)), writes=writes)


# --- running one


def snapshot(folder: Path, but: tuple) -> dict:
    "Everything below a folder, with size and time, but for these names in it"
    found = {}
    for root, folders, files in os.walk(folder):
        if Path(root) == folder:
            folders[:] = [name for name in folders if name not in but]
            files = [name for name in files if not any(name == b or name.startswith(f"{b}-") for b in but)]
        for name in files:
            about = os.lstat(os.path.join(root, name))
            found[os.path.join(root, name)] = about.st_size, about.st_mtime_ns
    return found


def child(case: Case, here: Path):
    "Become the process that does it"
    code = 70
    try:
        with suppress(OSError, AttributeError):  # on Linux: end with the parent
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 1))
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(here.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(here)
        sys.path[:] = [place for place in sys.path if place not in ("", ".")]
        os.environ |= {"TOON2REAL_CACHE": str(here / "cache"), "FLICKR_API_KEY": KEY, "COLUMNS": "300"}
        os.environ.pop("TOON2REAL_INCEPTION", None)
        os.environ |= case.about
        torch.set_num_threads(1)
        if case.args:
            code = cli.main(case.args)
        else:
            code = 0
            try:
                case.call()
            except ValueError as e:
                print(f"toon2real: {printable(e)}", file=sys.stderr)
                code = 1
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
        if isinstance(e.code, str):
            print(f"toon2real: {e.code}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ticks(pid: int) -> list[str]:
    "What a process has used of the processor; nothing where the system does not tell"
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]
    return []


def wait(pid: int) -> tuple[int | None, float]:
    "Its exit code, None if it hangs; processor seconds. However busy the machine is, who works uses the processor"
    before, since = [], time.monotonic()
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        now = ticks(pid)
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() > since + IDLE:
            os.kill(pid, signal.SIGKILL)
            used = os.wait4(pid, 0)[2]
            return None, used.ru_utime + used.ru_stime
        time.sleep(min(0.1, 0.005 + (time.monotonic() - since) / 10))


def verdict(case: Case, code: int | None, out: str, err: str, changed: bool, here: Path) -> str:
    "What became of it"
    lines = [line for line in err.splitlines() if line.startswith("toon2real:") and ": warning:" not in line]
    said = out + err
    known = {re.escape(form) for name in case.names if name for form in (name, printable(name))}
    named = any(re.search(rf"(?<!\w){name}(?!\w)", said) for name in known)
    if code is None or code == -signal.SIGXCPU:
        return "hang"
    if case.args and printable(said, "\r\n\t") != said:
        return "steers"
    if any(HTML in page.read_text(errors="replace") for page in here.rglob("*.html") if page.is_file()):
        return "steers"
    if changed:
        return "outside"
    if "AssertionError: silent" in err:
        return "silent"
    if "Traceback" in err or code not in (0, 1, 2, 130):
        return "traceback"
    if case.inputs is not None and code in (0, 1) and "translated" in out:
        results = sum(p.is_file() for p in (here / "out").rglob("*")) if (here / "out").exists() else 0
        skipped = int(out.split(" skipped")[0].split()[-1])
        return "fine" if results + skipped >= case.inputs else "silent"
    if code == 0:
        return "fine"
    if code == 1 and (len(lines) != 1 or not named):
        return "no name"
    return "clean" if named or code == 2 else "no name"


def one(number: int, seed: int, home: Path, work: Path) -> tuple[str, str, Case]:
    "(verdict, maker, case) of a case"
    rng = random.Random(f"{seed} {number}")
    make = MAKERS[number % len(MAKERS)]
    shutil.rmtree(work, ignore_errors=True)
    here = work / "here"
    here.mkdir(parents=True)
    for name in ("torch", "av", "json", "numpy"):
        (here / f"{name}.py").write_text(f"open({str(work / 'RAN')!r}, 'w')\n")
    case = make(rng, here, home)
    before = snapshot(here, case.writes + ("cache",)), snapshot(home, ("cache",))
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        child(case, here)
    code, case.seconds = wait(pid)
    changed = (
        before != (snapshot(here, case.writes + ("cache",)), snapshot(home, ("cache",))) or (work / "RAN").exists()
    )
    changed = changed or {p.name for p in work.iterdir()} - {"here", "stdout", "stderr"} != set()
    out, err = ((work / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    case.told = f"{case.args or make.__name__} -> {code}\n{out[-600:]}{err[-1500:]}"
    return verdict(case, code, out, err, changed, here), make.__name__, case


def fuzz(cases: int, seed: int = 0, first: int = 0, work: Path = None, keep: Path = None, say=print) -> Counter:
    "Run those that were not run; counts of (maker, verdict) of all"
    work = Path(work or tempfile.mkdtemp())
    if not (work / "ready").exists():
        shutil.rmtree(work / "home", ignore_errors=True)
        pid = os.fork()  # the parent computes nothing, so that its children begin clean
        if not pid:
            try:
                torch.set_num_threads(1)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    prepare(work / "home")
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the sound inputs could not be made")
        (work / "ready").write_text(f"{seed} {commit()}")
    if (work / "ready").read_text() != f"{seed} {commit()}":
        raise SystemExit(f"{work} is of another seed or commit: remove it, or name another")
    found, log, asked = {}, work / "cases.jsonl", range(first, first + cases)
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        found = {line["case"]: line for line in map(json.loads, (one for one in lines if one.endswith("\n")))}
        log.write_text("".join(json.dumps(line) + "\n" for line in found.values()))
    for number in (number for number in asked if number not in found):
        what, name, case = one(number, seed, work / "home", work / "case")
        found[number] = {"case": number, "maker": name, "verdict": what, "told": printable(case.told)[:2500]}
        found[number] |= {"seconds": round(case.seconds, 2)}
        with log.open("a") as file:
            file.write(json.dumps(found[number]) + "\n")
        if what not in ("fine", "clean"):
            say(f"case {number}, {name}: {what}\n{printable(case.told)[:2500]}\n")
            if keep:
                shutil.copytree(work / "case", Path(keep) / f"{number}", symlinks=True, copy_function=copied)
    return Counter((line["maker"], line["verdict"]) for number, line in found.items() if number in asked)


def copied(source, target):
    "Copy a file, but neither a pipe nor a sparse one of 40 GB, which would fill the disk"
    if os.path.isfile(source) and os.path.getsize(source) < 10**7:
        shutil.copy2(source, target)


def table(counts: Counter) -> str:
    "Makers down, verdicts across"
    names = sorted({name for name, _ in counts})
    out = io.StringIO()
    print(f"{'':22}" + "".join(f"{v:>11}" for v in VERDICTS), file=out)
    for name in [*names, "all"]:
        row = [sum(n for (m, w), n in counts.items() if w == v and name in (m, "all")) for v in VERDICTS]
        print(f"{name:22}" + "".join(f"{n:>11}" for n in row), file=out)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--work", type=Path, help="a folder to work in and to go on in (default: one for the seed)")
    parser.add_argument("--keep", type=Path, help="a folder for what failed")
    args = parser.parse_args()
    work = args.work or Path(tempfile.gettempdir()) / f"toon2real-fuzz-{args.seed}"
    counts = fuzz(args.cases, args.seed, args.first, work, args.keep, partial(print, flush=True))
    print(table(counts))
    sys.exit(any(what not in ("fine", "clean") for _, what in counts))


if __name__ == "__main__":
    main()

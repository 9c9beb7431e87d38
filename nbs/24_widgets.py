# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Widgets
#
# > Step through the epochs of a training, compare systems under one zoom, ask people what they see

# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toon2real/toon2real/blob/main/nbs/24_widgets.ipynb)

# %%
#| hide
#| eval: false
# Colab only: install the library and let its widgets load
import sys
if 'google.colab' in sys.modules:
    # %pip install -q "toon2real[lab] @ git+https://github.com/toon2real/toon2real"
    from google.colab import output; output.enable_custom_widget_manager()

# %% [markdown]
# A table says which system is better on average. To see *why*, one has to look: at the same picture through several systems, at the same place in it, and at the same picture
# through the epochs of a training. The widgets of this notebook do that in JupyterLab and on Colab. They need no server and no build step: each is a class on the Python side and a plain script in
# `toon2real/static`, joined by [anywidget](https://anywidget.dev). The pictures travel compressed, and only when they are looked at.

# %%
#| default_exp widgets

# %%
#| export
import hashlib
import json
import os
import random
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import anywidget
import numpy as np
import pandas as pd
import traitlets as T

from toon2real.experiment import Comparison, compare
from toon2real.images import ImageError, jpeg_bytes, list_images, open_image, png_bytes, to_pil, write_atomic
from toon2real.runs import Run
from toon2real.scenes import pairs, scenes
from toon2real.training import luma_correlation
from toon2real.translate import Translator

# %%
#| hide
import tempfile

from fastcore.test import *

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.images import show
from toon2real.training import Trainer
from toon2real.unit import unit

# %%
#| exporti
def _static(*names: str) -> str:
    "Files of `toon2real/static`, one after the other"
    folder = files("toon2real") / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


class _Widget(anywidget.AnyWidget):
    "A widget that is asked for pictures by key, and sends each as compressed bytes"

    _css = _static("widgets.css")

    def __init__(self, **traits):
        super().__init__(**traits)
        self.on_msg(self._hear)

    def _hear(self, _, message: dict, buffers: list):
        "Messages of the browser; `kind` says what each wants"
        if message["kind"] == "picture":
            self.send({"kind": "picture", "key": message["key"]}, [self.picture(message["key"])])

    def picture(self, key: str) -> bytes:
        "The compressed picture of a key"
        raise KeyError(key)

# %% [markdown]
# ## Step through the epochs
#
# A run keeps the same fixed samples at every epoch. `EpochStepper` shows them with a slider, and under them the curves of the history with a cursor at the epoch that is shown:
# one sees what a fall of the distance looks like. Several runs go in step, as in the paper's Figure 4. A run that is still training is followed.
#
# A strip is all samples of one epoch side by side.

# %%
#| exporti
def _strip(pictures: np.ndarray) -> bytes:
    "Pictures N x H x W x 3 side by side, as JPEG"
    return jpeg_bytes(np.concatenate(list(pictures), axis=1), quality=92)


def _as_runs(runs) -> tuple[list[Run], list[str], list[str]]:
    "Runs with their labels and colours; one run, a list of runs or paths, or a `Comparison`"
    if isinstance(runs, (Run, str, Path)):
        runs = [runs]
    comparison = runs if isinstance(runs, Comparison) else compare(runs)
    return comparison.runs, comparison.labels, [comparison.group(run).colour for run in comparison.runs]

# %% [markdown]
# A curve is one column of the histories: the runs that have it, epoch by epoch. Distances come first, because they say how far a run has come; losses follow.

# %%
#| exporti
_NOT_CURVES = {"epoch", "step", "pairs", "seconds", "lr"}


def _curves(runs: list[Run], colours: list[str]) -> list[dict]:
    "Every column of the histories that has numbers, as `{name, series: [{colour, points}]}`"
    histories = [run.history for run in runs]
    metrics = [run.metric for run in runs if run.metric]
    names = dict.fromkeys([*metrics, *(name for history in histories for name in history)])
    curves = []
    for name in names:
        if name in _NOT_CURVES or name.endswith(" se"):
            continue
        series = []
        for history, colour in zip(histories, colours):
            if name in history and len(known := history[["epoch", name]].dropna()):
                series.append({"colour": colour, "points": known.to_numpy(float).tolist()})
        if series:
            curves.append({"name": name, "series": series})
    return curves

# %%
#| export
class EpochStepper(_Widget):
    "The fixed samples of one run or several at each saved epoch, with the curves of their histories"

    _esm = _static("common.js", "epoch_stepper.js")
    rows = T.List(help="one a run: title, colour, saved epochs, whether it is training").tag(sync=True)
    epochs = T.List(help="epochs that any of the runs saved").tag(sync=True)
    curves = T.List(help="columns of the histories").tag(sync=True)
    epoch = T.Int(help="the epoch that is shown").tag(sync=True)
    curve = T.Unicode(help="the curve that is shown").tag(sync=True)
    interval = T.Int(400, help="milliseconds an epoch while playing").tag(sync=True)

    def __init__(
        self,
        runs,  # a `Run`, several, paths of runs, or a `Comparison`
        column: str = "to_photo",  # which of `runs.SAMPLE_COLUMNS` to show
    ):
        super().__init__()
        self.runs, self.labels, self.colours = _as_runs(runs)
        self.column = column
        self.refresh()
        self.epoch = self.epochs[-1]

    def refresh(self):
        "Read the runs' folders again"
        saved = [run.sample_epochs for run in self.runs]
        for run, epochs in zip(self.runs, saved):
            if not epochs:
                raise ValueError(f"{run.path} holds no samples yet: train it first")
        self.curves = _curves(self.runs, self.colours)
        self.epochs = sorted(set().union(*saved))
        if self.curve not in [curve["name"] for curve in self.curves]:
            self.curve = self.curves[0]["name"] if self.curves else ""
        self.rows = [
            {"title": label, "colour": colour, "epochs": epochs, "running": run.running}
            for run, label, colour, epochs in zip(self.runs, self.labels, self.colours, saved)
        ]

    def picture(self, key: str) -> bytes:
        "`input`, or `<index of the run>/<epoch>`, as a JPEG strip"
        if key == "input":
            source = "photo" if self.column in ("to_cartoon", "photo_back") else "cartoon"
            return _strip(self.runs[0].samples(self.epochs[0])[source])
        index, epoch = map(int, key.split("/"))
        return _strip(self.runs[index].samples(epoch)[self.column])

    def _hear(self, widget, message: dict, buffers: list):
        if message["kind"] == "refresh":
            self.refresh()
        else:
            super()._hear(widget, message, buffers)

# %% [markdown]
# Two tiny systems are enough to try it. Nothing below looks like a photograph yet; the widget is what is tested.

# %%
folder = tempfile.TemporaryDirectory()
cartoons, photos = pairs(6, side=64)
small = dict(width=8, side=64, epochs=2, decay_epochs=0)
runs = [
    Trainer(recipe.tiny(**small), cartoons, photos, run=Path(folder.name) / recipe.name, progress=False).fit()
    for recipe in (unit, cartoon2real, toon2real)
]
stepper = EpochStepper(runs)
test_eq(stepper.epochs, [0, 1, 2])
test_eq(stepper.epoch, 2)
test_eq([row["title"] for row in stepper.rows], ["UNIT", "Cartoon-to-real", "toon2real"])
assert "luma_correlation" in [curve["name"] for curve in stepper.curves]

# %% [markdown]
# What the browser asks for is answered with a JPEG strip of the six samples.

# %%
strip = open_image(stepper.picture("2/1"))
test_eq(strip.size, (6 * 64, 64))
show([open_image(stepper.picture(key)) for key in ("input", "0/2", "1/2", "2/2")], cols=1)

# %% [markdown]
# A run that has no samples yet is named.

# %%
test_fail(lambda: EpochStepper(Path(folder.name)), contains="is not a run")

# %% [markdown]
# ## Compare systems
#
# One picture, every system, one zoom and one pan for all: the paper's close-ups, at any place. A swipe bar lays any two of them over each other.
# A translation is made when it is first looked at, and kept.

# %%
#| export
@dataclass(frozen=True)
class Translation:
    "A system that takes part in a comparison"

    title: str
    colour: str
    translate: Callable  # PIL image -> PIL image of the same size


SHIPPED = {"unit": "UNIT", "cartoon2real": "Cartoon-to-real", "toon2real": "toon2real"}

# %%
#| exporti
def _translations(systems) -> list[Translation]:
    "Systems in any form that `CompareSystems` takes"
    if systems is None:
        systems = list(SHIPPED)
    if isinstance(systems, Comparison):
        comparison = systems
        loaded = [Translator.load(run) for run in comparison.runs]
        colours = [comparison.group(run).colour for run in comparison.runs]
        return [Translation(*one) for one in zip(comparison.labels, colours, loaded)]
    if isinstance(systems, dict):
        named = systems
    else:
        named = {SHIPPED.get(str(one), getattr(one, "name", str(one))): one for one in systems}
    return [
        Translation(title, f"var(--t2r-{number % 6})", one if callable(one) else Translator.load(one))
        for number, (title, one) in enumerate(named.items())
    ]


def _pictures(images, side: int = 128) -> tuple[list[np.ndarray], list[str]]:
    "Pictures (uint8 H x W x 3) and their names; images in any form that `CompareSystems` takes"
    if isinstance(images, (str, Path)):
        images = list_images(images) if Path(images).is_dir() else [Path(images)]
    names = [one.name if isinstance(one, Path) else f"picture {number + 1}" for number, one in enumerate(images)]
    opened = [to_pil(open_image(one) if isinstance(one, (str, Path)) else one) for one in images]
    return [np.asarray(one) for one in opened], names


def _measures(output: np.ndarray, source: np.ndarray, truth: np.ndarray | None) -> str:
    "What stands under a translation"
    if output.shape != source.shape:
        return ""
    told = f"luma correlation {luma_correlation(source[None], output[None]):.2f}"
    if truth is not None and truth.shape == output.shape:
        error = np.abs(output.astype(float) - truth).mean()
        told += f", error {error:.1f}"
    return told

# %%
#| export
class CompareSystems(_Widget):
    "The same picture through several systems, under one zoom and one pan"

    _esm = _static("common.js", "compare_systems.js")
    columns = T.List(help="title, colour and kind (input, system, truth) of each panel").tag(sync=True)
    image = T.Int(0, help="the picture that is shown").tag(sync=True)
    total = T.Int(help="how many pictures there are").tag(sync=True)
    name = T.Unicode(help="what the picture is called").tag(sync=True)
    measures = T.List(help="what stands under each panel").tag(sync=True)
    problem = T.Unicode(help="why a picture of one's own was not taken").tag(sync=True)

    def __init__(
        self,
        systems=None,  # a `Comparison`, runs, `Translator`s or what they load, {title: any of these or a function}; by default the shipped three
        images=None,  # a folder, files, or uint8 N x H x W x 3; by default embedded scenes
        truth=None,  # the photographs that belong to the images, likewise, where they are known
    ):
        super().__init__()
        if images is None:
            images, truth = pairs(12, seed=9000, side=128)
        self.systems = _translations(systems)
        self.pictures, self.names = _pictures(images)
        self.truth = _pictures(truth)[0] if truth is not None else []
        self.made = {}
        self.columns = self._columns()
        self.total = len(self.pictures)
        self._tell()
        self.observe(lambda change: self._tell(), "image")

    def _columns(self) -> list[dict]:
        plain = {"colour": "transparent"}
        systems = [{"title": one.title, "colour": one.colour, "kind": "system"} for one in self.systems]
        truth = [{"title": "Truth", "kind": "truth", **plain}] if self.truth else []
        return [{"title": "Input", "kind": "input", **plain}, *systems, *truth]

    def output(
        self,
        image: int,  # number of the picture
        system: int,  # number of the system
    ) -> np.ndarray:  # uint8 H x W x 3
        "A translation, made once and kept"
        key = image, system
        if key not in self.made:
            translated = self.systems[system].translate(to_pil(self.pictures[image]))
            self.made[key] = np.asarray(to_pil(translated))
        return self.made[key]

    def picture(self, key: str) -> bytes:
        "`<picture>/<panel>` as PNG"
        image, column = map(int, key.split("/"))
        kind = self.columns[column]["kind"]
        if kind == "input":
            return png_bytes(self.pictures[image])
        if kind == "truth":
            return png_bytes(self.truth[image] if image < len(self.truth) else self.pictures[image])
        made = png_bytes(self.output(image, column - 1))
        self._tell()
        return made

    def _tell(self):
        "Bring name and measures to those of the picture that is shown"
        image = self.image
        truth = self.truth[image] if image < len(self.truth) else None
        made = [self.made.get((image, system)) for system in range(len(self.systems))]
        told = ["" if one is None else _measures(one, self.pictures[image], truth) for one in made]
        self.name = self.names[image]
        self.measures = ["", *told, *([""] if self.truth else [])]

    def add(
        self,
        source,  # what `images.open_image` takes
        name: str,
    ):
        "Show a picture of one's own"
        picture = to_pil(open_image(source))
        picture.thumbnail((512, 512))
        self.pictures.append(np.asarray(picture))
        self.names.append(name)
        self.total = len(self.pictures)
        self.image = self.total - 1

    def _hear(self, widget, message: dict, buffers: list):
        if message["kind"] != "own":
            return super()._hear(widget, message, buffers)
        try:
            self.add(bytes(buffers[0]), message["name"])
            self.problem = ""
        except ImageError as error:
            self.problem = f"{message['name']}: {error}"

# %%
flat, real = pairs(3, side=64)
compared = CompareSystems({"darker": lambda im: im.point(lambda v: v // 2), **{run.name: run for run in runs[:1]}}, flat, real)
test_eq([column["title"] for column in compared.columns], ["Input", "darker", "unit", "Truth"])
test_eq(compared.name, "picture 1")
test_eq(compared.measures[1], "")  # nothing is translated before it is looked at
darker = np.asarray(open_image(compared.picture("0/1")))
test_eq(darker, flat[0] // 2)
assert compared.measures[1].startswith("luma correlation 1.00, error ")
test_eq(compared.made.keys(), {(0, 0)})
show([open_image(compared.picture(f"0/{column}")) for column in range(4)], zoom=2)

# %% [markdown]
# Somebody's own picture is taken in where it can be read; where it cannot, the widget says why.

# %%
def drop(name: str, content: bytes):
    compared._hear(compared, {"kind": "own", "name": name}, [memoryview(content)])


drop("mine.png", png_bytes(scenes(1, seed=5, side=700)[0]))
test_eq((compared.name, compared.total, compared.pictures[-1].shape), ("mine.png", 4, (512, 512, 3)))
drop("<img src=x onerror=alert(1)>.png", b"no picture")
assert "not an image" in compared.problem
test_eq(compared.total, 4)

# %% [markdown]
# ## Ask people
#
# The authors name a human study as future work: a distance of features is not what a person sees. In `HumanStudy` a person sees two pictures and answers one question,
# again and again: which looks more like a photograph, and which keeps the scene of the cartoon. Order and sides come from a seed. Now and then a real photograph stands against noise; whoever
# misses these does not look, and is left out. Each answer is on the disk before the next question is asked.

# %%
#| export
QUESTIONS = {
    "photo": "Which looks more like a photograph?",
    "scene": "Which keeps the scene of the cartoon?",
}
CATCH = ("a real photograph", "noise")


@dataclass(frozen=True)
class Trial:
    "Two pictures and a question"

    number: int
    question: str  # a key of `QUESTIONS`
    image: int  # which cartoon, or which photograph of a catch trial
    shown: tuple[str, str]  # what stands left and right: names of systems, or `CATCH` in some order

    @property
    def catch(self) -> bool:
        return set(self.shown) == set(CATCH)


def plan_trials(
    systems: Sequence[str],
    images: int,  # how many cartoons
    photos: int,  # how many photographs for catch trials
    trials: int,  # how many questions, catch trials included
    seed: int,
    catch_every: int = 10,
) -> list[Trial]:
    "Every pair of systems about equally often, in an order and with sides that depend on the seed alone"
    rng = random.Random(seed)
    duels = [(a, b) for i, a in enumerate(systems) for b in systems[i + 1 :]]
    whole = [(question, duel, image) for image in range(images) for duel in duels for question in QUESTIONS]
    rng.shuffle(whole)
    planned = []
    for number in range(trials):
        if number % catch_every == catch_every - 1:
            question, duel, image = "photo", CATCH, rng.randrange(photos)
        else:
            question, duel, image = whole[number % len(whole)]
        planned.append(Trial(number, question, image, tuple(rng.sample(duel, 2))))
    return planned

# %%
plan = plan_trials(["UNIT", "toon2real"], images=4, photos=3, trials=20, seed=1)
test_eq(plan, plan_trials(["UNIT", "toon2real"], images=4, photos=3, trials=20, seed=1))
test_eq(sum(trial.catch for trial in plan), 2)
test_eq({trial.shown for trial in plan if not trial.catch}, {("UNIT", "toon2real"), ("toon2real", "UNIT")})
plan[0]

# %% [markdown]
# The Bradley-Terry model gives every system a strength $\pi$, so that $i$ is preferred to $j$ with probability $\pi_i/(\pi_i + \pi_j)$. Hunter's iteration (2004) finds the strengths that make the answers most
# likely. Half a win either way is added to each pair, so that a system that never lost has a finite score.

# %%
#| export
def bradley_terry(
    wins: np.ndarray,  # K x K: how often the row was preferred to the column
) -> np.ndarray:  # K log-strengths with mean 0
    "Scores of a paired comparison"
    wins = wins + 0.5 * (1 - np.eye(len(wins)))
    met = wins + wins.T
    strength = np.ones(len(wins))
    for _ in range(1000):
        strength = wins.sum(1) / (met / (strength[:, None] + strength)).sum(1)
        strength /= np.exp(np.log(strength).mean())
    return np.log(strength)

# %% [markdown]
# With known strengths the scores come back: 1 against 3 is a difference of $\log 3$.

# %%
many = 1e6
true = np.array([1.0, 3.0, 6.0])
odds = true[:, None] / (true[:, None] + true)
test_close(np.diff(bradley_terry(many * odds * (1 - np.eye(3)))), np.diff(np.log(true)), eps=1e-4)

# %%
#| exporti
def _outputs(title: str, system, cartoons: list[np.ndarray]) -> list[np.ndarray]:
    "Translations of all cartoons by a system, or the translations themselves"
    if isinstance(system, np.ndarray):
        outputs = list(system)
    else:
        translate = _translations({title: system})[0].translate
        outputs = [np.asarray(to_pil(translate(to_pil(cartoon)))) for cartoon in cartoons]
    if len(outputs) != len(cartoons):
        raise ValueError(f"{title}: {len(outputs)} translations of {len(cartoons)} cartoons: pass one for each")
    return outputs


def _noise(number: int) -> np.ndarray:
    "A picture of noise, for catch trials"
    return np.random.default_rng(number).integers(0, 256, (128, 128, 3), dtype=np.uint8)


def _append(path: Path, record: dict):
    "Add a line to a file; it is on the disk when this returns"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _answers(path: Path) -> list[dict]:
    "The answers of a file; ValueError names a line that is none"
    if not path.exists():
        return []
    answers = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            answers.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no answer ({error}): remove that line") from error
    return answers

# %% [markdown]
# A study knows itself by a digest of its plan, so that answers to another study are not mixed in. Who comes back goes on where they stopped.

# %%
#| export
class HumanStudy(_Widget):
    "Which of two pictures? Answers go to a file, one line each"

    _esm = _static("common.js", "human_study.js") + "\nexport default { render };\n"
    trial = T.Dict(allow_none=True, help="the question that is asked; None at the end").tag(sync=True)
    done = T.Int(help="answers given").tag(sync=True)
    total = T.Int(help="answers wanted").tag(sync=True)

    def __init__(
        self,
        systems: dict,  # title -> translations of all images (uint8 N x H x W x 3), or what `CompareSystems` takes
        images,  # the cartoons: a folder, files, or uint8 N x H x W x 3
        out: Path,  # file for the answers; it is added to
        seed: int = 0,  # of order and sides
        photos=None,  # real photographs for catch trials (default: those of embedded scenes)
        trials: int = 60,
        participant: str = "somebody",
    ):
        super().__init__()
        self.out, self.participant = Path(out), participant
        self.cartoons, _ = _pictures(images)
        self.photos, _ = _pictures(scenes(8, seed=7000, side=128, kind="photo") if photos is None else photos)
        self.systems = {name: _outputs(name, one, self.cartoons) for name, one in systems.items()}
        if len(self.systems) < 2:
            raise ValueError(f"HumanStudy compares two systems or more: it got {', '.join(self.systems) or 'none'}")
        self.trials = plan_trials(list(self.systems), len(self.cartoons), len(self.photos), trials, seed)
        self.total = trials
        self._next()

    @property
    def study(self) -> str:
        "A digest of the plan and the pictures: answers belong to one study"
        digest = hashlib.sha256(repr(self.trials).encode())
        for pictures in (*self.systems.values(), self.cartoons):
            for picture in pictures:
                digest.update(picture.tobytes())
        return digest.hexdigest()[:16]

    def _next(self):
        "Ask the first question that this participant has not answered"
        mine = [a for a in _answers(self.out) if (a["study"], a["participant"]) == (self.study, self.participant)]
        answered = {answer["trial"] for answer in mine}
        left = [trial for trial in self.trials if trial.number not in answered]
        self.done = len(self.trials) - len(left)
        self.trial = self._asked(left[0]) if left else None

    def _asked(self, trial: Trial) -> dict:
        "A trial as the browser sees it: nothing in it says which system is which"
        return {
            "number": trial.number,
            "question": QUESTIONS[trial.question],
            "input": f"{trial.number}/input" if trial.question == "scene" else None,
            "pictures": [f"{trial.number}/0", f"{trial.number}/1"],
        }

    def picture(self, key: str) -> bytes:
        "`<trial>/input`, `<trial>/0` (left) or `<trial>/1` (right) as JPEG"
        number, place = key.split("/")
        trial = self.trials[int(number)]
        if place == "input":
            return jpeg_bytes(self.cartoons[trial.image], quality=92)
        shown = trial.shown[int(place)]
        if not trial.catch:
            return jpeg_bytes(self.systems[shown][trial.image], quality=92)
        return jpeg_bytes(self.photos[trial.image] if shown == CATCH[0] else _noise(trial.number), quality=92)

    def answer(
        self,
        trial: int,  # number of the trial
        chosen: int,  # 0 left, 1 right
        seconds: float,  # how long it took
    ):
        "Keep an answer and ask the next question"
        if chosen not in (0, 1) or not 0 <= trial < len(self.trials):
            raise ValueError(f"trial {trial}, chosen {chosen}: trials are 0 to {len(self.trials) - 1}, chosen is 0 or 1")
        asked = self.trials[trial]
        kept = {"study": self.study, "participant": self.participant, "trial": trial, "question": asked.question}
        pictures = {"image": asked.image, "left": asked.shown[0], "right": asked.shown[1]}
        _append(self.out, kept | pictures | {"chosen": asked.shown[chosen], "seconds": round(seconds, 2)})
        self._next()

    def _hear(self, widget, message: dict, buffers: list):
        if message["kind"] == "answer":
            self.answer(message["trial"], message["chosen"], message["seconds"])
        else:
            super()._hear(widget, message, buffers)

# %%
made = {"UNIT": 255 - flat, "toon2real": real, "nothing": flat}
answers = Path(folder.name) / "answers.jsonl"
study = HumanStudy(made, flat, answers, trials=20, participant="Ada", photos=real)
test_eq((study.done, study.total, study.trial["number"]), (0, 20, 0))
test_eq(open_image(study.picture("0/0")).size, (64, 64))

# %% [markdown]
# Ada prefers the photograph whenever she sees it, then the untouched cartoon. Half-way the kernel dies; a new study goes on at the eleventh question.

# %%
liking = {name: rank for rank, name in enumerate(["noise", "UNIT", "nothing", "toon2real", "a real photograph"])}


def answer_all(study: HumanStudy, stop: int, like=liking.get):
    while study.trial and study.done < stop:
        asked = study.trials[study.trial["number"]]
        chosen = int(like(asked.shown[1]) > like(asked.shown[0]))
        study._hear(study, {"kind": "answer", "trial": asked.number, "chosen": chosen, "seconds": 1.0}, [])


answer_all(study, 10)
study = HumanStudy(made, flat, answers, trials=20, participant="Ada", photos=real)
test_eq(study.done, 10)
answer_all(study, 20)
test_eq((study.done, study.trial, len(answers.read_text().splitlines())), (20, None, 20))

# %% [markdown]
# ## What people said
#
# `study_results` leaves out whoever missed catch trials, and gives each system a Bradley-Terry score with a bootstrap interval over the answers, and the share of the time that people who saw the same pair agreed.

# %%
#| exporti
def _attentive(answers: pd.DataFrame, pass_mark: float) -> pd.DataFrame:
    "The answers of those who passed their catch trials"
    catch = answers[answers.left.isin(CATCH)]
    passed = (catch.chosen == CATCH[0]).groupby(catch.participant).mean()
    failed = passed.index[passed < pass_mark]
    return answers[~answers.participant.isin(failed) & ~answers.left.isin(CATCH)]


def _wins(answers: pd.DataFrame, systems: list[str]) -> np.ndarray:
    "How often each row's system was preferred to each column's"
    wins = np.zeros((len(systems), len(systems)))
    other = np.where(answers.chosen == answers.left, answers.right, answers.left)
    for won, lost in zip(answers.chosen, other):
        wins[systems.index(won), systems.index(lost)] += 1
    return wins


def _agreement(answers: pd.DataFrame) -> float:
    "Of two answers to the same pair of pictures, the share that is the same"
    pair = [frozenset(both) for both in zip(answers.left, answers.right)]
    same = met = 0
    for _, group in answers.groupby([answers.image, pd.Series(pair, index=answers.index)]):
        counts = group.chosen.value_counts()
        same += (counts * (counts - 1)).sum()
        met += len(group) * (len(group) - 1)
    return same / met if met else np.nan

# %%
#| export
def study_results(
    out: Path,  # the file of answers
    reps: int = 500,  # bootstrap resamplings
    seed: int = 0,
    pass_mark: float = 0.8,  # share of catch trials that a participant must get right
) -> pd.DataFrame:  # a row for each question and system
    "Scores of a human study: log-strengths with 95 % intervals, answers, people, agreement"
    answers = pd.DataFrame(_answers(Path(out)))
    if answers.empty:
        raise ValueError(f"{out} holds no answers yet: let somebody take the study")
    if answers.study.nunique() > 1:
        raise ValueError(f"{out} holds answers to {answers.study.nunique()} studies: keep one file for each")
    people, answers = answers.participant.nunique(), _attentive(answers, pass_mark)
    rng, rows = np.random.default_rng(seed), []
    for question, given in answers.groupby("question"):
        systems = sorted({*given.left, *given.right})
        scores = bradley_terry(_wins(given, systems))
        samples = [given.sample(len(given), replace=True, random_state=rng) for _ in range(reps)]
        low, high = np.percentile([bradley_terry(_wins(one, systems)) for one in samples], [2.5, 97.5], axis=0)
        told = {"answers": len(given), "people": given.participant.nunique(), "left out": people - answers.participant.nunique()}
        for one in zip(systems, scores, low, high):
            row = dict(zip(("system", "score", "low", "high"), one))
            rows.append({"question": QUESTIONS[question], **row, **told, "agreement": _agreement(given)})
    return pd.DataFrame(rows)

# %% [markdown]
# Bob clicks without looking, misses the catch trials, and is left out. Ada's order comes back.

# %%
bob = HumanStudy(made, flat, answers, trials=20, participant="Bob", photos=real)
answer_all(bob, 20, like=lambda name: -liking[name])
results = study_results(answers, reps=50)
test_eq(set(results["left out"]), {1})
order = results[results.question == QUESTIONS["photo"]].sort_values("score").system.tolist()
test_eq(order, ["UNIT", "nothing", "toon2real"])
results.round(2)

# %% [markdown]
# ## A page for people without Jupyter
#
# `study_page` writes one HTML file that works from the disk. It keeps the answers in the browser and gives them back as a file, which `take_answers` adds to the others.

# %%
#| export
def study_page(
    study: HumanStudy,
    path: Path,  # the .html file
    participant: str = "somebody",
) -> Path:
    "The study as one page that loads nothing from elsewhere"
    trials = [study._asked(trial) for trial in study.trials]
    keys = [key for trial in trials for key in (trial["input"], *trial["pictures"]) if key]
    pictures = {key: "data:image/jpeg;base64," + b64encode(study.picture(key)).decode() for key in keys}
    data = {"trials": trials, "pictures": pictures, "participant": {"study": study.study, "participant": participant}}
    safe = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    script = _static("common.js", "human_study.js")
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Which picture?</title>
<style>:root {{ color-scheme: light dark }}
{_static("widgets.css")}</style>
</head>
<body>
<main class="t2r" id="study"></main>
<script type="module">
{script}
standalone(document.getElementById("study"), {safe});
</script>
</body>
</html>
"""
    write_atomic(path, page.encode())
    return Path(path)


def take_answers(
    study: HumanStudy,
    path: Path,  # the .json file that the page gave back
) -> int:  # answers added
    "Add the answers of a page; ValueError if they belong to another study"
    given = json.loads(Path(path).read_text(encoding="utf-8"))
    if given.get("study") != study.study:
        raise ValueError(f"{path} answers another study ({given.get('study')}): this one is {study.study}")
    study.participant = str(given["participant"])
    study._next()
    before = study.done
    for one in given["answers"]:
        if study.trial and one["trial"] == study.trial["number"]:
            study.answer(int(one["trial"]), int(one["chosen"]), float(one["seconds"]))
    return study.done - before

# %%
page = study_page(study, Path(folder.name) / "study.html", participant="Eve")
text = page.read_text()
assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
given = {"study": study.study, "participant": "Eve", "answers": [{"trial": 0, "chosen": 1, "seconds": 2}]}
(Path(folder.name) / "eve.json").write_text(json.dumps(given))
test_eq(take_answers(study, Path(folder.name) / "eve.json"), 1)
test_eq(take_answers(study, Path(folder.name) / "eve.json"), 0)  # a second time nothing is added
other = HumanStudy(made, flat, answers, seed=1, trials=20, photos=real)
test_fail(lambda: take_answers(other, Path(folder.name) / "eve.json"), contains="answers another study")

# %%
#| hide
folder.cleanup()

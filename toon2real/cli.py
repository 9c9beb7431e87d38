"The command line: the one hand-written edge of the library (everything else is exported from nbs/)."

import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, fields
from functools import cache, partial, wraps
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, arg

from toon2real import __version__
from toon2real.files import check_output, counted, printable, utf8, write_atomic

# where each command is, and what it does; nothing is imported before it is asked for
COMMANDS = {
    "quickstart": ("toon2real.cli:quickstart", "train three small systems on the embedded scenes and compare them"),
    "curate": ("toon2real.curate:Curation", "films and stills to a folder of cartoons ready for training"),
    "photos": ("toon2real.photos:photos_command", "photographs by tag, with author, licence and link kept"),
    "train": ("toon2real.cli:train_class", "train a system on a folder of cartoons and a folder of photos"),
    "evaluate": ("toon2real.cli:evaluate", "judge the kept epochs of runs, or folders of translations"),
    "compare": ("toon2real.cli:compare", "one table of several runs: text, Markdown, LaTeX, CSV"),
    "report": ("toon2real.cli:report", "figures and one HTML page of several runs"),
    "translate": ("toon2real.cli:translate_function", "translate images, folders and videos"),
}
HELP = """usage: toon2real COMMAND [OPTIONS]

Turn cartoon scenery into photographs, unpaired.

{commands}

toon2real --import MODULE COMMAND ... also knows the systems that a Python module of yours defines.
toon2real COMMAND --help lists the options; toon2real --version prints the version.
"""

OWN = {}  # name -> recipe, of the user's own systems

Folder = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
Paths = Annotated[tuple[Path, ...], tyro.conf.Positional, arg(metavar="PATH...", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Name = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]


def quickstart(out: Path = Path("quickstart")):
    """Draw the embedded scenes, train three small systems on them side by side, compare them.

    About a quarter of an hour on two processor cores. It ends with figures and a report. If it is
    interrupted, run it again to continue.

    Args:
        out: Folder for the pictures, the runs, the table, the figures and report.html.
    """
    from toon2real import quickstart as quick

    print("drawing scenes, then training UNIT, Cartoon-to-real and toon2real on them; Ctrl-C saves", flush=True)
    table = quick.quickstart(out)
    print("\nFrom the cartoon to its translation: the distance to the true photographs, which no system saw")
    print(f"(8-bit levels, lower is nearer; Frechet on hand-made features, not an FID)\n\n{quick.summary(table)}\n")
    print(f"{table.round(1).to_string(na_rep='')}\n")
    print(f"pictures:  {out / 'comparison.png'}\ntable:     {out / 'table.csv'}\nruns:      {out / 'runs'}", flush=True)
    runs = [out / "runs" / recipe.name for recipe in quick.quickstart_recipes()]
    page = report(runs, out, Judging(extractor="simple"))
    print(f"next:      open {page}")
    print(f"           toon2real translate {runs[-1]} {out / 'scenes' / 'cartoon'} --out translated")
    print("           make lab   opens the notebooks; nbs/index.ipynb is the tour")


def presets() -> dict:
    "Name -> recipe of the systems that can be trained; imported on demand, so that other commands need no torch"
    from toon2real.cyclegan import cartoon2real, toon2real
    from toon2real.patchwise import patchwise
    from toon2real.unit import unit

    return {"toon2real": toon2real, "cartoon2real": cartoon2real, "unit": unit, "patchwise": patchwise} | OWN


def train_class():
    "The class whose fields are the options of `toon2real train`; made on demand, as they need torch"
    from toon2real.preparation import Options

    systems = {
        "toon2real": "CycleGAN with spectral normalization in its discriminators: the paper's system",
        "cartoon2real": "CycleGAN: the authors' earlier Cartoon-to-real",
        "unit": "UNIT, the paper's other comparison",
        "patchwise": "one generator and a contrastive loss on patches instead of the cycle: beyond the paper",
    }
    recipes = presets()
    Preset = tyro.extras.subcommand_type_from_defaults(recipes, systems, prefix_names=False)

    @dataclass
    class Train:
        """Train a system on a folder of cartoons and a folder of photos.

        toon2real train --cartoon my/cartoons --photo my/photos

        toon2real train --cartoon my/cartoons --photo my/photos --run runs/small toon2real --width 32 --side 64

        toon2real train --resume runs/small

        toon2real train --stop runs/small

        The system's name and its hyperparameters come last (toon2real train unit --help lists them). Ctrl-C saves;
        --resume continues."""

        cartoon: Folder = None  # folder of cartoons, domain C
        photo: Folder = None  # folder of photos, domain R
        run: Folder = None  # new folder for the run (default: runs/ and the system's name)
        resume: Folder = None  # a run to resume with its recipe; give --cartoon and --photo only if the folders moved
        stop: Folder = None  # a run that another process trains: ask it to save and end, and wait for that
        val_cartoon: Folder = None  # held-out cartoons, for samples and evaluations (default: samples are of training)
        val_photo: Folder = None  # held-out photos, likewise
        until: Number = None  # stop after this epoch (default: the end of the recipe's schedule)
        init_from: Folder = None  # a run or weights file to fine-tune from
        device: Name = None  # cuda, cuda:1, cpu, mps (default: a GPU if there is one)
        options: OmitArgPrefixes[Options] = Options()  # how the training runs and what it keeps
        recipe: OmitArgPrefixes[OmitSubcommandPrefixes[Preset]] = recipes["toon2real"]  # system and hyperparameters

        def __call__(self, command: list[str]):
            if self.stop:
                return _stop(self.stop)
            trainer = _trainer(self, command)
            if trainer.first:
                _say(f"{trainer.recipe}\n{trainer.cartoon}\n{trainer.photo}")
                _say(f"{trainer.device}, {trainer.options.precision} -> {trainer.run.path}")
            run = trainer.fit(self.until)
            if trainer.state == "stopped" or not trainer.first:
                return
            _say(f"{run}\nsamples: {run.path / 'samples'}")
            _say(f"next: {run.program} translate {run.path} PICTURE_OR_FOLDER --out FOLDER")

    return Train


def _refuse_before_system(args: list[str]):
    "ValueError for a hyperparameter that stands before the system's name"
    from toon2real.preparation import Options

    recipes = presets()
    options = {field.name for part in (train_class(), Options) for field in fields(part)}
    hyperparameters = {field for recipe in recipes.values() for field in asdict(recipe)} - options
    for word in takewhile(lambda word: word not in recipes, args):
        option = word.partition("=")[0]
        if option.startswith("--") and option[2:].replace("-", "_") in hyperparameters:
            raise ValueError(
                f"{option} is a hyperparameter, and these come last, after the system's name ({', '.join(recipes)}): "
                f"toon2real train --cartoon FOLDER --photo FOLDER toon2real {option} ..."
            )


def _stop(path: Path):
    "Stop a training that runs in another process"
    from toon2real.runs import Run

    run = Run(path)
    run.stop()
    _say(f"asked {path} to stop after its current step")
    while run.running:
        time.sleep(0.2)
    _say(f"stopped at step {run.checkpoint_steps[-1]}: continue with {run.refresh().how_to_go_on}")


def _trainer(train, command: list[str]):
    "The trainer that the options ask for: a new one, whose run keeps the command, or a resumed one"
    from toon2real.training import Trainer

    val = train.val_cartoon, train.val_photo
    if any(val) and not all(val):
        raise ValueError("--val-cartoon and --val-photo go together: give both or neither")
    val = val if all(val) else None
    if train.resume:
        _refuse_changes(train)
        return Trainer.resume(train.resume, train.cartoon, train.photo, val, device=train.device)
    if not (train.cartoon and train.photo):
        raise ValueError("which pictures? Give --cartoon FOLDER and --photo FOLDER, or --resume RUN")
    total = train.recipe.total_epochs
    if train.until is not None and not 1 <= train.until <= total:
        raise ValueError(
            f"--until {train.until}, but the schedule has 1 to {total}: change --epochs and --decay-epochs"
        )
    name = train.recipe.name
    if not train.run and (Path(name).name != name or name == ".."):
        raise ValueError(f"--name {name!r} names no folder in runs/: name one with --run, or choose another name")
    trainer = Trainer(
        train.recipe,
        train.cartoon,
        train.photo,
        train.run or Path("runs") / name,
        val=val,
        device=train.device,
        init_from=train.init_from,
        **asdict(train.options),
    )
    if trainer.first:
        trainer.run.update(command=command)
    return trainer


def _refuse_changes(train):
    "ValueError where a resumed training is given what it cannot change"
    from toon2real.preparation import Options
    from toon2real.runs import Run

    as_it_was = *presets().values(), Run(train.resume).recipe
    if train.run or train.init_from or train.options != Options() or train.recipe not in as_it_was:
        raise ValueError(
            f"--resume {train.resume} continues with the recipe and options it started with: "
            f"leave the other options out, or begin a new run with --init-from {train.resume}"
        )


@dataclass
class Judging:
    "Pictures, seed and features"

    cartoon: Folder = None  # held-out cartoons (default: those of the run, or of the first one)
    photo: Folder = None  # held-out photos, likewise
    n: Number = None  # images in every set (default: as many as all sets allow; the floor needs two sets of photos)
    seed: int = 0  # which pictures are drawn, and the resamplings
    reps: int = 100  # resamplings for the intervals
    extractor: str = "auto"
    """An Inception weights file; simple; auto: Inception if its weights are found, else simple; or, for several runs,
    theirs: the features that chose their best epochs."""


BY_DEFAULT = Judging()
AS_THEY_WERE = Judging(extractor="theirs")


def evaluate(what: Paths, on: OmitArgPrefixes[Judging] = BY_DEFAULT, again: bool = False, out: Folder = None):
    """Judge runs, or folders of translations, on held-out pictures.

    KID, FID, weighted FID and its parts, content, at equal N, beside the floor and the untranslated input.

    toon2real evaluate runs/toon2real runs/unit                                  the kept epochs, into the histories

    toon2real evaluate translated --cartoon cartoons/val --photo photos/val      pictures named like their cartoons

    Args:
        what: Runs, or folders of translated pictures.
        on: Pictures, seed and features.
        again: Judge epochs of runs that have their metrics already.
        out: Write the numbers of folders here, as CSV.
    """
    if not what:
        raise ValueError("nothing to judge: name runs, or folders of translations")
    folders = [path for path in what if not (path / "run.json").exists()]
    if len(folders) == len(what):
        return _evaluate_folders(what, on, out)
    if folders:
        raise ValueError(f"{folders[0]} is not a run, others are: judge runs and folders one after the other")
    if out:
        raise ValueError(f"--out {out} is for folders: the numbers of runs go into their histories, so leave it out")
    for path in what:
        _evaluate_run(path, on, again)


def _evaluate_run(path: Path, on: Judging, again: bool):
    "Judge the kept epochs of a run"
    from toon2real.experiment import judge_run
    from toon2real.lineup import Lineup, lacks
    from toon2real.runs import Run
    from toon2real.tables import plain

    run = Run(path)
    table = judge_run(run, on.cartoon, on.photo, on.n, on.seed, on.extractor, again, progress=sys.stderr.isatty())
    _say(f"{run!r}\n{_terms(run.terms)}\nbest by {run.metric}: epoch {run.best}")
    for note in lacks(Lineup([run]), given=bool(on.cartoon or on.photo)):
        _say(f"note: {note}")
    _say(f"\n{plain(table)}\n\nall epochs, with their losses: {run.path / 'history.csv'}\n")


def _evaluate_folders(folders: tuple[Path, ...], on: Judging, out: Path | None):
    "Judge folders of translated pictures"
    from toon2real import fid
    from toon2real.features import best_extractor
    from toon2real.tables import main_measures, plain

    if out:
        check_output(out, ".csv", "KID")
    if not (on.cartoon and on.photo):
        raise ValueError(
            f"{folders[0]} is not a run: to judge a folder of translations give "
            "--cartoon FOLDER (their inputs) and --photo FOLDER (real photographs)"
        )
    named = {folder.name: folder for folder in folders}
    if len(named) < len(folders):
        raise ValueError(
            f"two of the folders have the same name ({', '.join(map(str, folders))}): "
            "rename one, because rows take these names"
        )
    table = fid.evaluate(
        named,
        on.photo,
        on.cartoon,
        dims=None,
        n=on.n,
        seed=on.seed,
        reps=on.reps,
        extractor=best_extractor(on.extractor),
        progress=sys.stderr.isatty(),
    )
    _say(f"{_terms(table.attrs)}\n\n{plain(main_measures(table))}\n")
    if out:
        write_atomic(out, utf8(table.to_csv()))
    _say(f"all measures: {out or 'judge again with --out FILE.csv'}")


def compare(runs: Paths, on: OmitArgPrefixes[Judging] = BY_DEFAULT, until: Number = None, out: Folder = None):
    """One table of several runs at their best and last epochs.

    With the floor, the untranslated input and the paper's numbers.

    Args:
        runs: Runs at the same image side that share their held-out pictures.
        on: Pictures, seed and features.
        until: Ignore later epochs, to compare runs of unequal length at equal pairs.
        out: A folder for the table (CSV, Markdown, LaTeX), the histories, and about.json (recipes, options, terms).
    """
    from toon2real import experiment, tables

    if out:
        tables.check_results(out)
    comparison = experiment.compare(runs, **asdict(on), until=until, progress=sys.stderr.isatty())
    table = comparison.table
    _say(_terms(table.attrs))
    for note in table.attrs["notes"]:
        _say(f"note: {note}")
    if table.paper.notna().any():
        _say("note: Column paper is its weighted FID, on other pictures: compare order and ratios only.")
    _say(f"\n{tables.plain(tables.main_measures(table))}\n")
    seeds = experiment.over_seeds(table)
    if seeds.seeds.min() >= 4:
        print("over seeds; p: permutation test against the system whose mean is best\n")
        _say(f"{seeds.to_string(float_format='{:.3g}'.format, na_rep='-')}\n")
    if out:
        tables.write_results(comparison, out)
    _say(f"all measures, as CSV, Markdown and LaTeX: {out or 'compare again with --out FOLDER'}")


def _terms(about: dict) -> str:
    "What the numbers of a judge were measured on, in three lines"
    available = ", ".join(f"{name} {count}" for name, count in about["available"].items())
    terms = f"N = {about['n']} images in every set ({available} available), seed {about['seed']}"
    interval = f"; [95 % interval of {about['reps']} resamplings]" if about.get("reps") else ""
    return f"{terms}\n{about['extractor']}\nKID ± standard error (jackknife){interval}"


def report(
    runs: Paths, out: Path = Path("report"), on: OmitArgPrefixes[Judging] = AS_THEY_WERE, until: Number = None
) -> Path:
    """The paper's figures (PNG and PDF) and one self-contained HTML page of several runs.

    By default the table uses the features that chose the best epochs.

    Args:
        runs: Runs at the same image side that share their held-out pictures.
        out: A folder for figures/ and report.html.
        on: Pictures, seed and features; the seed also chooses the pictures that are shown.
        until: Ignore later epochs.
    """
    from toon2real.comparison import compare as gather
    from toon2real.figures import paper_figures
    from toon2real.report import MARK
    from toon2real.report import report as page

    check_output(out / "report.html", ".html", MARK)
    comparison = gather(runs, **asdict(on), until=until)
    _say(f"figures:   {out / 'figures'}")
    paper_figures(comparison, out / "figures")
    made = page(comparison, out / "report.html")
    _say(f"report:    {made}")
    return made


def translate_function():
    "`toon2real translate`; made on demand, as its options need torch"
    from toon2real.translate import translate_command

    @wraps(translate_command)
    def translate(*args, **kwargs):
        made = translate_command(*args, **kwargs)
        print(made)
        if made.skipped or made.partial:
            raise ValueError(
                f"without a whole result: {counted(len(made.skipped) + len(made.partial), 'input')}, see above"
            )

    return translate


def _parsed(command, name: str, args: list[str]):
    "What the options ask for; control characters in them, of a file's name say, are spelled out where they are wrong"
    parse = partial(tyro.cli, command, args=args, prog=f"toon2real {name}")
    if all(map(str.isprintable, args)):
        return parse()
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse()
    finally:
        print(printable(said.getvalue(), "\n"), end="", file=sys.stderr)


def _import_own(module: str):
    "Import a module of the user's; `toon2real train` knows the recipes in it by their names"
    sys.path.insert(0, os.getcwd())
    try:
        own = importlib.import_module(module)
    except Exception as e:
        missing = e.name if isinstance(e, ModuleNotFoundError) else None
        if module.startswith(".") or f"{module}.".startswith(f"{missing}."):
            where = "name one in this folder or in PYTHONPATH, without .py"
            raise ValueError(f"--import {module}: no module that can be imported ({e}): {where}") from e
        traceback.print_exc()
        raise ValueError(f"--import {module}: mend the error above, which comes from your module") from e
    from toon2real.system import Recipe

    for variable, recipe in vars(own).items():
        if not isinstance(recipe, Recipe):
            continue
        if presets().get(recipe.name, recipe) != recipe:
            remedy = f"give {variable} another by replace(name=...)"
            raise ValueError(f"--import {module}: another system has the name {recipe.name!r}: {remedy}")
        OWN[recipe.name] = recipe


def _run(name: str, args: list[str], imported: list[str]):
    "Read the options of a command, and do it"
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    if name == "train":
        _refuse_before_system(args)
    if command in (train_class, translate_function):
        command = command()
    import pandas as pd

    with pd.option_context("display.unicode.east_asian_width", True):  # wide letters take two columns
        asked = _parsed(command, name, args)
        if callable(asked):
            asked(["toon2real", *imported, name, *args])
    sys.stdout.flush()


def _say(text):
    "Print lines, without control characters that a run's or a metric's name may contain"
    print(printable(text, "\n"), flush=True)


def _complain(message):
    "One line on stderr, whatever is in the message"
    print(f"toon2real: {printable(message)}", file=sys.stderr)


def _reason(error: Exception) -> str:
    "The message of an error; one of the operating system gets a remedy"
    if isinstance(error, MemoryError) or re.search("alloc|out of memory", str(error)):
        return (
            f"not enough memory ({error}): ask for less at once (side, width, batch, pool, tile), or end other programs"
        )
    if not isinstance(error, OSError) or error.errno is None:
        return str(error) or type(error).__name__
    return f"{error}: check the path, its permissions and the free space, or choose another place"


def _refuse_empty(args: list[str]):
    "ValueError for an empty argument, which would mean the working folder, except for texts"
    before = "the command"
    for option in args:
        for word in option.split("=", 1) if option.startswith("--") else [option]:
            if not word and before not in ("--licence", "--author", "--link"):
                raise ValueError(f"an empty argument stands after {before}: give it a value, or leave it out")
            before = word


def _end(number, frame):
    raise SystemExit(128 + number)


@contextmanager
def _on_a_terminal():
    "Print letters that the terminal lacks as escapes; clean up on termination as after an error"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    old = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
        old = {n: signal.signal(n, _end) for n in numbers if n and signal.getsignal(n) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


def main(argv=None) -> int:
    "`toon2real`: 0 done, 1 an error (reported in one line), 2 usage, 130 interrupted"
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started this
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    words = sys.argv[1:] if argv is None else argv
    imported = list(words[:2]) if words[:1] == ["--import"] else []
    name, *args = words[len(imported) :] or [""]
    if name in ("--version", "-V"):
        print(f"toon2real {__version__}")
        return 0
    if name in ("", "-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {k:12}{about}" for k, (_, about) in COMMANDS.items())), end="")
        return 0 if name else 2
    if name not in COMMANDS:
        _complain(f"no command {name!r}; there are {', '.join(COMMANDS)}")
        return 2
    warn_once = cache(lambda text: _complain(f"warning: {text}"))
    warnings.showwarning = lambda message, *_: warn_once(str(message))
    try:
        _refuse_empty([*imported, *args])
        with _on_a_terminal():
            if imported:
                _import_own(imported[1])
            _run(name, args, imported)
    except KeyboardInterrupt as e:
        _complain(e if e.args else "interrupted")
        return 130
    except BrokenPipeError:  # who read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, OverflowError) as e:
        _complain(_reason(e))
        return 1
    return 0


def nbdev_test():
    "`nbdev_test`, as users know it: nbdev 3 spells the command `nbdev-test`, and `--n_workers` with a hyphen"
    command = shutil.which("nbdev-test", path=Path(sys.executable).parent)
    if command is None:
        raise SystemExit("nbdev is not installed: pip install 'toon2real[dev]'")
    options = [word.replace("_", "-") if word.startswith("--") else word for word in sys.argv[1:]]
    return subprocess.call([command, *options])

"The command line: the one hand-written edge of the library (everything else is exported from nbs/)."
import importlib, sys, warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, arg
from toon2real import __version__

COMMANDS = {
    "quickstart": ("toon2real.cli:quickstart", "train three small systems on the embedded scenes and compare them"),
    "curate":     ("toon2real.curate:curate_command", "films and stills to a folder of cartoons ready for training"),
    "photos":     ("toon2real.photos:photos_command", "photographs by tag, with author, licence and link kept"),
    "train":      ("toon2real.cli:train_class", "train a system on a folder of cartoons and a folder of photos"),
    "evaluate":   ("toon2real.cli:evaluate", "judge the kept epochs of runs, or folders of translations"),
    "compare":    ("toon2real.cli:compare", "one table of several runs: text, Markdown, LaTeX, CSV"),
    "report":     ("toon2real.cli:report", "figures and one HTML page of several runs"),
    "translate":  ("toon2real.cli:translate", "translate images, folders and videos"),
}
HELP = "usage: toon2real COMMAND [OPTIONS]\n\nTurn cartoon scenery into photographs, unpaired.\n\n" + "".join(f"  {k:12}{v[1]}\n" for k, v in COMMANDS.items()) + \
       "\ntoon2real COMMAND --help says more; toon2real --version says which this is.\n"

Folder = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
Paths = Annotated[tuple[Path, ...], tyro.conf.Positional, arg(metavar="PATH...", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]


def train_class():
    "The class whose fields are the options of `toon2real train`; made on demand, so that other commands need not load torch"
    from toon2real.cyclegan import cartoon2real, toon2real
    from toon2real.unit import unit
    presets = {"toon2real": (toon2real, "CycleGAN with spectral normalization in its discriminators: the paper's system"),
               "cartoon2real": (cartoon2real, "CycleGAN: the authors' earlier Cartoon-to-real"), "unit": (unit, "UNIT, the paper's other comparison")}
    Preset = tyro.extras.subcommand_type_from_defaults({k: v[0] for k, v in presets.items()}, {k: v[1] for k, v in presets.items()}, prefix_names=False)

    @dataclass
    class Train:
        """Train a system on a folder of cartoons and a folder of photos.

        toon2real train --cartoon my/cartoons --photo my/photos

        toon2real train --cartoon my/cartoons --photo my/photos --run runs/small toon2real --width 32 --side 64

        toon2real train --resume runs/small

        The system's name and its numbers come last (toon2real train unit --help lists them). Ctrl-C saves; --resume goes on."""
        cartoon: Folder = None
        "Folder of cartoons, domain C."
        photo: Folder = None
        "Folder of photos, domain R."
        run: Folder = None
        "New folder for the run (default: runs/ and the system's name)."
        resume: Folder = None
        "A run to go on with; its recipe, data and options are the run's own. Give --cartoon and --photo only if the folders moved."
        val_cartoon: Folder = None
        "Held-out cartoons, for samples and evaluations (default: samples are of some training images)."
        val_photo: Folder = None
        "Held-out photos, likewise."
        until: Number = None
        "Stop after this epoch (default: the end of the recipe's schedule)."
        init_from: Folder = None
        "A run or weights file to fine-tune from."
        device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
        "cuda, cuda:1, cpu, mps (default: a GPU if there is one)."
        precision: Literal["auto", "bf16", "float32"] = "auto"
        "Of the forward passes; auto is bf16 where the device has it."
        deterministic: bool = False
        "On CUDA: the same bits every time, and slower."
        samples: int = 6
        "Images of each domain translated at each epoch."
        sample_every: int = 1
        "Epochs between sheets of samples."
        weights_every: Number = None
        "Epochs between kept generators (default: 20 times in the schedule)."
        save_every: int = 1
        "Epochs between checkpoints."
        save_minutes: float = 10
        "And minutes between checkpoints within an epoch."
        evaluate_every: Number = None
        "Epochs between evaluations on the held-out pictures, which then choose the best epoch (default: none)."
        evaluate_n: Number = None
        "Images of each set in an evaluation (default: as many as the held-out folders allow)."
        extractor: str = "auto"
        "Features for it: an Inception weights file, simple, or auto: the Inception that is found, else simple."
        tensorboard: bool = False
        "Write TensorBoard events into the run too."
        recipe: OmitArgPrefixes[OmitSubcommandPrefixes[Preset]] = toon2real
        "The system and its numbers."

        def __call__(self):
            from toon2real.training import Trainer
            if (self.val_cartoon is None) != (self.val_photo is None): raise ValueError("--val-cartoon and --val-photo go together: give both or neither")
            val = (self.val_cartoon, self.val_photo) if self.val_cartoon else None
            if self.resume is not None: trainer = Trainer.resume(self.resume, self.cartoon, self.photo, val, device=self.device)
            elif not (self.cartoon and self.photo): raise ValueError("which pictures? Give --cartoon FOLDER and --photo FOLDER, or --resume RUN")
            else:
                options = {k: getattr(self, k) for k in "init_from device precision deterministic samples sample_every weights_every save_every save_minutes evaluate_every evaluate_n extractor tensorboard".split()}
                trainer = Trainer(self.recipe, self.cartoon, self.photo, self.run or Path("runs")/self.recipe.name, val=val, **options)
            print(f"{trainer.recipe}\n{trainer.cartoon}\n{trainer.photo}\n{trainer.device}, {trainer.options['precision']} -> {trainer.run.path}")
            run = trainer.fit(self.until)
            print(f"{run}\nsamples: {run.path/'samples'}\nnext: toon2real translate {run.path} PICTURE_OR_FOLDER --out FOLDER")

    return Train


def quickstart(out: Path = Path("quickstart")):
    """Write the embedded scenes as pictures, train three small systems on them, compare them, draw the figures and a report, and say what to do next.

    Some minutes on two processor cores. What was done before is not done again.

    Args:
        out: Folder for the pictures, the runs, the table, the figures and report.html.
    """
    from toon2real.experiment import quickstart as go
    from toon2real.runs import Run
    table = go(out)
    runs = [Run(p.parent) for p in sorted((out/"runs").glob("*/run.json"))]
    print(f"\n{table.round(1).to_string(na_rep='')}\n\nerror, colour and contrast are 8-bit levels against the true photographs, which no system saw; lower is better, also in the Frechet distance, "
          f"which is on hand-made features and no FID.\n\npictures:  {out/'comparison.png'}\ntable:     {out/'table.csv'}\nruns:      {out/'runs'}", flush=True)
    page = _report(runs, out, extractor="simple")
    print(f"next:      open {page}\n           toon2real translate {out/'runs'/'toon2real'} {out/'scenes'/'cartoon'} --out translated\n           make lab   opens the notebooks; nbs/index.ipynb is the tour")


def evaluate(
    what: Paths,
    cartoon: Folder = None,
    photo: Folder = None,
    n: Number = None,
    seed: int = 0,
    reps: int = 100,
    extractor: str = "auto",
    again: bool = False,
    out: Folder = None,
):
    """Judge runs, or folders of translations, on held-out pictures: KID, FID, weighted FID and its parts, content, at equal N, beside the floor and the untranslated input.

    toon2real evaluate runs/toon2real runs/unit                                  the kept epochs of runs, into their histories

    toon2real evaluate translated --cartoon cartoons/val --photo photos/val      folders of pictures named like their cartoons

    Args:
        what: Runs, or folders of translated pictures.
        cartoon: Held-out cartoons (default: those of the run).
        photo: Held-out photos, likewise.
        n: Images in every set (default: as many as all sets allow; the floor needs two sets of photos).
        seed: Which of them.
        reps: Resamplings for the intervals of folders.
        extractor: An Inception weights file, simple, or auto: the Inception that is found, else simple.
        again: Judge epochs of runs that have their metrics already.
        out: Write the numbers of folders here, as CSV.
    """
    from toon2real.experiment import judge_run, markdown
    from toon2real.fid import best_extractor, evaluate as judged
    from toon2real.runs import Run, write_atomic
    if not what: raise ValueError("nothing to judge: name runs, or folders of translations")
    runs = [p for p in what if (p/"run.json").exists()]
    if runs and len(runs) < len(what): raise ValueError(f"{next(p for p in what if p not in runs)} is not a run, {runs[0]} is: judge runs and folders of pictures one after the other")
    if not runs:
        if not (cartoon and photo): raise ValueError(f"{what[0]} is not a run: to judge a folder of translations give --cartoon FOLDER (their inputs) and --photo FOLDER (real photographs)")
        if len({p.name for p in what}) < len(what): raise ValueError(f"two of the folders are called alike ({', '.join(map(str, what))}): rename one, rows are called after them")
        table = judged({p.name: p for p in what}, photo, cartoon, None, n, seed, reps, extractor=best_extractor(extractor), progress=sys.stderr.isatty())
        print(f"{_terms(table.attrs)}\n\n{markdown(table)}")
        if out: write_atomic(out, table.to_csv().encode())
        return
    for run in map(Run, runs):
        table = judge_run(run, cartoon, photo, n, seed, extractor, again, progress=sys.stderr.isatty())
        print(f"{run!r}\n{_terms(run.about['judge'])}\nbest by {run.metric}: epoch {run.best}\n\n{table.to_string(float_format='{:.4g}'.format)}\n", flush=True)


def compare(
    runs: Paths,
    cartoon: Folder = None,
    photo: Folder = None,
    n: Number = None,
    seed: int = 0,
    reps: int = 100,
    extractor: str = "auto",
    until: Number = None,
    out: Folder = None,
):
    """One table of several runs at their best and last epochs, with the floor, the untranslated input and the paper's numbers.

    Args:
        runs: Runs, of one side, that share their held-out pictures.
        cartoon: Held-out cartoons (default: those of the first run).
        photo: Held-out photos, likewise.
        n: Images in every set (default: as many as all sets allow).
        seed: Which of them, and the intervals.
        reps: Resamplings for the intervals.
        extractor: An Inception weights file, simple, or auto: the Inception that is found, else simple.
        until: As if the runs had ended after this epoch: equal pairs for runs of unequal length.
        out: A folder for the table (CSV, Markdown, LaTeX), the histories, and about.json with recipes, options and terms.
    """
    from toon2real.experiment import compare as go, markdown, write_results
    table = go(runs, cartoon, photo, n=n, seed=seed, reps=reps, extractor=extractor, until=until, progress=sys.stderr.isatty())
    print("\n".join([_terms(table.attrs), *(f"note: {x}" for x in table.attrs["notes"]), "", markdown(table)]))
    if out: write_results(runs, table, out)


def _terms(about) -> str:
    "What the numbers of a judge were measured on, in a line"
    return f"N = {about['n']} images in every set ({', '.join(f'{k} {v}' for k, v in about['available'].items())} available), seed {about['seed']}; {about['extractor']}" + \
        (f"; KID ± standard error (jackknife); [95 % interval of {about['reps']} resamplings]" if about.get("reps") else "")


def report(
    runs: Paths,
    out: Path = Path("report"),
    cartoon: Folder = None,
    photo: Folder = None,
    seed: int = 0,
    extractor: str = "auto",
    until: Number = None,
):
    """The paper's figures (PNG and PDF) and one self-contained HTML page of several runs. Its table is by the judge that chose their best epochs.

    Args:
        runs: Runs, of one side, that share their held-out pictures.
        out: A folder for figures/ and report.html.
        cartoon: Held-out cartoons (default: those of the first run).
        photo: Held-out photos, likewise.
        seed: Which pictures are shown.
        extractor: An Inception weights file, simple, or auto: the Inception that is found, else simple.
        until: Of the table: as if the runs had ended after this epoch.
    """
    from toon2real.runs import Run
    _report([Run(p) for p in runs], out, cartoon=cartoon, photo=photo, seed=seed, extractor=extractor, until=until)


def _report(runs, out, extractor="auto", until=None, **pictures) -> Path:
    from toon2real.fid import best_extractor
    from toon2real.figures import paper_figures
    from toon2real.report import report as page
    print(f"figures:   {out/'figures'}", flush=True)
    paper_figures(runs, out/"figures", extractor=None if extractor == "auto" else best_extractor(extractor), **pictures)
    made = page(runs, out/"report.html", extractor=extractor, until=until, **pictures)
    print(f"report:    {made}", flush=True)
    return made


def translate(*args, **kw):
    from toon2real.translate import translate_command
    report = translate_command(*args, **kw)
    print(report)
    if report.skipped and not (report.done or report.kept): raise ValueError("nothing was translated")


def _command(name):
    module, attribute = COMMANDS[name][0].split(":")
    f = getattr(importlib.import_module(module), attribute)
    if f is train_class: return train_class()
    if f is translate:
        from functools import wraps
        from toon2real.translate import translate_command
        return wraps(translate_command)(translate)
    return f


def main(argv=None) -> int:
    "`toon2real`: 0 done, 1 an error (told in one line), 2 usage, 130 interrupted"
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in (["--version"], ["-V"]): print(f"toon2real {__version__}"); return 0
    if not argv or argv[0] in ("-h", "--help"): print(HELP, end=""); return 0 if argv else 2
    if argv[0] not in COMMANDS: print(f"toon2real: no command {argv[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr); return 2
    warnings.showwarning = lambda message, *_: print(f"toon2real: warning: {message}", file=sys.stderr)
    try:
        done = tyro.cli(_command(argv[0]), args=argv[1:], prog=f"toon2real {argv[0]}")
        if callable(done): done()
    except KeyboardInterrupt as e: print(f"toon2real: {e or 'interrupted'}", file=sys.stderr); return 130
    except (ValueError, OSError, RuntimeError) as e: print(f"toon2real: {e}", file=sys.stderr); return 1
    return 0


def nbdev_test():
    "`nbdev_test`, as users know it (nbdev 3 spells the command `nbdev-test`)"
    try: from nbdev.test import nbdev_test
    except ImportError as e: raise SystemExit("nbdev is not installed: pip install 'toon2real[dev]'") from e
    return nbdev_test()

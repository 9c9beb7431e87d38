"The command line: the one hand-written edge of the library (everything else is exported from nbs/)."
import sys, warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand
from toon2real import __version__
from toon2real.cyclegan import cartoon2real, toon2real

PRESETS = {r.name: r for r in (toon2real, cartoon2real)}
Preset = tyro.extras.subcommand_type_from_defaults(PRESETS, {"toon2real": "CycleGAN with spectral normalization in its discriminators: the paper's system",
                                                             "cartoon2real": "CycleGAN: the authors' earlier Cartoon-to-real"}, prefix_names=False)


@dataclass
class Train:
    """Train a system on a folder of cartoons and a folder of photos.

    toon2real train --cartoon my/cartoons --photo my/photos
    toon2real train --cartoon my/cartoons --photo my/photos --run runs/small toon2real --width 32 --side 64
    toon2real train --resume runs/small

    The system's name and its numbers come last; Ctrl-C saves, --resume goes on."""
    cartoon: Path | None = None
    "Folder of cartoons, domain C."
    photo: Path | None = None
    "Folder of photos, domain R."
    run: Path | None = None
    "New folder for the run (default: runs/ and the system's name)."
    resume: Path | None = None
    "A run to go on with; its recipe, data and options are the run's own. --cartoon and --photo only if the folders moved."
    val_cartoon: Path | None = None
    "Held-out cartoons for the samples (default: some of the training images)."
    val_photo: Path | None = None
    "Held-out photos, likewise."
    until: int | None = None
    "Stop after this epoch (default: the end of the recipe's schedule)."
    init_from: Path | None = None
    "A run or weights file to fine-tune from."
    tiny: bool = False
    "Shrink the recipe to what two processor cores can do in minutes."
    device: str | None = None
    "cuda, cuda:1, cpu, mps (default: a GPU if there is one)."
    precision: Literal["auto", "bf16", "float32"] = "auto"
    "Of the forward passes; auto is bf16 where the device has it."
    deterministic: bool = False
    "On CUDA: the same bits every time, and slower."
    samples: int = 6
    "Images of each domain translated at each epoch."
    sample_every: int = 1
    "Epochs between sheets of samples."
    weights_every: int | None = None
    "Epochs between kept generators (default: 20 times in the schedule)."
    save_every: int = 1
    "Epochs between checkpoints."
    save_minutes: float = 10
    "And minutes between checkpoints within an epoch."
    tensorboard: bool = False
    "Write TensorBoard events into the run too."
    recipe: OmitArgPrefixes[OmitSubcommandPrefixes[Preset]] = toon2real
    "The system and its numbers."

    def __call__(self):
        from toon2real.training import Trainer
        val = None
        if self.val_cartoon or self.val_photo:
            if not (self.val_cartoon and self.val_photo): raise ValueError("--val-cartoon and --val-photo go together: give both or neither")
            val = (self.val_cartoon, self.val_photo)
        if self.resume is not None: trainer = Trainer.resume(self.resume, self.cartoon, self.photo, val, device=self.device)
        else:
            if not (self.cartoon and self.photo): raise ValueError("which pictures? Give --cartoon FOLDER and --photo FOLDER, or --resume RUN")
            recipe = self.recipe.tiny() if self.tiny else self.recipe
            trainer = Trainer(recipe, self.cartoon, self.photo, self.run or Path("runs")/recipe.name, val=val, init_from=self.init_from,
                              **{k: getattr(self, k) for k in "device precision deterministic samples sample_every weights_every save_every save_minutes tensorboard".split()})
        print(f"{trainer.recipe}\n{trainer.cartoon}\n{trainer.photo}\n{trainer.device}, {trainer.options['precision']} -> {trainer.run.path}")
        run = trainer.fit(self.until)
        print(f"{run}\nsamples: {run.path/'samples'}\nnext: toon2real translate {run.path} PICTURE_OR_FOLDER")


COMMANDS = Annotated[Train, subcommand("train")]


def main(argv=None) -> int:
    "`toon2real`: 0 done, 1 an error (told in one line), 2 usage, 130 interrupted"
    argv = sys.argv[1:] if argv is None else argv
    if argv in (["--version"], ["-V"]): print(f"toon2real {__version__}"); return 0
    warnings.showwarning = lambda message, *_: print(f"toon2real: warning: {message}", file=sys.stderr)
    try: tyro.cli(COMMANDS, args=argv, prog="toon2real", description="Turn cartoon scenery into photographs, unpaired.")()
    except KeyboardInterrupt: print("toon2real: interrupted", file=sys.stderr); return 130
    except (ValueError, OSError, RuntimeError) as e: print(f"toon2real: {e}", file=sys.stderr); return 1
    return 0


def nbdev_test():
    "`nbdev_test`, as users know it (nbdev 3 spells the command `nbdev-test`)"
    try: from nbdev.test import nbdev_test
    except ImportError as e: raise SystemExit("nbdev is not installed: pip install 'toon2real[dev]'") from e
    return nbdev_test()

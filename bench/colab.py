"""The notebooks from top to bottom under Colab's versions (`make colab`): of Python, torch, IPython and ipywidgets.

Every cell is run, as Colab's "Run all" does, in a copy of the folder; a notebook that fails is named with its error.
`--widgets` opens the widgets' cells in the classic Notebook 6, whose manager is that of ipywidgets 7, in a headless
Chromium: each must be drawn with its pictures and answer a key or a click, and no script may fail.
Colab's own page is another one; what is seen here is not seen there.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def run_notebooks(python: str, names: list[str]) -> int:
    "Run notebooks in a copy of the folder; how many failed"
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        nbs = shutil.copytree(ROOT / "nbs", Path(folder) / "nbs")
        found = [nbs / name for name in names] or sorted([*nbs.glob("[0-9a-z]*.ipynb"), *nbs.glob("tutorials/*.ipynb")])
        for path in found:
            start = time.monotonic()
            command = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(path)]
            environment = os.environ | {"JUPYTER_DATA_DIR": folder, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            failed += done.returncode != 0
            verdict = "failed" if done.returncode else "passed"
            print(f"{verdict}  {path.relative_to(nbs)}  {time.monotonic() - start:.0f} s", flush=True)
            if done.returncode:
                print(
                    f"exit status {done.returncode} (below 0: ended by that signal)",
                    done.stderr[-3000:],
                    sep="\n",
                    flush=True,
                )
    print(f"{len(found) - failed} passed, {failed} failed")
    return failed


SETUP = """import tempfile
from pathlib import Path
from toon2real import demo
from toon2real.catalogue import Catalogue
from toon2real.scenes import pairs, write_film
from toon2real.training import Trainer
from toon2real.widgets import CompareSystems, EpochStepper, FramePicker, HumanStudy, TrainingMonitor
here = Path(tempfile.mkdtemp())
flat, real = pairs(4, side=64)
write_film(here / "films/film.mp4", fps=4)
with Catalogue(here / "films.sqlite") as catalogue:
    catalogue.add([here / "films"], every=0.5, progress=False)
recipe = demo.runs()[-1].recipe.replace(epochs=100, decay_epochs=0)
trainer = Trainer(recipe, flat, real, run=here / "run", callbacks=[TrainingMonitor()])"""

WIDGETS = {  # the cell, the widget, when its pictures are there, the key that is pressed, what comes of it
    ".t2r-stepper": (
        "EpochStepper(demo.runs())",
        "[...document.querySelectorAll('.t2r-row img')].slice(1).every(i => i.dataset.epoch === '16')",
        "ArrowLeft",
        "[...document.querySelectorAll('.t2r-row img')].slice(1).every(i => i.dataset.epoch === '15')",
    ),
    ".t2r-compare": (
        "CompareSystems()",
        "[...document.querySelectorAll('.t2r-panels img')].every(i => i.dataset.image === '0')",
        "ArrowRight",
        "[...document.querySelectorAll('.t2r-panels img')].every(i => i.dataset.image === '1')",
    ),
    ".t2r-human": (
        "HumanStudy({'upside down': flat[:, ::-1].copy(), 'truth': real}, flat, here / 'answers.jsonl', trials=6)",
        "document.querySelector('.t2r-human').dataset.trial === '0'",
        "ArrowLeft",
        "document.querySelector('.t2r-human').dataset.trial === '1'",
    ),
    ".t2r-picker": (
        "FramePicker(here / 'films.sqlite', target=40)",
        "[...document.querySelectorAll('.t2r-tile img')].some(i => i.dataset.frame && i.naturalWidth)",
        "x",
        "document.querySelector('.t2r-picker').dataset.changes === '1'",
    ),
    ".t2r-monitor": (
        "trainer.fit(background=True)",
        "document.querySelector('.t2r-newest img').naturalWidth > 0",
        None,
        "document.querySelector('.t2r-state').dataset.state === 'stopped'",
    ),
}


def use_widgets(python: str, pictures: Path | None):
    "Draw each widget in the classic Notebook and use it once"
    from conftest import chromium, jupyter

    cells = [SETUP, *(cell for cell, *_ in WIDGETS.values())]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with jupyter(python, "notebook") as (url, folder), chromium() as page:
        page.set_default_timeout(180_000)
        nbformat.write(notebook, folder / "widgets.ipynb")
        page.goto(f"{url}/notebooks/widgets.ipynb")
        page.wait_for_function("window.Jupyter?.notebook?.kernel?.is_connected()")
        page.wait_for_timeout(10_000)  # the manager of widgets asks the kernel for those that it has
        page.evaluate("Jupyter.notebook.execute_cells([0])")
        for number, (name, (_, drawn, key, answered)) in enumerate(WIDGETS.items(), 1):
            page.evaluate(f"Jupyter.notebook.execute_cells([{number}])")
            root = page.locator(name)
            root.wait_for()
            page.wait_for_function(drawn)
            if key:
                (root.locator(".t2r-grid") if name == ".t2r-picker" else root).press(key)
            else:
                root.get_by_role("button", name="Stop after").click()
            page.wait_for_function(answered)
            if pictures:
                root.screenshot(path=pictures / f"colab{name.replace('.', '_')}.png")
            print(f"drawn and used: {name}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", help="relative to nbs/ (default: all)")
    parser.add_argument("--python", default=sys.executable, help="of the environment with Colab's versions")
    parser.add_argument("--widgets", action="store_true", help="the widgets in the classic Notebook instead")
    parser.add_argument("--pictures", type=Path, help="keep a picture of each widget in this folder")
    args = parser.parse_args()
    if args.widgets:
        return use_widgets(args.python, args.pictures)
    sys.exit(1 if run_notebooks(args.python, args.notebooks) else 0)


if __name__ == "__main__":
    main()

"The runs that ship with the library, and the script that packs them"

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from toon2real import demo
from toon2real.cyclegan import toon2real
from toon2real.experiment import TITLES
from toon2real.scenes import pairs
from toon2real.training import Trainer
from toon2real.translate import Translator
from toon2real.weights import RunError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "bench" / "demo.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pack_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("run", demo.runs(), ids=lambda run: run.name)
def test_the_shipped_runs_are_what_the_script_makes(script, run):
    assert run.recipe in script.recipes()
    assert demo.card(run.name) == script.card_of(run)  # its figures are those of the history
    sources = {name: domain["source"] for name, domain in run.about["data"].items()}
    assert list(sources.values()) == [script.CARTOONS, script.PHOTOS, *script.HELD_OUT]


def test_the_readme_has_the_distances_of_the_cards():
    "bench/pictures.py prints the README's table"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("Distance of the shipped systems")[2].partition("Error, colour and contrast")[0]
    told = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in table.splitlines()}
    for run in demo.runs():
        judge = run.about["judge"]
        card = demo.card(run.name)
        assert f"N = {judge['n']}: {told[TITLES[run.name]]}." in card
        assert f"Untranslated cartoons have {told['cartoons, untranslated']}," in card


def test_a_packed_run_translates_as_the_whole_one_does(script, tmp_path):
    recipe = toon2real.tiny(width=8, blocks=1, epochs=1, decay_epochs=0)
    held_out = "scenes:cartoon:20-27@64", "scenes:photo:30-45@64"
    options = dict(val=held_out, evaluate_every=1, extractor="simple", progress=False)
    whole = Trainer(recipe, "scenes:cartoon:0-5@64", "scenes:photo:6-11@64", tmp_path / "run", **options).fit()
    with pytest.raises(RunError, match="run has no card"):
        demo.card(str(tmp_path / "run"))
    packed = script.pack(whole, tmp_path / "packed")
    assert packed.history.equals(whole.history) and packed.sample_epochs == [0, 1]
    assert demo.card(str(packed.path)).startswith("toon2real: cartoon scenery to photographs")
    picture = pairs(1, side=64)[0][0]  # both files hold bf16
    assert np.array_equal(Translator(packed.system(1))(picture), Translator(whole.system(1))(picture))

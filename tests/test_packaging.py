"settings.ini, pyproject.toml, package and notebooks say one thing; the wheel is whole and needs no notebook software"

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

root = Path(__file__).parent.parent
ini = ConfigParser(delimiters=["="])
ini.read(root / "settings.ini", encoding="utf-8")
ini = ini["DEFAULT"]
toml = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
notebooks = sorted((root / "nbs").rglob("[0-9a-z]*.ipynb"))
BLOCKED = ["nbdev", "execnb", "jupyter", "jupyterlab", "IPython", "ipykernel", "ipywidgets", "anywidget", "tensorboard"]
# modules of the widgets, which need anywidget
LAB = ["live", "picker", "monitor", "stepper", "side_by_side", "study", "widgets"]


ALONE = """
import importlib, sys

class Blocked:
    def find_spec(self, name, *args):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
import toon2real
assert toon2real.__file__.startswith({site!r})
for module in {modules}:
    importlib.import_module(module)
from toon2real.cli import main
sys.exit(main(["--version"]))
"""


@pytest.mark.parametrize("k", ["lib_path", "nbs_path", "doc_path", "tst_flags", "title"])
def test_nbdev_settings_agree(k):
    assert toml["tool"]["nbdev"][k] == ini[k]


def test_metadata_agrees():
    p = toml["project"]
    assert (p["name"], p["requires-python"], p["license"]) == (
        ini["lib_name"],
        f">={ini['min_python']}",
        ini["license"],
    )
    assert (p["description"], p["keywords"]) == (ini["description"], ini["keywords"].split())
    assert (p["urls"]["Repository"], p["urls"]["Documentation"].rstrip("/")) == (
        ini["git_url"],
        ini["doc_host"] + ini["doc_baseurl"],
    )
    import toon2real

    assert toon2real.__version__ == ini["version"]
    assert (
        f"version: {ini['version']}" in (root / "CITATION.cff").read_text()
        and f"## {ini['version']}" in (root / "CHANGELOG.md").read_text()
    )


def test_export_is_current(tmp_path):
    "Exporting changes nothing: nobody edited a generated module, and nobody forgot to export"
    for n in ["nbs", "toon2real", "pyproject.toml", "settings.ini"]:
        (shutil.copytree if (root / n).is_dir() else shutil.copy)(root / n, tmp_path / n)
    subprocess.run(
        [sys.executable, "-c", "from nbdev.doclinks import nbdev_export as e; e()"], cwd=tmp_path, check=True
    )
    files = {f.name for f in (root / "toon2real").glob("*.py")}
    assert files == {f.name for f in (tmp_path / "toon2real").glob("*.py")}
    for f in files:
        assert (root / "toon2real" / f).read_text(encoding="utf-8") == (tmp_path / "toon2real" / f).read_text(
            encoding="utf-8"
        ), f


@pytest.mark.parametrize("nb", notebooks, ids=lambda p: p.stem)
def test_notebook_is_fit_to_commit(nb):
    "Small, with its outputs, without live widgets, and able to open on Colab"
    assert nb.stat().st_size < 300_000
    d = json.loads(nb.read_text(encoding="utf-8"))
    code = [c for c in d["cells"] if c["cell_type"] == "code"]
    assert "colab.research.google.com" in "".join(d["cells"][1]["source"]) and f"{nb.relative_to(root)}" in "".join(
        d["cells"][1]["source"]
    )
    assert "google.colab" in "".join(d["cells"][2]["source"])
    assert "widgets" not in d["metadata"] and not any(
        "widget-view" in k for c in code for o in c["outputs"] for k in o.get("data", {})
    )
    assert not any(o["output_type"] == "error" for c in code for o in c["outputs"])
    assert any(
        k.startswith("image/") or k == "text/html" for c in code for o in c["outputs"] for k in o.get("data", {})
    ), "no picture in it"
    ids = [c["id"] for c in d["cells"]]
    assert len(ids) == len(set(ids))


def test_wheel(tmp_path):
    "It builds, says what settings.ini says, and its command runs where no notebook software is importable"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, root],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    z = zipfile.ZipFile(wheel)
    assert {f"toon2real/{f.name}" for f in (root / "toon2real").glob("*.py")} <= set(z.namelist())
    meta = z.read(next(n for n in z.namelist() if n.endswith("METADATA"))).decode()
    assert f"Version: {ini['version']}" in meta
    for r in ini["requirements"].split():
        assert f"Requires-Dist: {r}" in meta
    scripts = z.read(next(n for n in z.namelist() if n.endswith("entry_points.txt"))).decode()
    for s in ini["console_scripts"].split():
        assert re.sub("=", " = ", s, count=1) in scripts
    z.extractall(tmp_path / "site")
    files = [file.stem for file in (root / "toon2real").glob("[a-z]*.py")]
    modules = [f"toon2real.{name}" for name in sorted(files) if name not in LAB]
    code = ALONE.format(blocked=BLOCKED, site=str(tmp_path / "site"), modules=modules)
    r = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert r.returncode == 0 and r.stdout.strip() == f"toon2real {ini['version']}", r.stderr

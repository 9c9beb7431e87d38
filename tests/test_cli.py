"The command line: train, resume, translate, and errors that fit in a line"

import importlib
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from toon2real.cli import COMMANDS, main
from toon2real.runs import Run
from toon2real.scenes import write_scenes

SMALL = ["--width", "8", "--blocks", "1", "--side", "64", "--epochs", "1", "--decay-epochs", "1"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    d = tmp_path_factory.mktemp("data")
    for kind, seed in (("cartoon", 0), ("photo", 50)):
        write_scenes(d / kind, 5, kind, seed=seed, side=72)
    return d


def said(capsys):
    out = capsys.readouterr()
    return out.out, [line for line in out.err.splitlines() if line.startswith("toon2real:")]


def test_train_resume_translate(folders, tmp_path, capsys):
    pictures = ["--cartoon", f"{folders / 'cartoon'}", "--photo", f"{folders / 'photo'}"]
    run = tmp_path / "run"
    assert main(["train", *pictures, "--run", str(run), "--until", "1", "toon2real", *SMALL]) == 0
    assert len(Run(run).history) == 1 and Run(run).recipe.norm == "sn+in" and Run(run).recipe.width == 8
    assert main(["train", "--resume", str(run)]) == 0
    assert len(Run(run).history) == 2
    assert main(["train", *pictures, "--run", str(run), "toon2real", *SMALL]) == 1
    assert "already holds a run" in said(capsys)[1][0]

    out = tmp_path / "out"
    assert main(["translate", str(run), str(folders / "cartoon"), "--out", str(out)]) == 0
    made = sorted(out.iterdir())
    assert len(made) == 5 and Image.open(made[0]).size == (72, 72)
    before = made[0].stat().st_mtime_ns
    assert main(["translate", str(run), str(folders / "cartoon"), "--out", str(out)]) == 0
    assert made[0].stat().st_mtime_ns == before  # never overwritten unless told
    assert main(["translate", str(run), str(folders / "cartoon"), "--out", str(out), "--overwrite"]) == 0
    assert made[0].stat().st_mtime_ns > before


def test_judge_compare_report(folders, tmp_path, capsys):
    for kind, n in (("cartoon", 6), ("photo", 12)):
        write_scenes(tmp_path / "val" / kind, n, kind, seed=200, side=64)
    pictures = [
        f"--cartoon={folders / 'cartoon'}",
        f"--photo={folders / 'photo'}",
        f"--val-cartoon={tmp_path / 'val' / 'cartoon'}",
        f"--val-photo={tmp_path / 'val' / 'photo'}",
    ]
    a, b = tmp_path / "a", tmp_path / "b"
    assert (
        main(
            ["train", *pictures, "--run", str(a), "--evaluate-every", "1", "--extractor", "simple", "toon2real", *SMALL]
        )
        == 0
    )
    assert main(["train", *pictures, "--run", str(b), "cartoon2real", *SMALL]) == 0
    assert Run(a).best and Run(b).best is None and said(capsys)
    assert main(["evaluate", str(a), str(b), "--extractor", "simple"]) == 0
    out = said(capsys)[0]
    assert Run(b).best and "weighted Frechet (simple features)" in out and f"{b / 'history.csv'}" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 100
    assert (
        main(["compare", str(a), str(b), "--extractor", "simple", "--reps", "5", "--out", str(tmp_path / "table")]) == 0
    )
    out = said(capsys)[0]
    assert "N = 6 images in every set" in out and "\nuntranslated input " in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 110
    assert f"LaTeX: {tmp_path / 'table'}" in out
    floor, paper = re.findall("note: .*", out)
    assert floor == "note: The floor is of other photographs." and "column paper" in paper.lower()
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == [
        "about.json",
        "history.csv",
        "table.csv",
        "table.md",
        "table.tex",
    ]
    assert main(["report", str(a), str(b), "--extractor", "simple", "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").stat().st_size > 50_000 and {"figure4.pdf", "plane.png"} <= {
        p.name for p in (tmp_path / "report" / "figures").iterdir()
    }
    assert main(["translate", str(a), str(tmp_path / "val" / "cartoon"), "--out", str(tmp_path / "made")]) == 0
    assert (
        main(
            [
                "evaluate",
                str(tmp_path / "made"),
                *(f"--{k}={tmp_path / 'val' / k}" for k in ("cartoon", "photo")),
                "--extractor",
                "simple",
                "--out",
                str(tmp_path / "made.csv"),
            ]
        )
        == 0
    )
    assert (tmp_path / "made.csv").read_text().count("\n") == 4
    assert main(["evaluate", str(a), str(tmp_path / "made")]) == 1 and "is not a run" in said(capsys)[1][-1]
    assert main(["evaluate", str(a), "--out", "x.csv"]) == 1 and "--out x.csv is for folders" in said(capsys)[1][-1]


def test_what_is_trained_on_is_not_held_out(folders, tmp_path, capsys):
    pictures = [f"--{val}{kind}={folders / kind}" for val in ("", "val-") for kind in ("cartoon", "photo")]
    assert main(["train", *pictures, "--run", str(tmp_path / "run"), "toon2real", *SMALL]) == 1
    _, lines = said(capsys)
    assert len(lines) == 1 and f"{folders / 'cartoon'} is trained on" in lines[0] and "--val-cartoon" in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("system", ["cartoon2real", "unit"])
def test_other_systems(folders, tmp_path, system):
    args = [
        "train",
        "--cartoon",
        f"{folders / 'cartoon'}",
        "--photo",
        f"{folders / 'photo'}",
        "--run",
        str(tmp_path / "r"),
        "--until",
        "1",
        system,
        *SMALL,
    ]
    assert main(args) == 0 and Run(tmp_path / "r").recipe.name == system


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A working folder for modules of the user's"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("toon2real.cli.OWN", {})


def test_own_system(own, folders, capsys):
    source = """
        from dataclasses import dataclass
        from toon2real.cyclegan import CycleGANRecipe

        @dataclass(frozen=True)
        class OwnRecipe(CycleGANRecipe):
            name: str = "own"
            samples: int = 5

        own = OwnRecipe()
        """
    Path("own_system.py").write_text(textwrap.dedent(source))
    data = ["--cartoon", str(folders / "cartoon"), "--photo", str(folders / "photo")]
    words = ["--import", "own_system", "train", *data, "--until", "1", "--samples", "2", "own", *SMALL]
    assert main(words) == 0
    run = Run("runs/own")
    assert type(run.recipe).__name__ == "OwnRecipe" and run.about["command"] == ["toon2real", *words]
    assert run.about["options"]["samples"] == 2 and run.recipe.samples == 5
    assert f"next: toon2real --import own_system translate {run.path} " in said(capsys)[0]


@pytest.mark.parametrize("name", ["no_system", "no_package.system", "own_module.py", ".own_module"])
def test_a_module_that_is_not_there(own, capsys, name):
    Path("own_module.py").touch()
    assert main(["--import", name, "train"]) == 1
    assert f"--import {name}: no module that can be imported" in said(capsys)[1][0]


def test_an_empty_name_of_a_module(own, capsys):
    assert main(["--import", "", "train"]) == 1
    assert "an empty argument stands after --import" in said(capsys)[1][0]


@pytest.mark.parametrize("line", ["import no_such_library", "len(5)", "int('five')", "from os import no_such_name"])
def test_an_error_in_a_module_of_the_users_says_where(own, capsys, monkeypatch, line):
    monkeypatch.delitem(sys.modules, "own_error", raising=False)
    importlib.invalidate_caches()
    Path("own_error.py").write_text(line)
    assert main(["--import", "own_error", "train"]) == 1
    error = capsys.readouterr().err
    assert f'{Path("own_error.py").resolve()}", line 1' in error and "without .py" not in error


@pytest.mark.parametrize(
    "line", ["own = toon2real.replace(width=8)", "a, b = (toon2real.replace(name='own', width=w) for w in (8, 16))"]
)
def test_own_systems_take_no_name_that_another_has(own, capsys, monkeypatch, line):
    monkeypatch.delitem(sys.modules, "own_name", raising=False)
    importlib.invalidate_caches()
    Path("own_name.py").write_text(f"from toon2real.cyclegan import toon2real\n{line}")
    assert main(["--import", "own_name", "train"]) == 1
    assert re.search("own_name: another system has the name .*replace", said(capsys)[1][0])


def test_curate_beside_a_module_of_the_users(own, folders):
    Path("curate.py").touch()
    assert main(["--import", "curate", "curate", "cat.db", "--sources", str(folders / "cartoon")]) == 0


@pytest.mark.parametrize(
    "args, code, text",
    [
        (["train"], 1, "which pictures?"),
        (["train", "--cartoon", "nowhere", "--photo", "nowhere"], 1, "nowhere"),
        (["train", "--resume", "nowhere"], 1, "nowhere is not a run"),
        (["train", "--resume", __file__], 1, "test_cli.py is not a run"),
        (["translate", "nowhere", "x.png", "--out", "y"], 1, "nowhere"),
        (["train", "--side", "64", "unit"], 1, "--side is a hyperparameter, and these come last"),
        (["train", "--decay-epochs=1"], 1, "toon2real --decay-epochs"),
        (["evaluate", "nowhere"], 1, "nowhere is not a run"),
        (["evaluate"], 1, "nothing to judge"),
        (["compare", "nowhere"], 1, "nowhere is not a run"),
        (["paint"], 2, "no command 'paint'"),
    ],
)
def test_errors_in_one_line(args, code, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(args) == code
    _, lines = said(capsys)
    assert len(lines) == 1 and text in lines[0]


def test_usage(capsys):
    assert main(["--version"]) == 0 and main([]) == 2 and main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(c in text for c in COMMANDS)
    for c in COMMANDS:
        with pytest.raises(SystemExit) as e:
            main([c, "--help"])
        assert e.value.code == 0 and "usage: toon2real" in capsys.readouterr().out
    for bad, text in ((["--no-such-option"], "no-such-option"), (["toon2real", "--side", "66"], "side=66")):
        with pytest.raises(SystemExit) as e:
            main(["train", *bad])
        assert e.value.code == 2 and text in capsys.readouterr().err


def test_nbdev_test_takes_the_spelling_of_nbdev_2(monkeypatch):
    from toon2real import cli

    called = []
    monkeypatch.setattr(cli.shutil, "which", lambda *_, **__: "nbdev-test")
    monkeypatch.setattr(cli.subprocess, "call", called.append)
    monkeypatch.setattr(cli.sys, "argv", ["nbdev_test", "--n_workers", "2", "nbs/01_images.ipynb"])
    cli.nbdev_test()
    assert called == [["nbdev-test", "--n-workers", "2", "nbs/01_images.ipynb"]]


def test_names_in_wide_letters_leave_tables_in_columns(folders, tmp_path, capsys):
    folder = tmp_path / "夏の風景"
    shutil.copytree(folders / "cartoon", folder)
    assert main(["curate", str(tmp_path / "c.sqlite"), "--sources", str(folder), "--val", "0.5", "--independent"]) == 0
    head, *rows = said(capsys)[0].splitlines()[:3]
    assert head.split() == ["source", "split", "frames"]
    assert [len(row) for row in rows] == [len(head) - 4] * 2  # each of the four letters is two columns wide


def test_a_run_without_held_out_pictures_is_said_to_be_judged_on_its_own(tmp_path, capsys):
    run = str(tmp_path / "run")
    pictures = []
    for kind in ("cartoon", "photo"):
        write_scenes(tmp_path / kind, 8, kind, side=72)
        pictures.append(f"--{kind}={tmp_path / kind}")
    assert main(["train", *pictures, "--run", run, "patchwise", *SMALL]) == 0
    assert main(["evaluate", run, "--extractor", "simple"]) == 0
    assert "note: Patchwise had no pictures held out, so it is judged on those it was trained on" in said(capsys)[0]
    assert main(["evaluate", run, "--extractor", "simple", *pictures]) == 0
    assert "note:" not in said(capsys)[0]


def test_one_input_without_a_result_is_one_input(tmp_path, capsys):
    assert main(["translate", "toon2real", str(tmp_path / "missing.png"), "--out", str(tmp_path / "out")]) == 1
    assert said(capsys)[1] == ["toon2real: without a whole result: 1 input, see above"]

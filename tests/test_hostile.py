"What strangers, full disks and impatient people do to the command line: a result, or one line that names what is wrong"

import hashlib
import importlib.util
import io
import json
import os
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from toon2real import demo
from toon2real.cli import main
from toon2real.curate import Catalogue
from toon2real.cyclegan import toon2real
from toon2real.data import Domain, choose
from toon2real.distances import bootstrap, frechet_distance, frechet_features, precision_recall, subsample
from toon2real.experiment import Comparison, markdown
from toon2real.fid import Judge
from toon2real.figures import paper_figures
from toon2real.files import WriteError, printable, write_atomic
from toon2real.films import Writer, decode
from toon2real.images import list_images
from toon2real.patchwise import patchwise
from toon2real.progress import Record
from toon2real.runs import Run
from toon2real.scenes import scene, scenes
from toon2real.training import Options, Trainer, stills
from toon2real.translate import Translator, translate_command
from toon2real.weights import RunError, load_weights, read_about, save_weights
from toon2real.widgets import CompareSystems, FramePicker, HumanStudy, study_results, take_answers

SMALL = ["--width", "4", "--blocks", "1", "--side", "64", "--epochs", "1", "--decay-epochs", "0"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(path, toon2real.tiny(width=4, blocks=1).build())
    return str(path)


def pictures(folder, n=2, side=16):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(scene(i, side=side)).save(folder / f"{i}.png")
    return folder


def translate(weights, inputs, out, **options):
    return translate_command(weights, inputs, out=out, device="cpu", progress=False, **options)


def complaint(capsys):
    "The one line that the command wrote"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("toon2real:")]
    assert len(lines) == 1, lines
    return lines[0]


# --- translate


def test_one_bad_entry_stops_nothing(weights, tmp_path, monkeypatch):
    "A link to itself, a link to nothing, a pipe, a device, a file with holes, long and odd names, a locked folder"
    src = pictures(tmp_path / "in")
    odd = os.fsdecode(b"latin-\xe9.png")
    good = ["x" * 251 + ".png", odd, "bell\a.png"]
    for name in good:
        (src / name).write_bytes((src / "0.png").read_bytes())
    os.symlink("self.png", src / "self.png")
    os.symlink("nowhere", src / "dangling.png")
    os.symlink("/dev/zero", src / "zero.png")
    os.mkfifo(src / "pipe.png")
    os.mkfifo(src / "pipe.mkv")
    with open(src / "holes.png", "wb") as file:
        file.truncate(40 << 30)
    (pictures(src / "locked", 1) / "film.mp4").write_bytes(b"no film")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as one who may read everything
    report = translate(weights, [src], tmp_path / "out")
    bad = {"self.png", "dangling.png", "zero.png", "pipe.png", "pipe.mkv", "holes.png", "locked"}
    assert {file.name for file, _ in report.skipped} == bad
    assert report.done == 2 + len(good) == len(list((tmp_path / "out").iterdir()))
    print(report)  # also with a name that is no UTF-8
    assert str(report).isascii() and all(name in str(report) for name in bad)


def test_a_locked_folder_is_an_error_elsewhere(tmp_path, monkeypatch):
    pictures(tmp_path / "in" / "locked")
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match="locked.*permissions"):
        list_images(tmp_path / "in")


def small_film(path, frames=40):
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=10, width=64, height=48, pix_fmt="yuv420p", options={"g": "5"})
        for i in range(frames):
            pixels = np.roll(scene(3, side=64)[:48], i, 1)
            box.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        box.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4", ".avi"])
def test_a_film_cut_short_is_told(weights, tmp_path, capsys, suffix):
    film, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    small_film(film)
    data = film.read_bytes()
    cut.write_bytes(data[: int(len(data) * 0.6) // 188 * 188 + 1])
    report = translate(weights, [film], tmp_path / "a")
    assert (report.done, report.partial) == (1, []) and str(report).startswith("1 translated")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = ["translate", weights, str(cut), "--out", str(tmp_path / "b"), "--no-progress", "--device", "cpu"]
        assert main(args) == 1
    out = capsys.readouterr().out
    assert f"cut{suffix}" in out and ("is damaged" in out or "cannot be opened" in out)


def test_a_result_that_cannot_be_written_is_one_failure(weights, tmp_path):
    src, out = pictures(tmp_path / "in", 3), tmp_path / "out"
    (out / "1.png").mkdir(parents=True)
    Image.new("RGB", (17_000, 2)).save(src / "wide.webp.png")
    report = translate(weights, [src], out, overwrite=True, suffix=".webp")
    assert [file.name for file, _ in report.skipped] == ["wide.webp.png"] and report.done == 3
    report = translate(weights, [src], out, overwrite=True)
    assert [file.name for file, _ in report.skipped] == ["1.png"] and report.done == 3


def test_a_device_that_computes_nothing_is_named(weights, tmp_path, capsys):
    pictures(tmp_path, n=1)
    for device in ("meta", "xpu", "cuda:99", "nowhere"):
        args = ["translate", weights, str(tmp_path / "0.png"), "--out", str(tmp_path / "out"), "--device", device]
        assert main(args) == 1
        assert f"device='{device}' cannot be used here" in complaint(capsys)


def test_an_enormous_side(weights, tmp_path, capsys):
    src = pictures(tmp_path / "in")
    args = ["translate", weights, str(src), "--out", str(tmp_path / "out"), "--side", "1000000000", "--no-progress"]
    assert main(args) == 1
    out = capsys.readouterr().out
    assert "0.png" in out and "1.png" in out and "ask for a smaller size" in out


@pytest.mark.parametrize("rate", [1e-9, 10**9])
def test_a_film_of_an_absurd_rate_is_written(tmp_path, rate):
    with Writer(tmp_path / "film.mkv", rate) as film:
        for i in range(3):
            film.add(scene(i, side=32), seconds=i / 10)
    assert film.frames == 3 and (tmp_path / "film.mkv").stat().st_size


def test_a_film_whose_clock_breaks_is_one_failure(weights, tmp_path, monkeypatch):
    for name in ("a.mkv", "b.mkv"):
        small_film(tmp_path / name, 3)

    def clock(path, **_):
        for number, (pts, seconds, frame) in enumerate(decode(path)):
            yield pts, seconds if Path(path).stem == "b" else 1e20 * number, frame

    monkeypatch.setattr("toon2real.translate.decode", clock)
    report = translate(weights, [tmp_path / "a.mkv", tmp_path / "b.mkv"], tmp_path / "out")
    assert [file.name for file, _ in report.skipped] == ["a.mkv"] and report.done == 1


@pytest.mark.parametrize("system, results", [("linux", 2), ("darwin", 1), ("win32", 1)])
def test_names_that_are_one_file_elsewhere(weights, tmp_path, monkeypatch, system, results):
    for place, name in (("x", "A.png"), ("y", "a.png")):
        pictures(tmp_path / place, 1)
        (tmp_path / place / "0.png").rename(tmp_path / place / name)
    monkeypatch.setattr("toon2real.outputs.sys.platform", system)
    report = translate(weights, [tmp_path / "x" / "A.png", tmp_path / "y" / "a.png"], tmp_path / "out")
    monkeypatch.undo()
    assert report.done == results and report.done + len(report.skipped) == 2


def test_weights_of_a_diverged_training_are_named(weights, tmp_path):
    tensors, about = load_tensors(Path(weights).read_bytes()), read_about(weights)
    about.pop("sha256")
    broken = {name: value * float("nan") for name, value in tensors.items()}
    (tmp_path / "w.safetensors").write_bytes(save_tensors(broken, {"toon2real": json.dumps(about)}))
    with pytest.raises(RunError, match="w.safetensors holds numbers that are not finite"):
        load_weights(tmp_path / "w.safetensors")


def test_a_pickle_is_refused_without_a_hint_at_how_to_run_it(tmp_path):
    class Code:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"weight": Code()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth.*not executed") as told:
        Translator.load(tmp_path / "x.pth")
    assert "weights_only" not in str(told.value) and not (tmp_path / "ran").exists()
    torch.save({1: torch.zeros(2)}, tmp_path / "numbered.pth")
    with pytest.raises(RunError, match="numbered.pth is not the state dict"):
        Translator.load(tmp_path / "numbered.pth")


def test_pipes_are_no_weights(tmp_path):
    for name in ("w.safetensors", "w.pth"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is neither"):
            Translator.load(tmp_path / name)


# --- the command line


def test_terminals(capsys, tmp_path, monkeypatch):
    "Control characters and bytes that are no text do not reach it, and one that knows ASCII alone is served"
    name = os.fsdecode(b"a\x1b[2J\xe9\n.png")
    assert main(["translate", str(tmp_path / name), "x.png", "--out", str(tmp_path / "o")]) == 1
    assert r"a\x1b[2J\udce9\n.png" in complaint(capsys)
    with pytest.raises(SystemExit):
        main(["curate", "c.sqlite", "--seed", "\x1b[2J"])
    told = capsys.readouterr().err
    assert r"\x1b[2J" in told and "\x1b" not in told
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "ascii", write_through=True))
    assert main(["translate", str(tmp_path / "海"), "x.png", "--out", str(tmp_path / "o")]) == 1
    assert rb"\u6d77" in raw.getvalue()
    assert printable("a\u202eb") == r"a\u202eb"


@pytest.mark.parametrize(
    "args",
    [
        ["translate", "toon2real", "", "--out", "out"],
        ["translate", "toon2real", "a.png", "--out="],
        ["train", "--cartoon", "", "--photo", "p"],
        ["train", "--resume", ""],
        ["evaluate", ""],
        ["curate", ""],
    ],
)
def test_an_empty_argument_is_not_the_working_folder(args, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures(tmp_path / "here"))
    before = sorted(Path().rglob("*"))
    assert main(args) == 1
    assert "an empty argument stands after" in complaint(capsys) and sorted(Path().rglob("*")) == before


def test_closed_streams(tmp_path, monkeypatch):
    "`toon2real ... >&- 2>&-`"
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    args = ["curate", str(tmp_path / "c.sqlite"), "--sources", str(pictures(tmp_path / "in"))]
    assert main(args) == 0 and (tmp_path / "c.sqlite").exists()
    assert main(["evaluate"]) == 1


@pytest.mark.parametrize(
    "options, text", [(["--until", "9", "toon2real"], "--until 9"), (["toon2real", "--name", "../../x"], "../../x")]
)
def test_what_is_wrong_is_told_before_the_run_is_made(options, text, capsys, tmp_path, monkeypatch):
    here = tmp_path / "a" / "b"
    pictures(here / "c"), pictures(here / "p")
    monkeypatch.chdir(here)
    assert main(["train", "--cartoon", "c", "--photo", "p", *options, *SMALL]) == 1
    assert text in complaint(capsys)
    assert not list(tmp_path.rglob("run.json")) and not (here / "runs").exists()


def test_a_name_does_not_lead_out_of_runs(capsys, tmp_path, monkeypatch):
    pictures(tmp_path / "c"), pictures(tmp_path / "p"), (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["train", "--cartoon", "../c", "--photo", "../p", "toon2real", "--name", "..", *SMALL]) == 1
    assert "--name '..'" in complaint(capsys) and not list((tmp_path / "here").iterdir())


def test_what_a_resumed_training_cannot_change_is_refused(run, capsys):
    for words in (["toon2real", "--lr", "0.5"], ["--save-minutes", "1"], ["--run", "elsewhere"]):
        assert main(["train", "--resume", str(run.path), *words]) == 1
        assert "continues with the recipe" in complaint(capsys)


def test_too_little_memory_and_errors_without_words_are_one_line(capsys, monkeypatch):
    for error, told in ((MemoryError("70 GB"), "not enough memory (70 GB)"), (ValueError(), "ValueError")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("toon2real.cli._run", fail)
        assert main(["translate"]) == 1
        assert told in complaint(capsys)


def test_the_card_of_a_stranger_does_not_steer_the_terminal(weights, tmp_path):
    tensors, about = load_tensors(Path(weights).read_bytes()), read_about(weights)
    del about["sha256"]
    for card, told in (("a\x1b[2J\nb", "a\\x1b[2J\nb"), (5, None), ({}, None)):
        (tmp_path / "w.safetensors").write_bytes(
            save_tensors(tensors, {"toon2real": json.dumps(about | {"card": card})})
        )
        if told:
            assert demo.card(tmp_path / "w.safetensors") == told
        else:
            with pytest.raises(RunError, match="w.safetensors has no card"):
                demo.card(tmp_path / "w.safetensors")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_part_of_a_film(weights, tmp_path, number):
    small_film(tmp_path / "film.mkv", 600)
    args = ["translate", weights, str(tmp_path / "film.mkv"), "--out", str(tmp_path / "out"), "--no-progress"]
    err = tmp_path / "err"
    pid = os.fork()  # a new interpreter would take seconds to import torch
    if not pid:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stderr = err.open("w", buffering=1)
        try:
            os._exit(main(args))
        except SystemExit as e:
            os._exit(e.code)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, number)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + number, err.read_text()
    assert ("interrupted" in err.read_text()) == (number == signal.SIGINT)
    assert not list((tmp_path / "out").iterdir())


# --- writing


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null", "."):
        with pytest.raises(WriteError, match="choose another"):
            write_atomic(tmp_path / name, b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_windows_waits_for_who_reads(tmp_path, monkeypatch):
    replace, refused = os.replace, [PermissionError(13, "in use")] * 2

    def busy(*names):
        if refused:
            raise refused.pop()
        replace(*names)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr("toon2real.files.sys.platform", "win32")
    write_atomic(tmp_path / "x", b"x")
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"x" and not refused


def test_names_of_255_bytes(tmp_path):
    write_atomic(tmp_path / ("x" * 255), b"x")
    write_atomic(tmp_path / ("é" * 127), b"x")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(WriteError, match="choose another"):
        write_atomic(tmp_path / ("x" * 256), b"x")


# --- what is read of a run

JUDGED = dict(n=4, seed=0, available={}, untranslated={}, floor={})


@pytest.fixture
def run(tmp_path):
    system = toon2real.tiny(width=4, blocks=1).build()
    run = Run.create(tmp_path / "run", system.recipe, system, until=3)
    for epoch in (1, 2, 3):
        run.add_row({"epoch": epoch, "G_r": 1 / epoch})
        run.save_checkpoint(system, epoch)
    return run


def test_every_flipped_byte_of_weights_is_found(tmp_path, weights):
    data, random = Path(weights).read_bytes(), np.random.default_rng(0)
    for at in random.integers(0, len(data), 40):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << int(random.integers(8))
        (tmp_path / "w.safetensors").write_bytes(spoilt)
        with pytest.raises(ValueError, match="w.safetensors"):
            load_weights(tmp_path / "w.safetensors")


def test_a_recipe_is_not_believed(tmp_path, weights):
    "Not more memory than the file is worth, whatever it says"
    data = load_tensors(Path(weights).read_bytes())
    recipe = read_about(weights)["recipe"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for change in (dict(blocks=20_000), dict(width=3000), dict(width=10**12), dict(pool="x"), dict(betas=3)):
        about = json.dumps({"recipe": recipe | change})
        (tmp_path / "w.safetensors").write_bytes(save_tensors(data, {"toon2real": about}))
        with pytest.raises(ValueError, match="w.safetensors"):
            load_weights(tmp_path / "w.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
    for metadata in ("null", "[]", '"x"', "[" * 9999, "{", '{"recipe": null}'):
        (tmp_path / "w.safetensors").write_bytes(save_tensors(data, {"toon2real": metadata}))
        with pytest.raises(ValueError, match="w.safetensors"):
            load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        [],
        {},
        {"recipe": None},
        {"recipe": {"class": "toon2real.cyclegan:CycleGANRecipe", "width": "wide"}},
        {"options": 3},
        {"data": []},
        {"judge": "x"},
        {"judge": {"metric": "x"}},
        {"environment": {}, "until": "soon"},
        {"environment": {"torch": "2", "device": "x", "threads": [1]}},
        {"options": {"samples": []}},
        {"data": {"cartoon": {}}},
        {"data": {name: {"source": 5, "images": 1, "hash": "x"} for name in ("cartoon", "photo")}},
        {"data": {name: {"source": "x", "images": 1, "hash": "x"} for name in ("cartoon", "photo", "val_photo")}},
        {"samples": {"cartoon": {"hash": 3}, "photo": {}}},
        {"judge": dict.fromkeys(("metric", "main", "extractor", "images"), "\x1b[2J") | JUDGED},
        {"judge": dict.fromkeys(("metric", "main", "extractor", "images"), "x") | JUDGED | {"floor": {"x": "y"}}},
        {"command": 5},
        {"created": []},
        {"recipe": {"class": "toon2real.cyclegan:CycleGANRecipe", "name": "\x1b[2J"}},
        {"recipe": {"class": "toon2real.cyclegan:CycleGANRecipe", "lr": 10**400}},
        {"recipe": {"class": "toon2real.cyclegan:CycleGANRecipe", "betas": [2, "x"]}},
    ],
    ids=str,
)
def test_a_run_json_that_parses_but_is_wrong(run, change):
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change if change else change))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RunError, match="run.json"):
            Run(run.path).recipe


def changed(run, **parts):
    "The run after somebody has written these parts into its run.json"
    file = run.path / "run.json"
    about = json.loads(file.read_text()) | parts
    about.pop("sha256", None)
    file.write_text(json.dumps(about))
    return Run(run.path)


def test_what_a_training_needs_of_run_json(run):
    with pytest.raises(RunError, match="run.json lacks options"):
        Trainer.resume(run.path)
    told = {"data": {}, "environment": {"torch": "2", "device": "x", "threads": 1}}
    told["data"] = {name: {"source": None, "images": 1, "hash": "x"} for name in ("cartoon", "photo")}
    for options in ({"colour": 1}, {"samples": "many"}, {"save_minutes": -1}):
        with pytest.raises(RunError, match="run.json: its options"):
            Trainer.resume(changed(run, options=options, **told))


def test_a_run_json_without_its_judge(tmp_path):
    pictures = [scenes(8, seed=seed, side=32, kind=kind) for seed, kind in enumerate(("cartoon", "photo"))]
    recipe = toon2real.tiny(width=4, blocks=1, side=32, epochs=2, decay_epochs=0)
    how = {"evaluate_every": 1, "extractor": "simple", "progress": False}
    done = Trainer(recipe, *pictures, tmp_path / "run", val=pictures, **how).fit()
    file = done.path / "run.json"
    about = {name: part for name, part in json.loads(file.read_text()).items() if name not in ("judge", "sha256")}
    file.write_text(json.dumps(about))
    with pytest.raises(RunError, match="run.json lacks judge"):
        Trainer.resume(done.path, *pictures, val=pictures, progress=False)


def test_an_enormous_recipe_in_run_json_takes_no_memory(run):
    recipe = run.about["recipe"] | {"width": 20_000}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match="run.json.*networks of more than"):
        changed(run, recipe=recipe).system()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize(
    "field", [dict(lr=float("nan")), dict(cycle=float("inf")), dict(betas=(0.5, 1)), dict(name="")]
)
def test_numbers_and_names_that_no_recipe_has(field):
    with pytest.raises(ValueError, match=f"{next(iter(field))}="):
        toon2real.replace(**field)


def test_names_that_are_no_utf_8_are_written_down_and_read_back(run):
    odd = os.fsdecode(b"caf\xe9")
    run.update(command=[odd, "海"])
    with pytest.raises(RunError, match="not UTF-8"):  # nor could its weights be opened
        Run.create(run.path.with_name(odd), run.recipe)
    assert Run(run.path).about["command"] == [odd, "海"] and "海" in (run.path / "run.json").read_text(encoding="utf-8")


def test_a_sheet_of_another_size_is_named(run):
    (run.path / "samples").mkdir()
    for size in ((64 * 6 + 1, 64), (64 * 6, 65), (1, 1)):
        Image.new("RGB", size).save(run.path / "samples" / "epoch-0001.png")
        with pytest.raises(RunError, match="epoch-0001.png.*is not a sheet"):
            run.samples()


def test_a_checkpoint_that_lacks_something_is_named(run):
    file = run.path / "checkpoints" / "step-00000003.safetensors"
    tensors, recipe = load_tensors(file.read_bytes()), run.about["recipe"]
    for lost in ("seen", "model/"):
        left = {name: value for name, value in tensors.items() if not name.startswith(lost)}
        file.write_bytes(save_tensors(left, {"toon2real": json.dumps({"recipe": recipe})}))
        with pytest.raises(RunError, match="step-00000003.safetensors"):
            run.system()


def test_changes_by_hand_are_told(run):
    file = run.path / "run.json"
    about = json.loads(file.read_text())
    about["recipe"] |= {"lr": 0.5, "seed": 7}
    file.write_text(json.dumps(about))
    with pytest.warns(UserWarning, match="run.json was changed"):
        changed = Run(run.path)
    with pytest.raises(RunError, match=r"seed=7, not 0.*lr=0.5, not 0.0002"):
        changed.load_checkpoint()
    history = run.path / "history.csv"
    history.write_text("".join(line for line in history.open() if not line.startswith("2,")))
    with pytest.warns(UserWarning, match="history.csv was changed.*the epochs 1-3 and has 1, 3"):
        assert run.history.epoch.tolist() == [1, 3]
    for spoilt in (
        b"",
        b"\0",
        b"a,b\n1,2\n",
        b"epoch\nx\n",
        b"epoch,G_r\n1,one\n",
        b"epoch\n1\n1,2,3\n",
        b"epoch\n2\n2\n",
        b"epoch\n1.5\n",
        b"epoch,seconds\n1,inf\n",
        b"epoch\n-1\n",
    ):
        history.write_bytes(spoilt)
        with pytest.raises(RunError, match="history.csv is damaged"):
            _ = run.history


def test_lost_rows_are_told(run):
    "The last row, the whole file, or the file with its checksum; what a kill leaves before the first row is no loss"
    history, digest = run.path / "history.csv", run.path / "history.sha256"
    lines = history.read_text().splitlines(keepends=True)
    history.write_text("".join(lines[:-1]))
    with pytest.warns(UserWarning, match="history.csv was changed.*the epochs 1-3 and has 1-2"):
        _ = run.history
    history.unlink()
    with pytest.raises(RunError, match="history.csv is missing.*remove history.sha256"):
        _ = run.history
    digest.unlink()
    run._write_history(pd.DataFrame({"epoch": [1]}))
    first = f"{hashlib.sha256(b'').hexdigest()}\n{digest.read_text()}"
    digest.write_text(first)
    history.unlink()
    assert run.history.empty


def test_a_kill_between_checksum_and_history_is_no_change(run, monkeypatch):
    def killed(path, data):
        if Path(path).name == "history.csv":
            raise KeyboardInterrupt
        write_atomic(path, data)

    monkeypatch.setattr("toon2real.journal.write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        run.add_row({"epoch": 4, "G_r": 0.1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.history.epoch.tolist() == [1, 2, 3]


def test_a_run_that_is_taken_away_is_told(run, tmp_path):
    system = run.system()
    run.path.rename(tmp_path / "elsewhere")
    sheet = {"cartoon": np.zeros((1, 8, 8, 3), np.uint8)}
    for write in (
        lambda: run.save_checkpoint(system, 9),
        lambda: run.add_row({"epoch": 1}),
        lambda: run.save_epoch(1, system),
        lambda: run.save_samples(1, sheet),
    ):
        with pytest.raises(RunError, match="removed or renamed"):
            write()
    Record()._keep(SimpleNamespace(run=run), "progress.json", b"{}")
    assert not run.path.exists()


def test_a_folder_that_a_kill_left_can_be_started_and_another_is_kept(tmp_path):
    recipe = toon2real.tiny(width=4, blocks=1)
    left = tmp_path / "left"
    (left / "checkpoints").mkdir(parents=True)
    for name in (".lock", "progress.json", ".run.json.1a2b3c4d.99.tmp", "checkpoints/.step-00000000.safe.1.2.tmp"):
        (left / name).touch()
    assert Run.create(left, recipe, recipe.build()).checkpoint_steps == [0]
    (left / "run.json").unlink()
    (left / "checkpoints" / "step-00000007.safetensors").touch()  # of a training that has lost its run.json
    with pytest.raises(RunError, match="is not a run"):
        Run.create(left, recipe)


def test_two_that_begin_at_once(tmp_path):
    "One wins, the other says so, and run.json describes the winner"
    for attempt in range(6):
        path, pids = tmp_path / str(attempt), []
        for lr in (0.1, 0.2):
            pid = os.fork()
            if not pid:
                recipe = toon2real.tiny(width=4, blocks=1, lr=lr)
                try:
                    Run.create(path, recipe, recipe.build())
                    os._exit(int(lr * 10))
                except RunError as e:
                    os._exit(0 if "already holds a run" in str(e) or "another process" in str(e) else 9)
                except BaseException:
                    os._exit(9)
            pids.append(pid)
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
        assert codes in ([0, 1], [0, 2]) and Run(path).recipe.lr == codes[1] / 10
        assert Run(path).load_checkpoint()[0] == 0


def test_one_that_begins_while_the_folder_is_listed(tmp_path, monkeypatch):
    recipe = toon2real.tiny(width=4, blocks=1)

    def meanwhile(path, pattern):
        monkeypatch.undo()
        Run.create(path, recipe)
        return path.rglob(pattern)

    monkeypatch.setattr(Path, "rglob", meanwhile)
    with pytest.raises(RunError, match="already holds a run"):
        Run.create(tmp_path / "run", recipe)


def test_a_name_that_figures_cannot_draw():
    with pytest.raises(ValueError, match="mathematics"):
        toon2real.replace(name="$\\frac{")


@pytest.mark.parametrize("text", ["", "\0", "file,group\n,\n", "a,b\n1,2\n", "a\n1,2,3\n", "file,group\nx\n"])
def test_a_strangers_manifest_stops_no_training(tmp_path, text):
    (tmp_path / "manifest.csv").write_text(text)
    pictures(tmp_path / "a" / "b")
    assert stills(tmp_path / "a" / "b") is None


# --- tables and figures


@pytest.mark.filterwarnings("ignore:(figure|plane)")
def test_names_in_tables_and_figures_are_text(run, tmp_path, monkeypatch):
    odd = "a|<b>\x1b[2J $\\frac{$"
    run.path.rename(tmp_path / odd)
    shutil.copytree(tmp_path / odd, tmp_path / "other")
    gathered = Comparison([tmp_path / odd, tmp_path / "other"])
    assert r"\x1b[2J" in gathered.labels[0] and gathered.labels[0].isprintable()
    table = pd.DataFrame({"KID": [1.0]}, [f"{odd}\n"])
    assert markdown(table).count("\n") == 2 and "<b>" not in markdown(table) and r"a\|" in markdown(table)

    def draw(comparison):
        raise ValueError("Expected end of text, found $")  # as matplotlib does with half a formula

    monkeypatch.setattr("toon2real.figures.comparison", draw)
    with pytest.warns(UserWarning, match="figure3 was not made: Expected end of text"):
        paper_figures(gathered, tmp_path / "figures")


# --- numbers that make no sense


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda x: subsample(x, -3), "-3"),
        (lambda x: choose(10, -3, 0, "x"), "n=-3"),
        (lambda x: bootstrap(frechet_features, x, x, 0), "reps=0"),
        (lambda x: Judge(x, x, "simple", reps=10**20), f"reps={10**20}"),
        (lambda x: precision_recall(x, x, 0), "k=0"),
        (lambda x: frechet_distance([0, 0], [[1, 5], [0, 1]], [0, 0], np.eye(2)), "cov1 is no covariance"),
        (lambda x: frechet_distance([0, 0], np.eye(2), [0, 0], -np.eye(2)), "eigenvalue -1"),
        (lambda x: Domain.open("scenes:cartoon:0-99999999999", 32), "more than 1,000,000"),
        (lambda x: Domain.open("scenes:photo:0-1@0", 32), "'scenes:photo:0-1@0': side=0"),
    ],
)
def test_numbers_that_make_no_sense_are_named(call, told):
    with pytest.raises(ValueError, match=told):
        call(np.random.default_rng(0).normal(size=(20, 8)))


# --- what a page, or a file of answers, may say


@pytest.fixture
def study(tmp_path):
    pictures = np.zeros((2, 16, 16, 3), np.uint8)

    def make(participant="somebody"):
        systems = {"a": pictures, "b": pictures + 1}
        out = tmp_path / "answers.jsonl"
        return HumanStudy(systems, pictures, out, photos=pictures, trials=4, participant=participant)

    return make


def test_answers_outlive_odd_names_and_kills(study):
    one = study("A\u2028B \udce9")
    one.answer(0, 0, 1.0)
    kept = one.out.read_bytes()
    one.out.write_bytes(kept + b'{"study": "x", "par')  # killed while it was written
    again = study("A\u2028B \udce9")
    assert again.done == 1
    again.answer(1, 1, 1.0)
    assert again.done == 2 and again.out.read_bytes().startswith(kept)


@pytest.mark.parametrize("line", ["5", "{}", "null", "[" * 9999, '{"study": 1}', "\xff"])
def test_a_line_that_is_no_answer_is_named(study, line):
    out = study().out
    out.write_text(f"{line}\n", encoding="latin-1")
    for read in (study, lambda: study_results(out)):
        with pytest.raises(ValueError, match="answers.jsonl, line 1 is no answer"):
            read()


@pytest.mark.parametrize(
    "bad",
    [
        dict(trial=0.5),
        dict(trial=True),
        dict(trial=99),
        dict(chosen=[0]),
        dict(seconds=float("nan")),
        dict(seconds="x"),
    ],
    ids=str,
)
def test_of_a_page_with_a_bad_answer_none_is_taken(study, tmp_path, bad):
    asked, file = study(), tmp_path / "page.json"
    good = {"trial": 0, "chosen": 0, "seconds": 1.0}
    file.write_text(
        json.dumps({"study": asked.study, "participant": "p", "answers": [good, good | {"trial": 1} | bad]})
    )
    with pytest.raises(ValueError, match="page.json.*none of it was taken"):
        take_answers(asked, file)
    with pytest.raises(ValueError, match="trial"):
        asked.hear_answer(good | bad, [])
    assert not asked.out.exists()


def test_a_page_that_is_out_of_date_breaks_no_widget():
    compared = CompareSystems({"same": lambda image: image}, np.zeros((2, 16, 16, 3), np.uint8))
    for image, shown in ((99, 1), (-1, 0), (10**12, 1)):
        compared.image = image
        assert compared.image == shown
    for message in ({}, {"kind": "nothing"}, {"kind": "picture", "key": "99/0"}, {"kind": "picture", "key": 5}):
        compared.problem = ""
        compared._hear(compared, message, [])
        assert compared.problem
    with pytest.raises(ValueError, match="no pictures"):
        CompareSystems({"same": lambda image: image}, [])


@pytest.mark.skipif(os.sep == "\\", reason="there it is no letter")
def test_a_backslash_in_a_name_stops_no_export(tmp_path):
    pictures(tmp_path / "in", side=96)
    (tmp_path / "in" / "0.png").rename(tmp_path / "in" / "a\\b.png")
    with Catalogue(tmp_path / "c.sqlite") as cat:
        cat.add(tmp_path / "in", progress=False)
        cat.decide(cat.frames(), True)
        assert set(cat.export(tmp_path / "out", progress=False).source) == {"in/a\\b.png", "in/1.png"}


def test_a_picker_is_told_what_makes_no_sense(tmp_path):
    with Catalogue(tmp_path / "c.sqlite") as cat:
        cat.add(pictures(tmp_path / "in", side=96), progress=False)
        picker = FramePicker(cat)
        before = cat.thresholds
        view = {"kind": "view", "tab": "kept", "order": "time", "film": None, "shots": True, "shot": None}
        for message in (
            {},
            {"kind": "pictures", "number": 1, "frames": [999]},
            {"kind": "threshold", "name": "nothing", "value": 1, "keep": True},
            {"kind": "threshold", "name": "dark", "value": float("nan"), "keep": True},
            {"kind": "decide", "version": picker._version, "tiles": [0], "keep": "evil"},
            view | {"shot": [1]},
            view | {"tab": "nothing"},
        ):
            picker._hear(picker, message, [])
            assert picker.problem, message
        picker._hear(picker, {"kind": "back"}, [])
        assert not picker.problem and cat.thresholds == before and not picker.picks.counts()["by_hand"]
        picker.close()


# --- the harnesses of bench/


def harness(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_each_ablation_has_a_trace_of_its_own(tmp_path, monkeypatch):
    ablation = harness("ablation")
    monkeypatch.setattr(ablation, "Trainer", lambda *_, **__: SimpleNamespace(fit=lambda: None))
    options = SimpleNamespace(precision="float32")
    runs = [tmp_path / f"scenes-toon2real-average=0.{digits}" for digits in ("999", "9995")]
    traces = [ablation.train(options, toon2real, run, (), None)[1][0] for run in runs]
    assert [trace.path.name for trace in traces] == [f"{run.name}.trace.json" for run in runs]


def in_a_clean_process(function):
    "Forked before this one has computed anything would be best; one thread is enough"
    pid = os.fork()
    if not pid:
        torch.set_num_threads(1)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))  # not pytest's files beside them
        try:
            passed = function()
            sys.stdout.flush()
            os._exit(0 if passed else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


def test_some_malformed_inputs(tmp_path, capfd):
    fuzz = harness("fuzz")

    def clean():
        counts = fuzz.fuzz(100, seed=1, work=tmp_path)
        print(fuzz.table(counts))
        return {what for _, what in counts} <= {"fine", "clean"}

    in_a_clean_process(clean)


def test_a_dozen_kills(tmp_path):
    faults = harness("faults")
    in_a_clean_process(lambda: not faults.faults(12, 1, ("toon2real",), tmp_path)["wrong"])


# --- before anything is made, and in the words of who asked


@pytest.mark.parametrize(
    "options, told",
    [
        (["--width", "100000"], "width=100000"),
        (["--batch", "100000"], "batch=100000, but the larger domain has 2 pictures"),
    ],
)
def test_numbers_that_no_training_can_have(options, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "c"), pictures(tmp_path / "p")
    args = ["train", "--cartoon", "c", "--photo", "p", "--run", "r", "--device", "cpu", "toon2real", *SMALL, *options]
    assert main(args) == 1
    assert told in complaint(capsys) and not Path("r").exists()


def test_values_that_cannot_be_name_their_field(tmp_path):
    for make, told in (
        (lambda: toon2real.replace(batch="2"), "batch is '2'"),
        (lambda: toon2real.replace(side=64.0), "side is 64.0"),
        (lambda: toon2real.replace(side=8), "side=8"),
        (lambda: patchwise.replace(side=8), "side=8"),
        (lambda: toon2real.replace(pool=100_000_000), "pool=100000000"),
        (lambda: Options(samples=2.5), "samples is 2.5"),
        (lambda: Options(save_minutes="x"), "save_minutes is 'x'"),
        (lambda: save_weights(tmp_path / "w", toon2real.tiny(width=4, blocks=1).build(), modules=("nope",)), "nope"),
    ):
        with pytest.raises(ValueError, match=told):
            make()
    assert not (tmp_path / "w").exists()


def test_empty_and_halved_arguments_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(pictures(tmp_path / "here"))
    recipe, pixels = toon2real.tiny(width=4, blocks=1), np.zeros((2, 72, 72, 3), np.uint8)
    for call in (
        lambda: Trainer(recipe, "", pixels, run="r"),
        lambda: Trainer(recipe, pixels, pixels, run=""),
        lambda: Translator.load(""),
        lambda: Run(""),
    ):
        with pytest.raises(ValueError, match="'' names no file"):
            call()
    for val in ("cartoon", (pixels,)):
        with pytest.raises(ValueError, match="val is no pair"):
            Trainer(recipe, pixels, pixels, run="r", val=val)
    assert not Path("r").exists()


@pytest.mark.parametrize(
    "args, told",
    [
        (["curate", "c.sqlite", "--group", "(("], "group='(('"),
        (["curate", "c.sqlite", "--shard", "x"], "shard=x"),
        (["curate", "c.sqlite", "--every", "nan"], "every=nan"),
        (["photos", "--n", "-1"], "n=-1"),
        (["photos", "--side", "0"], "side=0"),
        (["translate", "toon2real", "0.png", "--out", "o", "--steady", "nan"], "steady=nan"),
        (["translate", "toon2real", "0.png", "--out", "o.gif"], "o.gif: one picture can be called"),
        (["translate", "toon2real", "0.png", "0.png", "--out", "o.png"], "or a folder for several"),
    ],
)
def test_options_are_checked_where_nothing_asks_for_them_yet(args, told, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", "0123456789abcdef0123456789abcdef")
    monkeypatch.chdir(pictures(tmp_path / "here"))
    Catalogue("c.sqlite").close()
    assert main(args) == 1
    assert told in complaint(capsys) and not list(Path().glob("o*"))


def test_pictures_of_other_kinds_are_counted(weights, capsys, tmp_path):
    src = pictures(tmp_path / "in")
    for name in ("a.heic", "b.HEIC", "c.svg", "notes.txt"):
        (src / name).touch()
    for args in (
        ["translate", weights, str(src), "--out", str(tmp_path / "o")],
        ["curate", str(tmp_path / "c.sqlite")],
    ):
        assert main([*args, *(["--sources", str(src)] if args[0] == "curate" else ["--device", "cpu"])]) == 0
        assert "left out (2 .heic, 1 .svg)" in complaint(capsys)


def test_the_name_of_a_run_does_not_steer_the_terminal(capsys, tmp_path):
    pictures(tmp_path / "c", side=72), pictures(tmp_path / "p", side=72)
    run = tmp_path / "esc\x1b[31m"
    args = ["train", "--cartoon", str(tmp_path / "c"), "--photo", str(tmp_path / "p"), "--run", str(run)]
    assert main([*args, "--device", "cpu", "toon2real", *SMALL]) == 0
    assert main(["train", "--resume", str(run)]) == 0
    said = "".join(capsys.readouterr())
    assert "all 1 epochs are trained" in said and "\x1b" not in said


def test_a_failed_allocation_says_what_to_do(capsys, monkeypatch):
    def fail(*_):
        torch.empty(1 << 50)

    monkeypatch.setattr("toon2real.cli._run", fail)
    assert main(["translate"]) == 1
    assert "not enough memory" in complaint(capsys)


# --- what is written replaces no input


def test_outputs_replace_nothing_of_another_kind(run, capsys, tmp_path, monkeypatch):
    "An input, a run's own files, somebody's table: refused before anything is computed; own results are made again"
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "photos"), pictures(tmp_path / "mine")
    assert main(["curate", "c.sqlite", "--sources", "photos", "--no-progress"]) == 0
    for name, text in {
        "mine/table.csv": "my thesis",
        "mine/report.html": "my page",
        "mine/x.csv": "file,group\n",
    }.items():
        Path(name).write_text(text)
    run, judged = str(run.path), ["--cartoon", "photos", "--photo", "photos"]
    before = {path: path.read_bytes() for path in [*Path().rglob("*.*"), *Path(run).rglob("*.*")] if path.is_file()}
    for args in (
        ["curate", "c.sqlite", "--reasons", "c.sqlite"],
        ["curate", "c.sqlite", "--reasons", "mine/x.csv"],
        ["curate", "c.sqlite", "--reasons", "photos/0.png"],
        ["curate", "c.sqlite", "--pick", "c.sqlite"],
        ["evaluate", "photos", *judged, "--out", "photos/0.png"],
        ["evaluate", "photos", *judged, "--out", "mine/x.csv"],
        ["compare", run, "--out", run],
        ["compare", run, "--out", "mine"],
        ["report", run, "--out", run],
        ["report", run, "--out", "mine"],
        ["quickstart", "--out", "mine"],
    ):
        capsys.readouterr()
        assert main(args) == 1, args
        assert args[-1] in complaint(capsys), args
    assert {path: path.read_bytes() for path in before} == before
    for _ in range(2):
        assert main(["curate", "c.sqlite", "--reasons", "all.csv", "--pick", "p.html", "--no-progress"]) == 0

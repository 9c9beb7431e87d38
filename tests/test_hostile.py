"What strangers, full disks and impatient people do to the command line: a result, or one line that names what is wrong"

import io
import os
import signal
import stat
import sys
import time
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from toon2real.cli import main
from toon2real.cyclegan import toon2real
from toon2real.images import WriteError, list_images, printable, write_atomic
from toon2real.runs import save_weights
from toon2real.scenes import scene
from toon2real.translate import Translator, translate_command

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


def test_an_enormous_side(weights, tmp_path, capsys):
    src = pictures(tmp_path / "in")
    args = ["translate", weights, str(src), "--out", str(tmp_path / "out"), "--side", "1000000000", "--no-progress"]
    assert main(args) == 1
    out = capsys.readouterr().out
    assert "0.png" in out and "1.png" in out and "ask for a smaller size" in out


def test_a_pickle_is_refused_without_a_hint_at_how_to_run_it(tmp_path):
    class Code:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"weight": Code()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="x.pth.*not executed") as told:
        Translator.load(tmp_path / "x.pth")
    assert "weights_only" not in str(told.value) and not (tmp_path / "ran").exists()


def test_pipes_are_no_weights(tmp_path):
    for name in ("w.safetensors", "w.pth"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}.*pipe"):
            Translator.load(tmp_path / name)


# --- the command line


def test_terminals(capsys, tmp_path, monkeypatch):
    "Control characters and bytes that are no text do not reach it, and one that knows ASCII alone is served"
    name = os.fsdecode(b"a\x1b[2J\xe9\n.png")
    assert main(["translate", str(tmp_path / name), "x.png", "--out", str(tmp_path / "o")]) == 1
    assert r"a\x1b[2J\udce9\n.png" in complaint(capsys)
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
    assert "nothing is given for" in complaint(capsys) and sorted(Path().rglob("*")) == before


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


def test_names_of_255_bytes(tmp_path):
    write_atomic(tmp_path / ("x" * 255), b"x")
    write_atomic(tmp_path / ("é" * 127), b"x")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(WriteError, match="choose another"):
        write_atomic(tmp_path / ("x" * 256), b"x")

"""Picking among 80,000 frames in a real browser: from a key, a click or a scroll to the pictures.

A catalogue of made-up films is written (shots of about six frames, pictures of embedded scenes, scores from a seed), a
JupyterLab and a headless Chromium are started, and `FramePicker` is used as a person would: pages, jumps to anywhere,
decisions, tabs, orders, thresholds. Each line has the median, the 95th percentile and the slowest of so many tries, in
milliseconds from the event to all visible pictures (or to the new mark), and the longest time without a frame drawn.
`--looking` lets the Inception of TOON2REAL_INCEPTION look at the shots meanwhile, for the order by likeness.
`--thresholds` needs no browser: processor seconds of opening, and of moving the thresholds of near-duplicates.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from conftest import chromium, jupyter
from test_widgets import open_notebook

from toon2real.catalogue import Catalogue
from toon2real.images import to_pil
from toon2real.picks import Picks
from toon2real.scenes import scenes
from toon2real.scores import look


def made_up(path: Path, films: int, frames: int, seed: int = 0):
    "A catalogue of so many films with so many frames each"
    rng = np.random.default_rng(seed)
    known = [look(to_pil(scene), enlarge=True) for scene in scenes(200, seed=0, side=224, kind="cartoon")]
    with Catalogue(path) as cat:
        for film in range(1, films + 1):
            about = {"id": film, "kind": "film", "content": f"content {film}", "path": f"films/{film:02}.mkv"}
            about |= {"name": f"film {film:02}.mkv", "width": 1280, "height": 720, "duration": float(frames)}
            about |= {"every": 1.0, "status": "done"}
            places = ", ".join(f":{name}" for name in about)
            with cat.db:
                cat.db.execute(f"INSERT INTO films({', '.join(about)}) VALUES({places})", about)
            for row in film_frames(film, frames, rng, known):
                cat._put(row)


def film_frames(film: int, count: int, rng, known: list[dict]):
    "Frames a second apart: those of a shot are alike, a tenth of all are dark, a tenth textual"
    for second in range(count):
        cut = second == 0 or rng.random() < 1 / 6
        if cut:
            scores, shade = known[rng.integers(len(known))], int(rng.integers(-60, 60))
            base = int(rng.integers(0, 2**63))
            tiny = np.frombuffer(scores["tiny"], np.uint8) + float(shade)
        changed = {"film": film, "pts": second * 1000, "time": float(second), "cut": 9.0 if cut else 1.0, "blend": 0.5}
        changed |= {
            "hash": base ^ 1 << int(rng.integers(63)),
            "tiny": tiny.clip(0, 255).astype(np.uint8).tobytes(),
            "width": 1280,
            "height": 720,
        }
        dark, text = rng.random(2) < 0.1
        changed["luma"] = float(rng.uniform(0.02, 0.15)) if dark else max(scores["luma"], 0.2)
        changed["text"] = float(rng.uniform(0.25, 0.6)) if text else float(rng.uniform(0, 0.25))
        changed["sharp"] = float(scores["sharp"] * rng.uniform(0.8, 1.2))
        yield scores | changed


def measure(page, times: int):
    "Do each so many times, and print how long it took"
    page.evaluate(Path(__file__).with_suffix(".js").read_text())
    for name in page.evaluate("Object.keys(tries)"):
        tries = np.array([page.evaluate("name => tries[name]()", name) for _ in range(times)])
        median, most, slowest = np.percentile(tries[:, 0], [50, 95, 100])
        stall = tries[:, 1].max()
        print(f"{name:46} {median:6.0f} {most:6.0f} {slowest:6.0f}   no frame for {stall:.0f} ms", flush=True)


def thresholds(path: Path):
    "Processor seconds of opening the catalogue, and of moving the thresholds of near-duplicates here and there"
    start = time.process_time()
    picks = Picks(path)
    print(f"opened in {time.process_time() - start:.2f} s")
    for bits, colour in [(9, 0.05), (12, 0.05), (12, 0.1), (8, 0.05), (13, 0.1), (16, 0.1), (16, 0.2)]:
        start = time.process_time()
        picks.thresholds = replace(picks.thresholds, duplicate=bits, colour=colour)
        seconds = time.process_time() - start
        print(f"{bits} bits, colour {colour}: {seconds:.2f} s, {picks.now.kept.sum()} kept", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--frames", type=int, default=2000, help="of each film")
    parser.add_argument("--times", type=int, default=20, help="tries of each")
    parser.add_argument("--thresholds", action="store_true", help="only the thresholds of near-duplicates, no browser")
    parser.add_argument("--looking", action="store_true", help="let Inception look at the shots meanwhile")
    parser.add_argument("--catalogue", type=Path, help="keep the catalogue here, or use the one that is there")
    args = parser.parse_args()
    if not args.looking:
        os.environ["TOON2REAL_INCEPTION"] = "no such file"
    with tempfile.TemporaryDirectory() as folder:
        path = args.catalogue or Path(folder) / "catalogue.sqlite"
        if not path.exists():
            made_up(path, args.films, args.frames)
        print(f"{args.films * args.frames} frames, catalogue of {path.stat().st_size / 1e6:.0f} MB", flush=True)
        if args.thresholds:
            return thresholds(path)
        cell = "from time import time\nfrom toon2real.widgets import FramePicker\nstart = time()\n"
        cell += f"picker = FramePicker({str(path)!r})\nprint(f'opened in {{time() - start:.1f}} s')\npicker"
        with jupyter() as lab, chromium() as page:
            open_notebook(page, lab, "picker", cell)
            page.locator(".t2r-tile img[data-frame]").first.wait_for()
            print(page.get_by_text("opened in").last.inner_text())
            measure(page, args.times)


if __name__ == "__main__":
    main()

"Picking frames in a real JupyterLab in a real Chromium, and on a page from the disk"

import json
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from test_widgets import keep_picture, keep_screenshot, kernel_of, open_notebook

from toon2real.catalogue import Catalogue
from toon2real.cli import main
from toon2real.images import png_bytes
from toon2real.likeness import Likeness, likeness
from toon2real.page import pick_page, take_picks
from toon2real.picks import Picks
from toon2real.scenes import scenes, write_film
from toon2real.scores import Thresholds

SHARED = Path(os.environ.get("TOON2REAL_SHARED", "../shared"))
WEIGHTS = SHARED / "weights" / "fid_inception_to_mixed6e.pth"
VIDEO = SHARED / "data" / "video"
STRANGE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def catalogue(tmp_path):
    "Two films and stills, with names and licences that a stranger chose"
    for seed, name in enumerate(["film.mp4", f"{STRANGE}.mp4"]):
        write_film(tmp_path / "films" / name, seed=seed, fps=4)
    stills = tmp_path / "stills"
    stills.mkdir()
    for number, scene in enumerate(scenes(4, seed=50, side=160)):
        (stills / f"{STRANGE}{number}.png").write_bytes(png_bytes(scene))
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as cat:
        cat.add([tmp_path / "films", stills], every=0.5, licence=f"CC0 {STRANGE}", progress=False)
    return path


def decisions(path: Path) -> list[tuple]:
    "(frame, kept) of what stands in the file"
    with sqlite3.connect(path) as db:
        query = """SELECT r.id, d.keep FROM decisions d JOIN frames r ON r.film=d.film AND r.pts=d.pts AND r.name=d.name
            WHERE d.keep IS NOT NULL ORDER BY r.id"""
        return db.execute(query).fetchall()


def wait_for_tiles(page):
    page.wait_for_function(
        """() => { const seen = [...document.querySelectorAll('.t2r-tile img')];
        return seen.length && seen.every(image => image.dataset.frame && image.naturalWidth); }"""
    )


def said(page, number: int):
    "Wait until so many decisions have come back"
    page.wait_for_function(f"document.querySelector('.t2r-picker').dataset.changes === '{number}'")


CELL = """
import os
from toon2real.widgets import FramePicker
import numpy as np
import torch

class Colours:
    "Stands for the network: sees colours only"

    dims = 3

    def key(self, dims):
        return "colours"

    def __call__(self, images):
        return {{3: torch.tensor(np.array([image.mean((0, 1)) / 255 for image in images]))}}

print("kernel", os.getpid())
FramePicker({path!r}, target=40, extractor=Colours())
"""


@pytest.fixture
def picker(lab, page, catalogue):
    "The widget on the catalogue: (its root, its tiles as a list that takes keys)"
    open_notebook(page, lab, "picker", CELL.format(path=str(catalogue)))
    root = page.locator(".t2r-picker")
    root.wait_for()
    wait_for_tiles(page)
    return root, root.locator(".t2r-grid")


@pytest.mark.browser
def test_frame_picker(page, picker, catalogue):
    "Keep, reject and undo by keys; the kernel is killed, and every decision is in the file"
    root, grid = picker
    kernel = kernel_of(page)
    assert page.locator("img[src='x']").count() == 0  # a stranger's text stayed text
    grid.focus()
    grid.press("x")
    said(page, 1)
    assert {keep for _, keep in decisions(catalogue)} == {0}
    assert page.locator(".jp-NotebookPanel .jp-Cell").count() == 1  # x did not cut the cell
    keep_screenshot(page, "frame_picker")

    grid.press("Shift+ArrowRight")
    grid.press("k")
    said(page, 2)
    kept = decisions(catalogue)
    assert {keep for _, keep in kept} == {0, 1}
    grid.press("x")
    said(page, 3)
    grid.press("z")
    said(page, 4)
    assert decisions(catalogue) == kept
    grid.press("x")
    said(page, 5)
    in_file = decisions(catalogue)
    os.kill(kernel, signal.SIGKILL)
    assert decisions(catalogue) == in_file != kept


def pick_by_mouse(page, root, catalogue: Path):
    "Several at once by Shift-click, buttons, and the order by likeness"
    tiles = root.locator(".t2r-tile")
    tiles.nth(1).click()
    tiles.nth(3).click(modifiers=["Shift"])
    assert root.locator(".t2r-where").inner_text().endswith("3 chosen")
    root.get_by_role("button", name="Reject the selection").click()
    said(page, 1)
    assert {keep for _, keep in decisions(catalogue)} == {0}
    undo = root.get_by_role("button", name="Undo the last decision")
    undo.click()
    said(page, 2)
    assert decisions(catalogue) == []
    wait_for_tiles(page)
    in_time = tiles.first.get_attribute("data-frame")
    tiles.nth(3).click()
    root.get_by_role("button", name="Keep the selection").click()
    said(page, 3)
    films = root.get_by_label("Film", exact=True)
    films.select_option(label="film.mp4")
    page.wait_for_function("document.querySelector('.t2r-tile .t2r-why')?.innerText === 'film.mp4'")
    wait_for_tiles(page)
    keep_picture(page, root, "frame_picker")
    films.select_option(label="all films")
    page.wait_for_function(f"document.querySelector('.t2r-tile img')?.dataset.frame === '{in_time}'")
    root.get_by_label("Order", exact=True).select_option("like")
    page.wait_for_function(f"document.querySelector('.t2r-tile img')?.dataset.frame !== '{in_time}'")
    root.get_by_label("Order", exact=True).select_option("time")
    page.wait_for_function(f"document.querySelector('.t2r-tile img')?.dataset.frame === '{in_time}'")
    undo.click()
    said(page, 4)


@pytest.mark.browser
def test_frame_picker_looks_around(page, picker, catalogue):
    "What a filter marks, a shot, a film, a threshold; by the mouse"
    root, grid = picker
    pick_by_mouse(page, root, catalogue)
    one_a_shot = root.locator(".t2r-bar input[type=checkbox]")
    root.get_by_role("button", name="text: ").click()
    page.wait_for_function("document.querySelector('.t2r-tabs [aria-pressed=true]').dataset.tab === 'text'")
    one_a_shot.uncheck()
    root.get_by_label("Order", exact=True).select_option("near")
    page.wait_for_function("document.querySelector('.t2r-where').textContent.endsWith('frames')")
    wait_for_tiles(page)
    root.locator(".t2r-tile").first.hover()
    root.locator(".t2r-tile").first.locator(".t2r-quick .t2r-keep").click()
    said(page, 5)
    assert len(decisions(catalogue)) == 1

    root.get_by_role("button", name="all: ").click()
    one_a_shot.check()
    page.wait_for_function("document.querySelector('.t2r-where').textContent.endsWith('shots')")
    wait_for_tiles(page)
    root.locator(".t2r-open:not(:empty)").first.click()
    page.wait_for_function("document.querySelector('.t2r-where').textContent.startsWith('Shot at')")
    wait_for_tiles(page)
    keep_screenshot(page, "frame_picker_shot")
    grid.press("Escape")
    page.wait_for_function("document.querySelector('.t2r-where').textContent.endsWith('shots')")

    root.locator("summary", has_text="By film").click()
    root.get_by_role("button", name="Reject all of stills").click()
    said(page, 6)
    assert len(decisions(catalogue)) == 1 + 4
    root.locator("summary", has_text="Thresholds").click()
    slider = root.get_by_role("slider", name="dark: ")
    slider.focus()
    before = root.locator("[data-name=dark] small").inner_text()
    for _ in range(10):
        slider.press("ArrowRight")
    with Catalogue(catalogue, create=False) as cat:
        for _ in range(100):
            if cat.thresholds.dark > 0.24:
                break
            page.wait_for_timeout(200)
        assert cat.thresholds.dark == 0.25
        root.get_by_role("button", name="Another unit for trim").click()
        page.wait_for_function("document.querySelector('[data-name=trim]').textContent.includes('seconds')")
        assert cat.thresholds.trim == round(0.04 * cat.films().duration.median())
    page.wait_for_function(f"document.querySelector('[data-name=dark] small').textContent !== {before!r}")
    keep_screenshot(page, "frame_picker_films")


def reject_in_time(page, marked, frame: int):
    "Reject a frame among all frames: its near-duplicates come back"
    page.get_by_role("button", name="all: ").click()
    page.get_by_label("one tile a shot").uncheck()
    page.wait_for_function(f"document.querySelector('.t2r-where').textContent === '{len(marked)} frames'")
    page.locator(".t2r-grid").press("Home")
    for _ in range(marked.index.get_loc(frame)):
        page.keyboard.press("ArrowRight")
    duplicates = page.locator("[data-tab=duplicate]").inner_text()
    page.keyboard.press("x")
    said(page, 5)
    assert page.locator("[data-tab=duplicate]").inner_text() != duplicates


def keep_among_rejects(page):
    "Of a shot's tile among rejects the frame that is shown is kept, and nothing else of the shot; taken back"
    page.locator("[data-tab=duplicate]").click()
    page.wait_for_function("document.querySelector('[data-tab=duplicate]').getAttribute('aria-pressed') === 'true'")
    page.locator(".t2r-grid").press("Home")
    page.keyboard.press("k")  # among rejects: the frame that is shown, and nothing else of its shot
    said(page, 3)
    assert page.get_by_text("1 frame kept").is_visible()
    page.keyboard.press("z")
    said(page, 4)


@pytest.mark.browser
def test_frame_picker_page(page, catalogue, tmp_path):
    """The page works from the disk, keeps decisions over a reload, and its file finds its way into the catalogue, where
    as many frames are kept as the page says"""
    with Catalogue(catalogue) as cat:
        cat.thresholds = Thresholds(per_shot=3)
        marked = Picks(cat).table()
    (html,) = pick_page(catalogue, tmp_path / "pick.html", target=40)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(html.as_uri())
    wait_for_tiles(page)
    assert page.locator("img[src='x']").count() == 0
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert page.locator("option[value=like]").get_attribute("hidden") is not None  # it takes an Inception
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        keep_screenshot(page, f"frame_picker_page_{scheme}")
    page.keyboard.press("x")  # keys are heard at once
    said(page, 1)
    page.keyboard.press("k")
    said(page, 2)
    keep_among_rejects(page)

    twin = marked[marked.marks == "duplicate"].iloc[-1]
    reject_in_time(page, marked, twin.duplicate_of)
    page.locator("summary", has_text="By film").click()
    page.get_by_role("button", name="Reject all of stills").click()
    said(page, 6)
    kept = page.get_by_text("of 40 kept").inner_text()
    page.get_by_role("button", name="rejected: ").click()
    page.get_by_label("Order", exact=True).select_option("near")
    wait_for_tiles(page)
    first = page.evaluate("Number(document.querySelector('.t2r-tile[aria-posinset=\"1\"]').dataset.frame)")
    page.reload()
    wait_for_tiles(page)
    assert page.get_by_text("of 40 kept").inner_text() == kept
    page.get_by_label("Your name").fill("eve")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my decisions").click()
    given = tmp_path / "picks.json"
    download.value.save_as(given)
    wanted = {one["keep"] for one in json.loads(given.read_text())["decisions"]}
    assert wanted == {True, False}
    with Catalogue(catalogue) as cat:
        assert "not in this catalogue" not in take_picks(cat, given)
        assert {row[0] for row in cat.db.execute("SELECT who FROM decisions")} == {"eve"}
        picks = Picks(cat)
        assert f"{picks.counts()['kept']} of 40 kept" == kept
        assert picks.now.kept[twin.name]
        near = picks.nearness()
        assert near[first] == near[picks.select("rejected")].min() and first != picks.select("rejected")[0]
    assert len(decisions(catalogue)) == len(json.loads(given.read_text())["decisions"])


def test_curate_writes_a_page_and_reads_its_picks(catalogue, tmp_path, capsys):
    page, given = tmp_path / "pick.html", tmp_path / "picks.json"
    main(["curate", str(catalogue), "--pick", str(page), "--target", "70"])
    assert f"{page}\n" in capsys.readouterr().out
    assert '"target": 70' in page.read_text()
    with Catalogue(catalogue) as cat:
        frame, film, pts = cat.db.execute(
            "SELECT r.id, f.content, r.pts FROM frames r JOIN films f ON f.id=r.film WHERE f.kind='film'"
        ).fetchone()
    decision = {"film": film, "pts": pts, "name": "", "keep": False}
    for who in ("eve", "no letter: \ud800"):
        given.write_text(json.dumps({"who": who, "decisions": [decision]}))
        assert main(["curate", str(catalogue), "--picks", str(given)]) == 0
        assert "frames 0 kept, 1 rejected" in capsys.readouterr().out
    assert decisions(catalogue) == [(frame, 0)]


def auc(scores: np.ndarray, good: np.ndarray) -> float:
    "The share of pairs (good, bad) that the scores put in order"
    return float((scores[good][:, None] > scores[~good]).mean())


# seconds of the clips in which scenery, or a character, fills the picture; what lies between is a title, a fade or both
SCENERY = {"big_buck_bunny_40s.mp4": [(2, 11.9), (12, 15.9), (32, 40)], "sintel_18s.mp4": [(5, 12.9)]}
CHARACTERS = {"big_buck_bunny_40s.mp4": [(16, 20.4)], "sintel_18s.mp4": [(0, 3.4), (3.5, 4.9), (13, 18)]}


@pytest.mark.skipif(not (WEIGHTS.is_file() and VIDEO.is_dir()), reason="no Inception weights and clips here")
def test_likeness_tells_scenery_from_characters(tmp_path, monkeypatch):
    "Scores of each passage by what was said about the others, with the real network on two real clips"
    monkeypatch.setenv("TOON2REAL_INCEPTION", str(WEIGHTS))
    path = tmp_path / "clips.sqlite"
    with Catalogue(path) as cat:
        cat.add(VIDEO, every=1, progress=False)
    picks = Picks(path)
    looked = Likeness(picks)
    looked.frames = picks.select("all")  # here every frame
    looked.start()
    looked._thread.join()
    assert looked.looking == ""
    table = picks.table(looked.frames)
    passage = np.full(len(table), -1)
    good = np.zeros(len(table), bool)
    passages = [(name, ends, True) for name in SCENERY for ends in SCENERY[name]]
    passages += [(name, ends, False) for name in CHARACTERS for ends in CHARACTERS[name]]
    for number, (name, ends, scenery) in enumerate(passages):
        inside = ((table.source == name) & table.time.between(*ends)).to_numpy()
        passage[inside], good[inside] = number, scenery
    features = np.stack([looked.features[frame] for frame in table.index])
    scores = np.zeros(len(table))
    for number in range(passage.max() + 1):
        own = np.where((passage >= 0) & (passage != number), np.where(good, 1.0, -1.0), 0.0)
        scores[passage == number] = likeness(features, own)[passage == number]
    found = auc(scores[passage >= 0], good[passage >= 0])
    print(f"AUC {found:.3f} on {(passage >= 0).sum()} frames of {passage.max() + 1} passages")
    assert found > 0.85

"The widgets in a real JupyterLab in a real Chromium"

import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.scenes import pairs
from toon2real.training import Trainer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    cartoons, photos = pairs(4, side=64)
    made = []
    for recipe in (cartoon2real, toon2real):
        tiny = recipe.tiny(width=8, blocks=1, epochs=3, decay_epochs=0)
        trainer = Trainer(tiny, cartoons, photos, run=folder / recipe.name, progress=False)
        made.append(trainer.fit().path)
    return made


def open_notebook(page, lab, name: str, *cells: str):
    "Write a notebook, open it in JupyterLab and run all its cells"
    url, folder = lab
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")
    page.goto(f"{url}/lab/tree/{name}.ipynb?reset")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()


def picture_of(image) -> str:
    return image.evaluate("node => node.src")


def keep_screenshot(page, name: str):
    "For looking at, where SCREENSHOTS names a folder"
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_epoch_stepper(lab, page, runs):
    cells = f"from toon2real.widgets import EpochStepper\nstepper = EpochStepper({[str(run) for run in runs]})\nstepper"
    open_notebook(page, lab, "stepper", cells)
    root = page.locator(".t2r-stepper")
    root.wait_for()
    rows = root.locator(".t2r-row img")
    page.wait_for_function(
        "[...document.querySelectorAll('.t2r-row img')].slice(1).every(i => i.dataset.epoch === '3')"
    )
    at_the_end = picture_of(rows.nth(1))

    root.focus()
    root.press("ArrowLeft")
    page.wait_for_function(
        "[...document.querySelectorAll('.t2r-row img')].slice(1).every(i => i.dataset.epoch === '2')"
    )
    assert picture_of(rows.nth(1)) != at_the_end
    assert root.locator(".t2r-told").inner_text() == "epoch 2 of 3"

    curve = root.locator(".t2r-curves")
    box = curve.bounding_box()
    curve.click(position={"x": box["width"] * 0.09, "y": box["height"] / 2})
    page.wait_for_function("document.querySelector('.t2r-row:nth-child(2) img').dataset.epoch === '0'")
    root.locator(".t2r-play").click()
    page.wait_for_function("document.querySelector('.t2r-told').textContent === 'epoch 3 of 3'")
    keep_screenshot(page, "epoch_stepper")


def test_compare_systems(lab, page, runs, tmp_path):
    cells = (
        "from toon2real.widgets import CompareSystems\nfrom toon2real.scenes import pairs\n"
        f"flat, real = pairs(3, side=64)\nCompareSystems({[str(run) for run in runs]}, flat, real)"
    )
    open_notebook(page, lab, "compare", cells)
    root = page.locator(".t2r-compare")
    root.wait_for()
    page.wait_for_function("[...document.querySelectorAll('.t2r-panels img')].every(i => i.dataset.image === '0')")
    assert root.locator(".t2r-panel").count() == 4
    assert "luma correlation" in root.locator(".t2r-measure").nth(1).inner_text()

    view = root.locator(".t2r-view").first
    view.hover()
    page.mouse.wheel(0, -300)
    root.focus()
    root.press("+")
    box = view.bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 60, steps=4)
    page.mouse.up()
    transforms = root.locator(".t2r-panels img").evaluate_all("nodes => nodes.map(node => node.style.transform)")
    assert len(set(transforms)) == 1
    assert "scale(1.8" in transforms[0]

    root.press("ArrowRight")
    page.wait_for_function("[...document.querySelectorAll('.t2r-panels img')].every(i => i.dataset.image === '1')")
    root.press("s")
    root.locator(".t2r-swiper").wait_for()
    keep_screenshot(page, "compare_systems")

    own = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(own)
    root.locator("input[type=file]").set_input_files(own)
    page.wait_for_function("[...document.querySelectorAll('.t2r-panels img')].every(i => i.dataset.image === '3')")
    assert own.name in root.locator(".t2r-told").inner_text()

    with page.expect_download() as download:
        root.get_by_role("button", name="Save this view as PNG").click()
    saved = tmp_path / "saved.png"
    download.value.save_as(saved)
    assert Image.open(saved).size == (4 * 326 - 6, 344)


STUDY = """
from pathlib import Path
from toon2real.scenes import pairs
from toon2real.widgets import HumanStudy, study_page
flat, real = pairs(4, side=64)
study = HumanStudy({{"upside down": flat[:, ::-1].copy(), "truth": real}}, flat, {out!r}, trials=12, participant="Ada")
study_page(study, {page!r}, participant="Eve")
study
"""


def test_human_study(lab, page, tmp_path):
    out, html = tmp_path / "answers.jsonl", tmp_path / "study.html"
    open_notebook(page, lab, "study", STUDY.format(out=str(out), page=str(html)))
    root = page.locator(".t2r-human")
    root.wait_for()
    page.wait_for_function("document.querySelector('.t2r-human').dataset.trial === '0'")
    keep_screenshot(page, "human_study")
    root.focus()
    root.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.t2r-human').dataset.trial === '1'")
    root.locator(".t2r-choice").nth(1).click()
    page.wait_for_function("document.querySelector('.t2r-human').dataset.trial === '2'")
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["chosen"] for answer in answers] == [answers[0]["left"], answers[1]["right"]]

    page.goto(html.as_uri())
    study = page.locator("#study")
    page.wait_for_function("document.querySelector('#study').dataset.trial === '0'")
    for number in range(12):
        page.wait_for_function(f"document.querySelector('#study').dataset.trial === '{number}'")
        study.press("ArrowRight")
    page.get_by_text("That was the last one").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    given = json.loads(Path(download.value.path()).read_text())
    assert (given["participant"], len(given["answers"])) == ("Eve", 12)

"The monitor of a training in a real JupyterLab in a real Chromium"

import os
from pathlib import Path

import pytest
from test_widgets import keep_picture, keep_screenshot, open_notebook

from toon2real.runs import Run

pytestmark = pytest.mark.browser

TRAINING = """
from toon2real import demo
from toon2real.scenes import pairs
from toon2real.training import Trainer
from toon2real.widgets import TrainingMonitor
cartoons, photos = pairs(20, side=64)
held = pairs(8, seed=900, side=64)
shipped = demo.runs()[-1]
recipe = shipped.recipe.replace(epochs=200, decay_epochs=0)
options = dict(val=held, evaluate_every=1, extractor="simple", init_from=shipped)
trainer = Trainer(recipe, cartoons, photos, run={run!r}, callbacks=[TrainingMonitor()], **options)
"""


def state_is(page, *states: str):
    page.wait_for_function(f"{list(states)}.includes(document.querySelector('.t2r-state')?.dataset.state)")


def step_of(page) -> int:
    return int(page.locator(".t2r-monitor").get_attribute("data-step"))


def test_training_monitor(lab, page, tmp_path):
    "Start in the background, see it move, look, stop, find the checkpoint, go on"
    folder = tmp_path / "<img src=x onerror=alert(1)>" / "toon2real"
    open_notebook(page, lab, "monitor", TRAINING.format(run=str(folder)), "handle = trainer.fit(background=True)")
    root = page.locator(".t2r-monitor")
    root.wait_for()
    state_is(page, "training")
    page.wait_for_function("document.querySelector('.t2r-newest img').naturalWidth > 0")
    page.wait_for_function("Number(document.querySelector('.t2r-monitor').dataset.step) > 3")
    page.wait_for_function("document.querySelectorAll('.t2r-losses polyline').length > 3")
    assert folder.name in root.locator("strong").inner_text()

    before = root.locator("figcaption").inner_text()
    root.get_by_role("button", name="Translate the samples").click()
    page.wait_for_function(f"document.querySelector('.t2r-newest figcaption').textContent !== {before!r}")
    if os.environ.get("SCREENSHOTS"):
        page.wait_for_function("document.querySelector('.t2r-judged').innerText.includes('epoch 2')")
        keep_picture(page, root, "training_monitor")

    root.get_by_role("button", name="Stop after").focus()
    page.keyboard.press("Enter")
    state_is(page, "stopped")
    stopped_at = step_of(page)
    run = Run(folder)
    assert run.checkpoint_steps[-1] == stopped_at < 4000
    assert run.progress["state"] == "stopped"
    assert f"Trainer.resume('{folder}'" in root.locator("p.t2r-help").inner_text()
    keep_screenshot(page, "monitor_stopped")

    root.get_by_role("button", name="Go on").click()
    state_is(page, "training")
    page.wait_for_function(f"Number(document.querySelector('.t2r-monitor').dataset.step) > {stopped_at + 3}")
    root.get_by_role("button", name="Stop after").click()
    state_is(page, "stopped")
    assert run.checkpoint_steps[-1] == step_of(page) > stopped_at


def test_training_monitor_while_a_cell_trains(lab, page, tmp_path):
    "In the foreground it shows what happens, and its buttons work or say why they do not"
    folder = tmp_path / "run"
    open_notebook(page, lab, "blocked", TRAINING.format(run=str(folder)), "trainer.fit()")
    root = page.locator(".t2r-monitor")
    root.wait_for()
    state_is(page, "training")
    page.wait_for_function("Number(document.querySelector('.t2r-monitor').dataset.step) > 3")
    button = root.get_by_role("button", name="Stop after")
    if button.is_enabled():
        button.click()
    else:
        page.wait_for_function("document.querySelector('.t2r-kernel').textContent.includes('fit(background=True)')")
        Run(folder).stop()
    state_is(page, "stopped")
    assert Run(folder).checkpoint_steps[-1] == step_of(page)
    assert Path(folder / "preview.jpg").exists()

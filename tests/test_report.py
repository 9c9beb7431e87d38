"The report page: whole, safe, honest about what is unequal or missing; and in a real browser"

import json
import re
import shlex
import shutil
from html import escape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from conftest import CHROMIUM

from toon2real import demo, experiment, figures
from toon2real import report as R
from toon2real.cli import main as command_line
from toon2real.cyclegan import CycleGANRecipe, cartoon2real, toon2real
from toon2real.experiment import compare
from toon2real.fid import UNTRANSLATED
from toon2real.runs import Run
from toon2real.scenes import write_scenes
from toon2real.training import Trainer

TINY = {"width": 4, "blocks": 1, "epochs": 2, "decay_epochs": 0}
EVIL = """<script>alert("1")</script>&'"""
TAG = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "Two judged runs of the same data"
    folder = tmp_path_factory.mktemp("report")
    for kind, n, seed in (("cartoon", 4, 0), ("photo", 4, 100), ("val_cartoon", 5, 200), ("val_photo", 8, 300)):
        write_scenes(folder / kind, n, kind.removeprefix("val_"), seed=seed, side=64)
    val = folder / "val_cartoon", folder / "val_photo"
    for recipe in (cartoon2real, toon2real):
        run = folder / "runs" / recipe.name
        small = recipe.tiny(**TINY)
        options = {"val": val, "weights_every": 1, "progress": False}
        trainer = Trainer(small, folder / "cartoon", folder / "photo", run=run, **options)
        experiment.judge_run(trainer.fit(), extractor="simple")
    return folder / "runs"


@pytest.fixture(scope="module")
def page(trained):
    return R.report(trained, trained.parent / "report.html", pictures=1, failures=2, extractor="simple")


@pytest.fixture
def copies(trained, tmp_path):
    "The runs, to be spoiled; `change(name, **about)` edits a run.json"
    shutil.copytree(trained, tmp_path / "runs")

    def change(name, **about):
        file = tmp_path / "runs" / name / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | about))

    return tmp_path / "runs", change


def about_of(run):
    return json.loads((run / "run.json").read_text())


class Outline(HTMLParser):
    "Which elements, whether they close in order, and what is addressed"

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.alts = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "srcset")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("img", "input", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())


def test_whole(page):
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.open == []
    assert outline.tags.count("h1") == 1 and outline.tags.count("section") == 5
    assert len(outline.ids) == len(set(outline.ids))
    assert all(outline.alts)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)
    assert not [link[:60] for link in outline.links if not link.startswith(("#", "data:"))]
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org)[a-z0-9-]+\.", without_pictures) and "@import" not in text
    assert all(url.startswith(("#", "data:")) for url in re.findall(r"url\(([^)]*)", text))
    assert page.stat().st_size < 2e6
    assert str(page.parent) not in text and "<details open" not in text


def test_same_page_twice(page, trained, tmp_path):
    again = R.report(trained, tmp_path / "again.html", pictures=1, failures=2, extractor="simple")
    assert again.read_bytes() == page.read_bytes()  # but for the date, should it be midnight
    assert [file.name for file in tmp_path.iterdir()] == ["again.html"]


def test_table_on_the_page_is_the_table(page, trained):
    text = page.read_text(encoding="utf-8")
    table = compare([Run(trained / name) for name in ("cartoon2real", "toon2real")], extractor="simple").table
    csv = unquote(re.search('data:text/csv;charset=utf-8,([^"]*)', text)[1])
    assert csv == table.to_csv()
    for value in experiment.printed(table)[table.attrs["metric"]]:
        assert f">{value}" in text
    assert escape(experiment.markdown(table)) in text and escape(experiment.latex(table)) in text


def test_verdict_table_legend_and_history_agree():
    "Of the shipped runs the last epoch alone is kept, and none is best there"
    cmp = compare(demo.runs(), extractor="simple", reps=0)
    verdict = R.Standing(cmp.table).against_input()
    assert verdict.startswith("At the best kept epochs, ")
    legend = [text.get_text() for text in figures.curves(cmp).legends[0].texts]
    for run, label, told in zip(cmp.runs, cmp.labels, legend[:-2], strict=True):  # then two lines of reference
        history = run.judged[run.metric]
        last = experiment.rounded(history.iloc[-1])
        assert experiment.printed(cmp.table).at[f"{label}, best kept = last", run.metric] == last
        assert f"{label} ({last})" in verdict
        best = f"best {experiment.rounded(history.min())} at epoch {history.idxmin()}"
        assert told == f"{label}: {best}, last {last}"


def test_the_best_of_the_systems_alone_is_marked(trained, tmp_path):
    cmp = compare(trained, extractor="simple", reps=0)
    systems = cmp.table.system.notna()
    cmp.table.loc[UNTRANSLATED, "precision"] = 0.5
    cmp.table.loc[systems, "precision"] = [0.5, *[0.25] * (systems.sum() - 1)]
    text = R.report(cmp, tmp_path / "x.html", pictures=1, failures=0).read_text(encoding="utf-8")
    rows = re.findall(r'<tr class="(run|reference)">(.*?)</tr>', text, re.S)
    assert {kind for kind, row in rows if '<td class="best">0.500' in row} == {"run"}


def test_names_are_escaped(copies):
    folder, change = copies
    recipe = about_of(folder / "toon2real")["recipe"]
    environment = about_of(folder / "toon2real")["environment"] | {"device": EVIL, "commit": EVIL}
    change("toon2real", recipe=recipe | {"name": EVIL}, environment=environment, command=["toon2real", "train", TAG])
    run = folder / TAG
    (folder / "toon2real").rename(run)
    change("cartoon2real", recipe=about_of(folder / "cartoon2real")["recipe"] | {"name": TAG})
    runs = [folder / "cartoon2real", run]
    options = {"title": EVIL, "note": EVIL, "pictures": 1, "failures": 1, "extractor": "simple"}
    text = R.report(runs, folder / "x.html", **options).read_text(encoding="utf-8")
    assert "alert(" in text and "<script>alert" not in text and "<img src=x" not in text
    outline = Outline(text)
    assert outline.open == [] and outline.tags.count("script") == 2
    assert escape(shlex.quote(f".../{folder.name}/{TAG}"), quote=False).replace("'", "&#39;") in text


@pytest.mark.parametrize("what", ["judge", "pairs", "seed"])
def test_unequal_runs_are_told(copies, what):
    folder, change = copies
    about = about_of(folder / "toon2real")
    if what == "judge":
        about["judge"]["n"] = 99
        said = "Different judges while they trained."
    if what == "seed":
        about["recipe"]["seed"] = 3
        said = "Different seeds. Cartoon-to-real: 0; toon2real: 3."
    if what == "pairs":
        history = Run(folder / "toon2real").history
        history.loc[history.index[-1], "pairs"] += 1
        history.to_csv(folder / "toon2real" / "history.csv", index=False)
        said = "Different numbers of pairs seen. Cartoon-to-real: 8; toon2real: 9."
    change("toon2real", **about)
    assert [note[: len(said)] for note in compare(folder).notes] == [said]
    if what == "pairs":
        assert compare(folder, until=1).notes == []


def test_runs_of_different_sides_leave_a_good_page_as_it_is(copies, capsys):
    folder, change = copies
    page = folder.parent / "report.html"
    page.write_text(f'<meta {R.MARK} 0.1">')
    change("toon2real", recipe=about_of(folder / "toon2real")["recipe"] | {"side": 68})
    assert command_line(["report", str(folder), "--extractor", "simple", "--out", str(page.parent)]) == 1
    told = capsys.readouterr().err
    assert f"{folder / 'cartoon2real'} has 64 px" in told and f"{folder / 'toon2real'} has 68 px" in told
    assert R.MARK in page.read_text() and not (folder.parent / "figures").exists()


def test_a_page_of_unequal_runs(copies):
    folder, change = copies
    about = about_of(folder / "toon2real")
    about["data"]["photo"]["hash"] = "sha256:" + "0" * 64
    change("toon2real", **about)
    page = R.report(folder, folder.parent / "x.html", pictures=1, failures=0, extractor="simple")
    text = page.read_text(encoding="utf-8")
    for sentence in (
        "Different training photographs, by content hash. Cartoon-to-real: ",
        "Their rows cannot be compared",
        "so this order says little",
        "The runs were given different pictures",
    ):
        assert sentence in text, sentence
    assert "apart by more than" not in text and "is not settled" not in text


def test_unfinished_unjudged_unseen(copies, tmp_path):
    "A run cut off, never judged, without held-out pictures, samples or weights: a page, and what is missing"
    folder, _ = copies
    run = folder / "toon2real"
    about = about_of(run)
    del about["judge"], about["data"]["val_cartoon"], about["data"]["val_photo"]
    (run / "run.json").write_text(json.dumps(about))
    for part in ("samples", "weights", "checkpoints"):
        shutil.rmtree(run / part)
    Run(run).history[["epoch", "step", "pairs", "seconds", "lr"]].iloc[:1].to_csv(run / "history.csv", index=False)
    text = R.report(run, tmp_path / "x.html", failures=1, extractor="simple").read_text(encoding="utf-8")
    for sentence in (
        "toon2real has 1 of 2 epochs",
        "toon2real train --resume .../runs/toon2real",
        "was never judged",
        "toon2real evaluate .../runs/toon2real",
        "no pictures held out",
        "There is no table",
        "there are no curves",
        "No run has samples yet",
    ):
        assert sentence in text, sentence
    assert Outline(text).open == []


def test_pictures_given(trained, copies, tmp_path):
    "Held-out pictures are given, as the command line does it"
    folder, change = copies
    about = about_of(folder / "toon2real")
    for kind in ("val_cartoon", "val_photo"):
        del about["data"][kind]
    change("toon2real", **about)
    given = {"cartoon": trained.parent / "val_cartoon", "photo": trained.parent / "val_photo"}
    cmp = compare([folder / "toon2real"], extractor="simple", reps=0, until=1, **given)
    text = R.report(cmp, tmp_path / "x.html", failures=1).read_text(encoding="utf-8")
    for words in ("held-out</span> pictures", "trained on 4 pairs", "1 of 2"):
        assert words in text, words
    assert "no pictures held out" not in text and "because" not in text


def test_an_old_run_says_not_recorded(copies):
    folder, _ = copies
    about = about_of(folder / "toon2real") | {"options": {}}
    del about["environment"]
    (folder / "toon2real" / "run.json").write_text(json.dumps(about))
    text = R.report(folder / "toon2real", folder / "x.html", failures=0, extractor="simple").read_text(encoding="utf-8")
    assert "not recorded" in text
    assert R.command(Run(folder / "toon2real")).startswith("Trainer(")


def test_the_line_of_python_trains_the_same_recipe(trained):
    made = []

    class Recorder:
        def __init__(self, recipe, cartoon, photo, **options):
            made.append((recipe, cartoon, photo, options))

        def fit(self):
            pass

    for run in map(Run, sorted(trained.iterdir())):
        eval(R.command(run), {"Trainer": Recorder, "CycleGANRecipe": CycleGANRecipe})
        recipe, cartoon, photo, options = made[-1]
        data = run.about["data"]
        assert recipe == run.recipe
        assert (cartoon, photo) == (data["cartoon"]["source"], data["photo"]["source"])
        assert options["val"] == (data["val_cartoon"]["source"], data["val_photo"]["source"])
        assert options["weights_every"] == 1


def test_the_recorded_command_is_printed_as_a_shell_reads_it(copies):
    folder, change = copies
    words = ["toon2real", "train", "--cartoon", "my films --val", "--photo", "b;c", "toon2real", "--width", "8"]
    change("toon2real", command=words)
    command = R.command(Run(folder / "toon2real"))
    assert shlex.split(command.replace("\\\n", "")) == words  # a shell joins lines at the backslash


def test_the_page_names_what_it_was_made_with(trained, tmp_path):
    given = {"cartoon": trained.parent / "val_cartoon", "photo": trained.parent / "val_photo", "seed": 3}
    told = R.report(trained, tmp_path / "report.html", pictures=1, failures=0, extractor="simple", **given).read_text()
    for words in (r"--cartoon \S*val_cartoon", r"--photo \S*val_photo", "--seed 3"):
        assert re.search(words, told)


def test_the_page_says_whose_best_epoch_another_judge_chose(copies):
    folder, change = copies
    judge = about_of(folder / "toon2real")["judge"] | {"extractor": "Inception(768)"}
    change("toon2real", judge=judge)
    told = R.report(folder, folder.parent / "report.html", pictures=1, failures=0, extractor="simple").read_text()
    assert "toon2real: its best epoch was chosen by another judge (Inception(768), N = " in told


def test_stills_are_counted_where_a_manifest_tells_them(page, copies):
    folder, change = copies
    assert ">stills<" not in page.read_text()
    data = about_of(folder / "toon2real")["data"]
    data["photo"]["stills"] = 2
    for run in folder.iterdir():
        change(run.name, data=data)
    told = R.report(folder, folder.parent / "report.html", pictures=1, failures=0, extractor="simple").read_text()
    assert ">stills<" in told


@pytest.fixture(scope="module")
def browser():
    "A Chromium, or a skip"
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        except sync_api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


def visit(browser, file, **options):
    "The page from its file, without a network: a context, its page, what was complained of, what was asked for"
    context = browser.new_context(offline=True, **options)
    page, bad, asked = context.new_page(), [], []
    page.on("console", lambda message: bad.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: bad.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
    page.goto(file.as_uri())
    return context, page, bad, asked


def colour_of(page, selector, what="color"):
    return page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}")


@pytest.mark.browser
def test_browser_slider(browser, page):
    context, tab, bad, _ = visit(browser, page, viewport={"width": 1280, "height": 900})

    def shown():
        return tab.eval_on_selector_all("img[data-run]", "xs => xs.map(x => x.src)")

    last = shown()
    assert tab.inner_text("output") == "after epoch 2" and tab.is_visible(".slider")
    assert tab.evaluate("document.querySelector('.film').matches(':not(.more)')")  # all pictures fit, so none fades
    tab.focus("input[type=range]")
    tab.keyboard.press("Home")
    assert tab.inner_text("output") == "before training"
    assert tab.get_attribute("input[type=range]", "aria-valuetext") == "before training"
    assert all(now != then for now, then in zip(shown(), last, strict=True))
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("output") == "after epoch 1"
    tab.click(".play")
    tab.wait_for_function("document.querySelector('output').textContent === 'after epoch 2'")
    assert shown() == last and not bad
    context.close()


@pytest.mark.browser
def test_browser_theme(browser, page):
    context, tab, bad, asked = visit(browser, page, viewport={"width": 1280, "height": 900}, color_scheme="light")
    light, ink = colour_of(tab, "body", "backgroundColor"), colour_of(tab, ".plot svg text", "fill")
    tab.click("#theme")
    assert colour_of(tab, "body", "backgroundColor") != light and tab.inner_text("#theme") == "Light"
    assert colour_of(tab, ".plot svg text", "fill") != ink  # plots follow
    tab.click("#theme")
    assert colour_of(tab, "body", "backgroundColor") == light
    tab.click("text=LaTeX")
    assert tab.is_visible("text=\\toprule")
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    assert not bad and asked == [page.as_uri()], (bad, asked)
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_narrow(browser, page, scheme):
    "Nothing sticks out at 380 px, and muted text stands out from the ground by 4.5 to 1 (WCAG AA)"
    context, tab, bad, _ = visit(browser, page, viewport={"width": 380, "height": 800}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 380

    def luminance(selector, what):
        levels = [int(level) / 255 for level in re.findall(r"\d+", colour_of(tab, selector, what))[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
        return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    ground = luminance("body", "backgroundColor")
    for selector in ("body", ".over", "a[download]", "figcaption"):
        dark, bright = sorted((luminance(selector, "color"), ground))
        assert (bright + 0.05) / (dark + 0.05) > 4.5, selector
    assert not bad
    context.close()


@pytest.mark.browser
def test_browser_without_javascript(browser, page):
    context, tab, _, _ = visit(browser, page, java_script_enabled=False)
    assert tab.locator(".slider").is_hidden() and tab.locator("#theme").is_hidden()
    assert tab.locator("img[data-run]").count() == 2 and "epoch 2" in tab.inner_text(".film")
    context.close()

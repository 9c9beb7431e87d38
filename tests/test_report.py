"The report page: whole, safe, honest about what is unequal or missing; and in a real browser"
import base64, json, os, re, shlex, shutil
from html.parser import HTMLParser
import pytest
from toon2real import experiment, report as R
from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.runs import Run
from toon2real.scenes import write_scenes
from toon2real.training import Trainer

TINY = dict(width=4, blocks=1, epochs=2, decay_epochs=0)
EVIL = """<script>alert("1")</script>&'"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "Two judged runs of the same data"
    d = tmp_path_factory.mktemp("report")
    for kind, n, seed in (("cartoon", 4, 0), ("photo", 4, 100), ("val_cartoon", 5, 200), ("val_photo", 8, 300)): write_scenes(d/kind, n, kind.removeprefix("val_"), seed=seed, side=64)
    for r in (cartoon2real, toon2real):
        run = Trainer(r.tiny(**TINY), d/"cartoon", d/"photo", run=d/"runs"/r.name, val=(d/"val_cartoon", d/"val_photo"), weights_every=1, progress=False).fit()
        experiment.judge_run(run, extractor="simple")
    return d/"runs"


@pytest.fixture(scope="module")
def page(trained): return R.report(trained, trained.parent/"report.html", pictures=1, failures=2, extractor="simple")


@pytest.fixture
def copies(trained, tmp_path):
    "The runs, to be spoiled; `change(name, **about)` edits a run.json"
    shutil.copytree(trained, tmp_path/"runs")
    def change(name, **about): (p := tmp_path/"runs"/name/"run.json").write_text(json.dumps(json.loads(p.read_text()) | about))
    return tmp_path/"runs", change


class Outline(HTMLParser):
    "Which elements, whether they close in order, and what is addressed"
    def __init__(self, text): super().__init__(); self.open, self.tags, self.ids, self.links, self.alts = [], [], [], [], []; self.feed(text); self.close()
    def handle_starttag(self, tag, attrs):
        a = dict(attrs); self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "srcset")]; self.ids += [a["id"]] if "id" in a else []; self.alts += [a.get("alt")] if tag == "img" else []
        if tag not in ("img", "input", "meta"): self.open.append(tag)
    def handle_startendtag(self, tag, attrs): self.handle_starttag(tag, attrs); self.open.pop()
    def handle_endtag(self, tag): assert self.open.pop() == tag, (tag, self.getpos())


def test_whole(page):
    text = page.read_text(encoding="utf-8")
    o = Outline(text)
    assert o.open == [] and o.tags.count("h1") == 1 and o.tags.count("section") == 5 and len(o.ids) == len(set(o.ids))
    assert all(o.alts) and {l[1:] for l in o.links if l.startswith("#")} <= set(o.ids)
    assert all(l.startswith(("#", "data:")) for l in o.links), [l[:60] for l in o.links if not l.startswith(("#", "data:"))]
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org)[a-z0-9-]+\.", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)) and "@import" not in text
    assert all(m.startswith(("#", "data:")) for m in re.findall(r"url\(([^)]*)", text))
    assert page.stat().st_size < 2e6


def test_same_page_twice(page, trained, tmp_path):
    again = R.report(trained, tmp_path/"again.html", pictures=1, failures=2, extractor="simple")
    assert again.read_bytes() == page.read_bytes()      # but for the date, should it be midnight
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_table_on_the_page_is_the_table(page, trained):
    text, table = page.read_text(encoding="utf-8"), experiment.compare([Run(trained/n) for n in ("cartoon2real", "toon2real")], extractor="simple").table
    csv = base64.b64decode(re.search("data:text/csv;base64,([^\"]*)", text)[1]).decode()
    assert csv == table.to_csv()
    for v in table[table.attrs["metric"]]: assert R.number(v, table[table.attrs["metric"]]) in text
    assert R.join(experiment.markdown(table)) in text and R.join(experiment.latex(table)) in text


def test_names_are_escaped(copies):
    folder, change = copies
    recipe = json.loads((folder/"toon2real"/"run.json").read_text())["recipe"]
    change("toon2real", recipe=recipe | dict(name=EVIL), environment=dict(device=EVIL, commit=EVIL))
    run = folder/"a <b> & 'c'"
    (folder/"toon2real").rename(run)
    text = R.report([folder/"cartoon2real", run], folder/"x.html", title=EVIL, note=EVIL, pictures=1, failures=0, extractor="simple").read_text(encoding="utf-8")
    assert "alert(" in text and "<script>alert" not in text and "<b>" not in text
    o = Outline(text); assert o.open == [] and o.tags.count("script") == 2
    assert shlex.quote(str(run)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text


@pytest.mark.parametrize("what", ["judge", "side", "pairs", "seed"])
def test_unequal_runs_are_told(copies, what):
    folder, change = copies
    about = json.loads((folder/"toon2real"/"run.json").read_text())
    if what == "judge": about["judge"]["n"] = 99; said = "Different judges while they trained."
    if what == "side": about["recipe"]["side"] = 68; said = "Different crop sizes. Cartoon-to-real: 64 px; toon2real: 68 px."
    if what == "seed": about["recipe"]["seed"] = 3; said = "Different seeds. Cartoon-to-real: 0; toon2real: 3."
    if what == "pairs":
        h = Run(folder/"toon2real").history; h.loc[h.index[-1], "pairs"] += 1; h.to_csv(folder/"toon2real"/"history.csv", index=False); said = "Different numbers of pairs seen. Cartoon-to-real: 8; toon2real: 9."
    change("toon2real", **about)
    runs = R.open_runs(folder)
    assert [d[:len(said)] for d in R.differences(runs)] == [said]
    if what == "pairs": assert R.differences(runs, until=1) == []


def test_a_page_of_unequal_runs(copies):
    folder, change = copies
    about = json.loads((folder/"toon2real"/"run.json").read_text())
    about["data"]["photo"]["hash"] = "sha256:" + "0"*64
    change("toon2real", **about)
    text = R.report(folder, folder.parent/"x.html", pictures=1, failures=0, extractor="simple").read_text(encoding="utf-8")
    for s in ("Different training photographs, by content hash. Cartoon-to-real: ", "Their rows cannot be compared", "so this order says little", "The runs were given different pictures"): assert s in text, s
    assert "apart by more than" not in text and "is not settled" not in text


def test_unfinished_unjudged_unseen(copies, tmp_path):
    "A run cut off, never judged, without held-out pictures, samples or weights: a page all the same, with what is missing and the command"
    folder, change = copies
    run = folder/"toon2real"
    about = json.loads((run/"run.json").read_text()); del about["judge"]
    for k in ("val_cartoon", "val_photo"): del about["data"][k]
    (run/"run.json").write_text(json.dumps(about))
    for d in ("samples", "weights", "checkpoints"): shutil.rmtree(run/d)
    Run(run).history[["epoch", "step", "pairs", "seconds", "lr"]].iloc[:1].to_csv(run/"history.csv", index=False)
    text = R.report(run, tmp_path/"x.html", failures=1, extractor="simple").read_text(encoding="utf-8")
    for s in ("toon2real has 1 of 2 epochs.", f"toon2real train --resume {run}", "was never judged", f"toon2real evaluate {run}", "no pictures held out", "There is no table", "there are no curves", "No run has kept sheets"):
        assert s in text, s
    assert Outline(text).open == []


def test_pictures_given(trained, copies, tmp_path):
    "As the command line does it: the table is made elsewhere, held-out pictures are given"
    folder, change = copies
    about = json.loads((folder/"toon2real"/"run.json").read_text())
    for k in ("val_cartoon", "val_photo"): del about["data"][k]
    change("toon2real", **about)
    run, given = Run(folder/"toon2real"), dict(cartoon=trained.parent/"val_cartoon", photo=trained.parent/"val_photo")
    table = experiment.compare([run], extractor="simple", reps=0, until=1, **given).table
    text = R.report([run], tmp_path/"x.html", table=table, failures=1, extractor="simple", **given).read_text(encoding="utf-8")
    assert "held-out</span> pictures" in text and "no pictures held out" not in text and "trained on 4 pairs" in text and "1 of 2" in text and "because" not in text


def test_an_old_run_says_not_recorded(copies):
    folder, change = copies
    change("toon2real", environment={}, options={})
    assert "not recorded" in R.machine_table([Run(folder/"toon2real")]) and R.command(Run(folder/"toon2real")).startswith("toon2real train")


def test_the_command_trains_the_same_recipe(trained):
    "What the page prints is what the command line understands"
    import tyro
    from toon2real.cli import train_class
    for run in map(Run, sorted(trained.iterdir())):
        words = shlex.split(R.command(run).replace("\\\n", " "))     # as a shell reads it
        made = tyro.cli(train_class(), args=words[2:])
        assert words[:2] == ["toon2real", "train"] and made.recipe == run.recipe and str(made.cartoon) == run.about["data"]["cartoon"]["source"] and made.options.weights_every in (None, 1)


@pytest.fixture(scope="module")
def browser():
    "A Chromium, or a skip"
    sync_api = pytest.importorskip("playwright.sync_api")
    exe = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as pw:
        try: b = pw.chromium.launch(executable_path=exe, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"])
        except sync_api.Error as e: pytest.skip(f"no browser: {str(e).splitlines()[0]}")
        yield b
        b.close()


def visit(browser, page, **kw):
    "The page from its file, without a network: a context, its page, what was complained of, what was asked for"
    c = browser.new_context(offline=True, **kw)
    p, bad, asked = c.new_page(), [], []
    p.on("console", lambda m: bad.append(m.text) if m.type in ("error", "warning") else None); p.on("pageerror", lambda e: bad.append(str(e)))
    p.on("request", lambda r: asked.append(r.url) if not r.url.startswith("data:") else None)
    p.goto(page.as_uri())
    return c, p, bad, asked


@pytest.mark.browser
def test_browser(browser, page):
    c, p, bad, asked = visit(browser, page, viewport=dict(width=1280, height=900), color_scheme="light")
    shown = lambda: p.eval_on_selector_all("img[data-run]", "xs => xs.map(x => x.src)")
    background = lambda: p.evaluate("getComputedStyle(document.body).backgroundColor")
    last, said = shown(), p.inner_text("output")
    assert said == "after epoch 2" and p.is_visible(".slider")
    p.focus("input[type=range]"); p.keyboard.press("Home")                          # by keyboard
    assert p.inner_text("output") == "before training" and all(a != b for a, b in zip(shown(), last)) and p.get_attribute("input[type=range]", "aria-valuetext") == "before training"
    p.keyboard.press("ArrowRight"); assert p.inner_text("output") == "after epoch 1"
    p.click(".play"); p.wait_for_function("document.querySelector('output').textContent === 'after epoch 2'"); assert shown() == last
    light = background()
    p.click("#theme"); assert background() != light and p.inner_text("#theme") == "Light"
    ink = p.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill")
    p.click("#theme"); assert background() == light and p.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill") != ink   # plots follow
    p.click("text=LaTeX"); assert p.is_visible("text=\\toprule")
    assert p.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)") and not bad and asked == [page.as_uri()], (bad, asked)
    c.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_narrow(browser, page, scheme):
    "Nothing sticks out at 380 px, and muted text stands out from the ground by 4.5 to 1 (WCAG AA)"
    c, p, bad, _ = visit(browser, page, viewport=dict(width=380, height=800), color_scheme=scheme)
    assert p.evaluate("document.documentElement.scrollWidth") <= 380
    def luminance(selector, what):
        rgb = [int(x)/255 for x in re.findall(r"\d+", p.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}"))[:3]]
        return sum(w*(x/12.92 if x <= .04045 else ((x + .055)/1.055)**2.4) for w, x in zip((.2126, .7152, .0722), rgb))
    ground = luminance("body", "backgroundColor")
    for s in ("body", ".over", "a[download]", "figcaption"):
        a, b = sorted((luminance(s, "color"), ground)); assert (b + .05)/(a + .05) > 4.5, s
    assert not bad; c.close()


@pytest.mark.browser
def test_browser_without_javascript(browser, page):
    c, p, _, _ = visit(browser, page, java_script_enabled=False)
    assert p.locator(".slider").is_hidden() and p.locator("#theme").is_hidden() and p.locator("img[data-run]").count() == 2 and "epoch 2" in p.inner_text(".film")
    c.close()

"Figures: files that open, pixels that repeat, crops inside, texts that neither overlap nor leave the page"

import io
import json
import shutil
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from toon2real.architecture import COLUMN, INK, PAGE, architecture, save
from toon2real.cli import main as command_line
from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.discriminator import PatchGAN
from toon2real.experiment import COLOURS
from toon2real.experiment import compare as gather
from toon2real.figures import busiest, comparison, curves, failures, paper_figures, plane, realism, roughness, teaser
from toon2real.generator import Generator, convolutions, layers
from toon2real.runs import Run
from toon2real.scenes import write_scenes
from toon2real.training import Trainer
from toon2real.unit import Decoder, Encoder, MultiScaleDiscriminator, unit
from toon2real.weights import RunError, translate_all


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "Three runs of untrained systems, judged as if they had trained for two epochs"
    d, out = tmp_path_factory.mktemp("figures"), []
    for i, name in enumerate(("cartoon", "photo", "val/cartoon", "val/photo")):
        write_scenes(d / name, 9, name.split("/")[-1], seed=100 * i, side=64)
    for r in (toon2real, cartoon2real, unit):
        t = Trainer(
            r.tiny(width=2, blocks=1),
            d / "cartoon",
            d / "photo",
            run=d / r.name,
            val=(d / "val/cartoon", d / "val/photo"),
            evaluate_every=1,
            extractor="simple",
            progress=False,
        )
        for epoch in (1, 2):
            t.run.add_row(
                dict(epoch=epoch, step=9 * epoch, pairs=9 * epoch, seconds=1.0)
                | t.judge(translate_all(t.system.eval(), t.val[0].images))
            )
            t.run.save_epoch(epoch, t.system)
            with torch.no_grad():
                [p.mul_(1.5) for p in t.system.parameters()]
        out.append(t.run)
    return out


def compare(runs, **kwargs):
    "By the simple features"
    return gather(runs, extractor="simple", **kwargs)


def copy_of(run, path, seed=None, **about):
    "A run beside another, with another seed or judge"
    shutil.copytree(run.path, path)
    a = json.loads((path / "run.json").read_text())
    if seed is not None:
        a["recipe"]["seed"] = seed
    (path / "run.json").write_text(json.dumps({k: v for k, v in (a | about).items() if v is not None}))
    return Run(path)


def history(run, **columns):
    pd.DataFrame(columns).to_csv(run.path / "history.csv", index=False)
    return run


def pixels(fig, dpi=60):
    fig.savefig(b := io.BytesIO(), format="png", dpi=dpi)
    return np.asarray(Image.open(b).convert("RGB"))


def boxes(fig):
    "(text, its rectangle in pixels) of all that is written"
    fig.draw_without_rendering()
    ticks = {
        t.label1: ax.axison and t in axis._update_ticks()
        for ax in fig.axes
        for axis in (ax.xaxis, ax.yaxis)
        for t in axis.get_major_ticks()
    }  # matplotlib keeps ticks outside the view
    found = [
        t for t in fig.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip() and ticks.get(t, True)
    ]
    return [(t.get_text(), t.get_window_extent()) for t in found]


def assert_legible(fig):
    (W, H), all_ = fig.get_size_inches() * fig.dpi, boxes(fig)
    for s, b in all_:
        assert b.x0 >= -1 and b.y0 >= -1 and b.x1 <= W + 1 and b.y1 <= H + 1, f"{s!r} leaves the page: {b} of {W} x {H}"
    for i, (s, a) in enumerate(all_):
        for t, b in all_[:i]:
            across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 1 or up <= 1.5 * fig.dpi / 72, (
                f"{s!r} and {t!r} overlap by {across:.1f} x {up:.1f} pixels"
            )  # boxes of text hold its descenders: 1.5 points


# --- files


@pytest.mark.parametrize("transparent", [False, True])
def test_save(runs, tmp_path, transparent):
    fig = curves(compare(runs))
    if transparent:
        fig.savefig(tmp_path / "c.svg", transparent=True)
        assert INK in (tmp_path / "c.svg").read_text() and COLOURS["unit"] in (tmp_path / "c.svg").read_text()
        return
    png, pdf = save(fig, tmp_path / "deep" / "figure4.png")
    assert (png.name, pdf.name) == ("figure4.png", "figure4.pdf")
    with Image.open(png) as im:
        im.load()
        assert (
            abs(im.width / 300 - COLUMN) < 0.01
            and round(im.info["dpi"][0]) == 300
            and "roughness" in im.text["Description"]
        )
    data = pdf.read_bytes()
    assert (
        data.startswith(b"%PDF-")
        and data.rstrip().endswith(b"%%EOF")
        and b"/Type3" not in data
        and b"/FontFile2" in data
    )  # type 42: whole TrueType fonts
    again = save(curves(compare(runs)), tmp_path / "again")
    assert [p.read_bytes() for p in again] == [png.read_bytes(), data]
    assert save(fig, tmp_path / "v1.2")[0].name == "v1.2.png"


def test_paper_figures(runs, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = paper_figures(compare([r.path for r in runs]), tmp_path)
    assert [p.stem for p in paths] == [
        n for n in ("figure1", "figure2", "figure3", "figure4", "figure5", "plane") for _ in "12"
    ]
    assert all(p.stat().st_size > 4000 for p in paths)
    never = copy_of(runs[0], tmp_path / "never", judge=None)
    monkeypatch.setattr("toon2real.figures.save", lambda fig, path: [path])
    with pytest.warns(UserWarning) as told:
        paths = paper_figures(compare(never), tmp_path / "some")
    assert {p.name for p in paths} == {"figure1", "figure2", "figure3", "figure5"}
    assert sorted(str(w.message).split(":")[0] for w in told) == ["figure4 was not made", "plane was not made"] and all(
        f"toon2real evaluate {never.path}" in str(w.message) for w in told
    )


# --- what stays as it was


def test_leaves_the_world_alone(runs):
    net, before, state = runs[0].recipe.build().D_r.train(), dict(matplotlib.rcParams), torch.random.get_rng_state()
    weights, noise = {k: v.clone() for k, v in net.state_dict().items()}, np.random.get_state()[1].copy()
    architecture(net)
    curves(compare(runs))
    comparison(compare(runs), n=1)
    failures(realism(compare(runs)), n=2)
    assert dict(matplotlib.rcParams) == before
    assert torch.equal(torch.random.get_rng_state(), state) and (np.random.get_state()[1] == noise).all()
    assert (
        net.training
        and all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
        and not any(m._forward_hooks for m in net.modules())
    )


def test_style_is_its_own(runs):
    a = pixels(plane(compare(runs)))
    with matplotlib.rc_context(
        {
            "font.size": 30,
            "axes.facecolor": "red",
            "text.color": "red",
            "axes.labelcolor": "red",
            "font.family": "serif",
        }
    ):
        b = plane(compare(runs))
    assert a.shape == pixels(b).shape


# --- pictures


def test_same_seed_same_pixels(runs):
    a, b, c = (pixels(comparison(compare(runs, seed=s), n=2)) for s in (0, 0, 1))
    assert (a == b).all() and a.shape == c.shape and (a != c).any()


@pytest.mark.parametrize("crop", [None, 1, 8, 64])
def test_crops_lie_inside(runs, crop):
    fig = comparison(compare(runs[:2]), n=3, crop=crop)
    assert len(fig.axes) == 3 * 3
    for ax in fig.axes:
        (whole, close), box = ax.images, ax.patches[0]
        (x, y), s = box.get_xy(), box.get_width()
        assert isinstance(box, Rectangle) and 0 <= x <= 64 - s and 0 <= y <= 64 - s
        assert close.get_array().shape == (s, s, 3) and close.get_interpolation() == "nearest"
        assert (close.get_array() == whole.get_array()[y : y + s, x : x + s]).all()


@pytest.mark.parametrize("crop", [65, -1])
def test_crops_outside_are_refused(runs, crop):
    with pytest.raises(ValueError, match="but it must be from 1 to 64"):
        comparison(compare(runs[0]), n=1, crop=crop)


@pytest.mark.parametrize("seed", range(5))
def test_busiest_is_the_busiest(seed):
    g = np.random.default_rng(seed)
    im, size = g.integers(0, 256, (17, 23, 3), dtype=np.uint8), int(g.integers(2, 17))
    y = im @ np.array([0.299, 0.587, 0.114])

    def energy(a, b):
        w = y[b : b + size, a : a + size]
        return (
            (np.diff(y[max(b - 1, 0) : b + size, a : a + size], axis=0) ** 2).sum()
            + (np.diff(y[b : b + size, max(a - 1, 0) : a + size], axis=1) ** 2).sum()
            if w.size
            else 0
        )

    best = max(energy(a, b) for a in range(23 - size + 1) for b in range(17 - size + 1))
    assert np.isclose(energy(*busiest(im, size)), best)


def test_worst_and_best(runs):
    cmp = compare(runs, seed=3)
    r = realism(cmp, runs[0], images=7)
    assert (
        len(r.distance) == 7
        and "7 validation cartoons, seed 3" in r.about
        and "simple features" in r.about
        and "3 nearest" in r.about
    )
    fig = failures(r, n=2)
    for ax, i in zip(fig.axes[:2], np.argsort(-r.distance)):
        assert (ax.images[0].get_array() == r.input[i]).all()
    for ax, i in zip(fig.axes[4:], np.argsort(-r.distance)):
        assert (ax.images[0].get_array() == r.nearest[i]).all()
    assert (teaser(r).axes[1].images[0].get_array() == r.output[r.distance.argmin()]).all()


def test_other_held_out_pictures_are_told(runs, tmp_path):
    data = runs[1].about["data"]
    changed = data["val_cartoon"] | {"hash": "x"}
    other = copy_of(runs[1], tmp_path / "other", data=data | {"val_cartoon": changed})
    assert compare([runs[0], runs[1]]).notes == []
    (note,) = compare([runs[0], other]).notes
    assert note.startswith("Different held-out cartoons, by content hash. Cartoon-to-real: x; toon2real: ")


# --- architecture

NETS = {
    "G": lambda: Generator(4),
    "G9": lambda: Generator(64, 9),
    "in": lambda: PatchGAN(4, "in"),
    "sn": lambda: PatchGAN(4, "sn"),
    "sn+in": lambda: PatchGAN(64, "sn+in"),
    "E": lambda: Encoder(4),
    "H": lambda: Decoder(4, 2),
    "D3": lambda: MultiScaleDiscriminator(64),
}


@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize("name", NETS)
def test_layers_are_the_network(name, side):
    net = NETS[name]()
    ls, convs = layers(net, side), convolutions(net)
    assert sum(one.parameters for one in ls) == sum(p.numel() for p in net.parameters())
    assert [(one.k, one.stride, one.shape[0]) for one in ls] == [
        (c.kernel_size[0], c.stride[0], c.out_channels) for c in convs
    ]
    assert all(("SN" in one.after) == ("sn" in getattr(net, "norm", "")) for one in ls)
    x = torch.zeros(1, convs[0].in_channels, *[side if convs[0].in_channels == 3 else side // 4] * 2)
    if side == 64 and net.width < 64 if hasattr(net, "width") else side == 64:
        with torch.no_grad():
            out = net.eval()(x)
        assert ls[-1].shape == tuple((out if torch.is_tensor(out) else out[-1]).shape[1:])
    fig = architecture(net, side)
    assert fig.get_figwidth() == PAGE and fig.get_figheight() < 9
    assert_legible(fig)
    said = [s for s, _ in boxes(fig)]
    for one in ls:
        assert f"k{one.k} s{one.s}" in said and f"{one.shape[0]} × {one.shape[1]}²" in said


@pytest.mark.parametrize("recipe", [toon2real, cartoon2real, unit])
def test_architecture_of_systems(recipe):
    fig = architecture(recipe.tiny(width=4).build())
    assert_legible(fig)
    said = " ".join(s for s, _ in boxes(fig))
    assert ("SN: spectral norm" in said) == (recipe is toon2real) and ("layer norm" in said) == (recipe is unit)


# --- curves


def test_roughness():
    g = np.random.default_rng(0)
    v = g.normal(size=30)
    v[g.permutation(30)[:12]] = np.nan
    kept = [x for x in v if x == x]
    way = sum(abs(a - b) for a, b in zip(kept, kept[1:])) - abs(kept[-1] - kept[0])
    assert np.isclose(roughness(v), way / (len(kept) - 1)) and roughness(sorted(kept)) == pytest.approx(0)
    assert roughness(v + 5) == pytest.approx(roughness(v)) and roughness(3 * v) == pytest.approx(3 * roughness(v))
    for few in ([], [1.0], [np.nan, 2, np.nan]):
        with pytest.raises(ValueError, match="two epochs"):
            roughness(few)


def test_curves_say_what_the_runs_hold(runs, tmp_path):
    L = runs[0].metric
    seeds = [
        history(copy_of(runs[0], tmp_path / f"s{s}", seed=s), epoch=[1, 2, 3, 4], **{L: v})
        for s, v in ((1, [9.0, np.nan, 5, 6]), (2, [8.0, np.nan, 4, np.nan]))
    ]
    fig = curves(compare([seeds[0], runs[2]]))
    label = next(t.get_text() for t in fig.legends[0].texts if "toon2real" in t.get_text())
    assert label == "toon2real: best 5.00 at epoch 3, last 6.00"
    assert "toon2real 1.00 and 1.00. N = 9 pictures" in fig.get_supxlabel().replace("\n", " ")
    assert [t.get_text().split(":")[0] for t in fig.legends[0].texts[-2:]] == [
        "untranslated input",
        "other photographs",
    ]
    label = next(t.get_text() for t in curves(compare(seeds)).legends[0].texts)
    assert label == "toon2real (2 seeds): best 4.50 ± 0.71, last 5.00 ± 1.4"
    one = history(copy_of(runs[0], tmp_path / "one"), epoch=[1, 2], **{L: [np.nan, 3.0]})
    assert "toon2real unknown and 0.00." in curves(compare(one)).get_supxlabel().replace("\n", " ")
    for f in (
        curves(compare(seeds + runs[1:])),
        curves(compare(one)),
        curves(compare(runs), runs[0].about["judge"]["kid"]),
        curves(compare(runs), "precision"),
    ):
        assert_legible(f)


def test_plane_lines_are_equal_scores(runs):
    fig = plane(compare(runs))
    assert_legible(fig)
    (lines,) = (part for part in fig.axes[0].collections if part.get_zorder() == 0)
    scores = [path.vertices @ [0.2, 0.8] for path in lines.get_paths()]
    scores = [s for s in scores if len(s)]
    assert len(scores) > 2 and all(np.ptp(s) < 1e-9 * max(map(max, scores)) for s in scores)
    r, L = runs[0], runs[0].about["judge"]["main"]
    path = next(
        one for one in fig.axes[0].lines if one.get_color() == COLOURS["toon2real"] and len(one.get_xdata()) > 1
    )
    assert np.allclose(path.get_ydata(), r.history[L]) and np.allclose(path.get_xdata(), r.history[f"{L} to input"])
    assert np.allclose(0.8 * path.get_ydata() + 0.2 * path.get_xdata(), r.history[r.metric])


# --- runs that do not go together


def test_groups(runs, tmp_path):
    gs = compare([copy_of(runs[0], tmp_path / "b", seed=7), *runs]).groups
    assert [g.title for g in gs] == ["UNIT", "Cartoon-to-real", "toon2real"] and [
        r.recipe.seed for r in gs[2].runs
    ] == [0, 7]
    wide = copy_of(runs[0], tmp_path / "wide", recipe=runs[0].about["recipe"] | {"width": 4})
    gs = compare([wide, runs[0]]).groups
    assert {g.title for g in gs} == {f"toon2real ({wide.path})", f"toon2real ({runs[0].path})"} and len(
        {g.colour for g in gs}
    ) == 2


@pytest.mark.parametrize("draw", [curves, plane])
def test_errors_name_the_run(runs, tmp_path, draw):
    with pytest.raises(RunError, match="no runs"):
        draw(compare([]))
    never = copy_of(runs[0], tmp_path / "never", judge=None)
    with pytest.raises(RunError, match=f"{never.path} has no judged epoch: run `toon2real evaluate"):
        draw(compare([runs[1], never]))
    empty = history(copy_of(runs[0], tmp_path / "empty"), epoch=[1])
    with pytest.raises(RunError, match=f"{empty.path} has no judged epoch"):
        draw(compare(empty))
    for k, v in (("n", 3), ("seed", 5), ("extractor", "Inception"), ("images", "others")):
        other = copy_of(runs[1], tmp_path / k, judge=runs[1].about["judge"] | {k: v})
        with pytest.raises(RunError, match="judged differently"):
            draw(compare([runs[0], other]))


def test_no_weights(runs, tmp_path):
    bare = copy_of(runs[0], tmp_path / "bare")
    shutil.rmtree(bare.path / "weights")
    with pytest.raises(RunError, match=f"{bare.path} holds no weights yet"):
        comparison(compare(bare))


# --- what the table says beside its numbers


def test_the_floor_is_of_training_photographs_where_they_are_needed(runs, tmp_path):
    "Nine cartoons and nine photographs are held out: all are judged, by the trainer and afterwards alike"
    terms = compare(runs, reps=0).table.attrs
    assert terms["n"] == runs[0].about["judge"]["n"] == 9
    assert terms["notes"][-1] == "The floor is of training photographs."
    assert not any("another judge" in note for note in terms["notes"])
    data = runs[0].about["data"]
    gone = copy_of(runs[0], tmp_path / "gone", data=data | {"photo": data["photo"] | {"source": "/nowhere"}})
    terms = compare(gone, reps=0).table.attrs
    assert terms["n"] == 4 and terms["notes"][-1] == "The floor is of other photographs."
    assert "its best epoch was chosen by another judge" in terms["notes"][-2]


def test_seeds_are_told_from_four_on(runs, tmp_path, capsys):
    seeds = [copy_of(run, tmp_path / f"{run.recipe.name}{k}", seed=k) for run in runs[:2] for k in range(4)]
    options = ["--extractor", "simple", "--reps", "0"]
    command_line(["compare", *(str(run.path) for run in seeds[1:]), *options])
    assert "over seeds" not in capsys.readouterr().out
    command_line(["compare", *(str(run.path) for run in seeds), *options])
    told = capsys.readouterr().out.partition("over seeds; p: permutation test")[2]
    assert "weighted Frechet (simple features)" in told and "lowest" in told
    row = next(line for line in told.splitlines() if line.split()[-5:-4] == ["4"])
    mean, lowest, highest, p = row.split()[-4:]
    assert mean == lowest == highest and p in ("1", "0.0286")  # copies: no spread; 2 of 70 against the other system

"Distances against the golden numbers, against definitions written out, and against pytorch-fid's own command"

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from toon2real.distances import (
    frechet_distance,
    frechet_features,
    precision_recall,
    subsample,
)
from toon2real.features import (
    OFFICIAL,
    Inception,
    WeightsMissing,
    best_extractor,
    features,
    find_inception,
    random_weights,
    simple_features,
)
from toon2real.fid import Judge, evaluate, fid, kid, weighted_fid
from toon2real.images import ImageError
from toon2real.inception import _network
from toon2real.scenes import scenes

HERE = Path(__file__).parent
GOLD = json.loads((HERE / "golden/frechet.json").read_text())
SHARED = Path(os.environ.get("TOON2REAL_SHARED", HERE.parent / "../shared"))
WEIGHTS, DATA = SHARED / "weights/fid_inception_to_mixed6e.pth", SHARED / "data/scenery128"
real = pytest.mark.skipif(
    not (WEIGHTS.exists() and DATA.exists()), reason="real Inception weights and images are not here"
)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    "No weights, hub or cache of this machine"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("TOON2REAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOON2REAL_INCEPTION", raising=False)


def recipe(r, n, d):
    z, j = np.random.RandomState(r["seed"]).standard_normal((n, d)), np.arange(d)
    spread = r["scale"] * (1 + 0.5 * np.cos(j))
    mixed = z + r["mix"] * np.roll(z, 1, 1)
    return (r["shift"] + spread * mixed + 0.1 * np.sin(0.7 * j)).astype(np.float32)


def blur(images):
    x = torch.tensor(images).movedim(-1, 1).float()
    x = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return x.round().byte().movedim(1, -1).numpy()


def content(output, input, net):
    "Mean cosine of spatial Mixed_6e features of each output and its input"
    a, b = (net.maps(images)[768] for images in (output, input))
    return float(torch.cosine_similarity(a, b, dim=1).mean())


def save_all(images, folder):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


# --- numbers


@pytest.mark.parametrize("pair", GOLD["pairs"], ids=lambda p: p["name"])
def test_golden_pairs(pair):
    x, y = (recipe(pair[f"recipe_{k}"], pair[f"n_{k}"], pair["d"]) for k in "xy")
    if pair.get("file"):
        with np.load(HERE / "golden" / pair["file"]) as f:
            stored = [f[k] for k in f]
        for made in (x, y):
            assert any(o.shape == made.shape and np.array_equal(o, made) for o in stored)
    assert frechet_features(x, y) == pytest.approx(pair["frechet"], rel=1e-6)
    by_covariance = frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
    assert by_covariance == pytest.approx(pair["frechet"], rel=1e-6)  # any rank, also N < D
    assert frechet_features(x, x) == pytest.approx(0, abs=1e-9 * pair["trace_x"])
    assert fid(x, y) == frechet_features(x, y)


@pytest.mark.parametrize("triple", GOLD["weighted"], ids=lambda p: p["file"])
def test_golden_weighted(triple):
    with np.load(HERE / "golden" / triple["file"]) as f:
        w = weighted_fid(f["generated"], f["target"], f["input"])
    assert w.weighted == pytest.approx(triple["weighted"], rel=1e-6)
    assert (w.target, w.input) == pytest.approx((triple["frechet_target"], triple["frechet_input"]), rel=1e-6)


def test_kid_is_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 12)), rng.standard_normal((25, 12)) * 1.3 + 0.2

    def k(a, b):
        return (float(a @ b) / 12 + 1) ** 3

    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (40 * 39)
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (25 * 24)
    xy = sum(k(a, b) for a in x for b in y) / (40 * 25)
    assert kid(x, y).value == pytest.approx(xx + yy - 2 * xy, rel=1e-9)
    assert kid(x, y).se > 0


def test_kid_over_blocks():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2100, 3)), rng.standard_normal((1100, 3))  # more than one block of 1024 rows

    def total(a, b, same):
        k = (a @ b.T / 3 + 1) ** 3
        return k.sum() - (np.trace(k) if same else 0)

    within = total(x, x, True) / (2100 * 2099) + total(y, y, True) / (1100 * 1099)
    want = within - 2 * total(x, y, False) / (2100 * 1100)
    assert kid(x, y).value == pytest.approx(want, rel=1e-6, abs=1e-12)


def test_precision_recall_is_its_definition():
    rng = np.random.default_rng(0)
    g, r = rng.standard_normal((60, 4)) * 0.7, rng.standard_normal((50, 4))

    def distances(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    def share(points, centres):
        radius = np.sort(distances(centres, centres), 1)[:, 3]
        return (distances(points, centres) <= radius).any(1).mean()

    assert precision_recall(g, r) == pytest.approx((share(g, r), share(r, g)))


def test_scores_carry_their_terms():
    x = np.random.default_rng(0).standard_normal((30, 4))
    s = fid(x, x[:20] + 1, n=10, seed=7)
    assert s.n == (10, 10) and s.of == (30, 20)
    assert "10 of 30 | 10 of 20, seed 7" in repr(s)
    assert json.loads(json.dumps(s)) == float(s)
    for t in (pickle.loads(pickle.dumps(s)), copy.deepcopy(s)):
        assert repr(t) == repr(s)
    assert np.array_equal(subsample(x, 10, 7), subsample(x, 10, 7))
    assert not np.array_equal(subsample(x, 10, 7), subsample(x, 10, 8))


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda x: fid(x * np.nan, x), "NaN"),
        (lambda x: fid(x[:1], x), "at least 2"),
        (lambda x: fid(x, x[:, :2]), "one extractor"),
        (lambda x: fid(x, x, n=99), "n=99, but it must be from 0 to 20"),
        (lambda x: kid(x[:2], x), "at least 3"),
        (lambda x: fid("/no/such/folder", x, "simple"), "no such folder"),
        (lambda x: fid(torch.full((4, 3, 8, 8), 255.0), x, "simple"), r"\[-1, 1\]"),
        (lambda x: fid(np.zeros((4, 8, 8), np.uint8), x, "simple"), "N x H x W x 3"),
        (lambda x: fid([], x, "simple"), "empty set"),
    ],
)
def test_bad_input_says_what_to_do(bad, message):
    with pytest.raises(ValueError, match=message):
        bad(np.random.default_rng(0).standard_normal((20, 48)))


# --- images


def test_every_form_of_a_set_has_the_same_features(tmp_path):
    images = scenes(6, side=32, kind="photo")
    save_all(images, tmp_path)

    class Domain:
        pass

    Domain.images = images
    want = simple_features(images).numpy()
    x = torch.tensor(images)
    files = sorted(tmp_path.glob("*.png"))
    pictures = [Image.fromarray(o) for o in images]
    forms = [tmp_path, str(tmp_path), files, list(images), pictures, x, x.movedim(-1, 1) / 127.5 - 1]
    for form in [*forms, Domain()]:
        assert np.array_equal(features(form, "simple", batch=4), want), type(form)
    sizes_differ = list(images) + [scenes(1, side=48)[0]]
    assert features(sizes_differ, "simple").shape == (7, 48)


def test_broken_image_is_named(tmp_path):
    save_all(scenes(1, side=32), tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    with pytest.raises(ImageError, match="b.png"):
        features(tmp_path, "simple")


def test_cache_gives_identical_bytes(tmp_path):
    folder, moved = save_all(scenes(3, side=32), tmp_path / "set"), tmp_path / "moved"
    net, calls = Inception(192, "random"), []
    net.register_forward_hook(lambda *_: calls.append(1))
    a = features(folder, 192, extractor=net)
    b = features(folder, 192, extractor=net)
    folder.rename(moved)
    c = features(moved, (64, 192), extractor=net)
    assert a.tobytes() == b.tobytes() == c[192].tobytes()
    assert len(calls) == 1 and c[64].shape == (3, 64)
    fresh = features(moved, 192, extractor=net, cache=False)
    assert fresh.tobytes() == a.tobytes() and len(calls) == 2
    half = Inception(192, "random", dtype=torch.bfloat16)  # another precision is another extractor
    assert features(moved, 192, extractor=half).tobytes() != a.tobytes()


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    folder = save_all(scenes(2, side=32), tmp_path / "set")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TOON2REAL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="features are not cached.*TOON2REAL_CACHE"):
        assert features(folder, "simple").shape == (2, 48)


def test_simple_features_order_what_people_order():
    reference, photo = (scenes(40, seed=seed, side=64, kind="photo") for seed in (0, 500))
    toon = scenes(40, seed=900, side=64, kind="cartoon")
    floor, blurred, cartoon = (fid(o, reference, "simple") for o in (photo, blur(photo), toon))
    assert floor.name == "Frechet (simple features)"
    assert 2 * floor < blurred and 2 * floor < cartoon


def test_evaluate_pairs_outputs_with_inputs(tmp_path):
    toon, photo = scenes(12, side=32), scenes(30, side=32, kind="photo")
    t = evaluate({"same": toon, "photos": photo[:12]}, photo, toon, "simple", n=10, seed=3, reps=10)
    assert t.attrs["n"] == 10 and t.attrs["seed"] == 3
    same, untranslated = (t.loc[name].dropna().to_numpy(float) for name in ("same", "untranslated input"))
    assert np.allclose(same, untranslated)  # doing nothing is doing nothing
    with pytest.raises(ValueError, match="11 outputs and 12 inputs"):
        evaluate(toon[:11], photo, toon, "simple")
    inputs, outputs = save_all(toon, tmp_path / "in"), save_all(toon, tmp_path / "out")
    (outputs / "3.png").rename(outputs / "3b.png")
    with pytest.raises(ValueError, match="name each output like its input"):
        evaluate(outputs, photo, inputs, "simple")


def test_the_judge_sees_every_set_once(tmp_path):
    toon, photo = scenes(5, side=32), scenes(10, side=32, kind="photo")
    net, seen = Inception(768, "random"), []
    net.net[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    judge = Judge(photo, save_all(toon, tmp_path / "in"), extractor=net, n=4)
    assert sum(seen) == 3 * 4  # photographs, the floor and the cartoons
    seen.clear()
    row = judge(save_all(blur(toon), tmp_path / "out"))
    assert sum(seen) == 4
    judged = list(judge.index)
    assert row["content"] == pytest.approx(content(blur(toon)[judged], toon[judged], net), abs=1e-6)
    again = Judge(photo, tmp_path / "in", extractor=net, n=4)(tmp_path / "out")  # all is in the cache now
    assert again == pytest.approx(row, rel=1e-5)


# --- weights


def test_missing_weights_say_what_to_do(monkeypatch):
    with pytest.raises(WeightsMissing) as e:
        find_inception()
    for word in ("weights=", "TOON2REAL_INCEPTION=/path/to/", "torch.hub.load_state_dict_from_url", OFFICIAL):
        assert word in str(e.value)
    with pytest.raises(WeightsMissing, match="/none.pth.*weights="):
        find_inception("/none.pth")
    monkeypatch.setenv("TOON2REAL_INCEPTION", "/none.pth")
    with pytest.raises(WeightsMissing, match="/none.pth.*TOON2REAL_INCEPTION"):
        fid(scenes(4, side=32), scenes(4, side=32), 64)
    with pytest.warns(UserWarning, match="/none.pth.*simple features instead"):
        assert repr(best_extractor()) == "simple features"


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_broken_weights_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"not a file of weights")
    with pytest.raises(WeightsMissing, match="w.pth"):
        Inception(64, path)
    torch.save({"a": Evil(tmp_path / "owned")}, path)
    with pytest.raises(WeightsMissing, match="w.pth"):
        Inception(64, path)
    assert not (tmp_path / "owned").exists()
    state = random_weights(64)
    state["Conv2d_1a_3x3.conv.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(WeightsMissing, match="w.pth.*NaN"):
        Inception(64, path)
    torch.save({"x": torch.ones(1)}, path)
    with pytest.raises(WeightsMissing, match="no dimensions"):
        Inception(64, path)


def test_partial_weights_serve_what_they_cover(tmp_path):
    torch.save(random_weights(192), tmp_path / "part.pth")
    net = Inception(weights=tmp_path / "part.pth")
    assert net.dims == 192
    assert set(net(scenes(1, side=32))) == {64, 192}
    assert net.label("FID", 192) == "Frechet (other weights 192)"
    for dims in (768, 2048):
        with pytest.raises(WeightsMissing, match=f"serve 64, 192 dimensions, not {dims}"):
            Inception(dims, tmp_path / "part.pth")


@real
def test_published_weights_are_known():
    net = Inception(weights=WEIGHTS)
    assert net.dims == 768
    assert [net.label("FID", dims) for dims in (64, 192, 768)] == ["FID-64", "FID-192", "FID-768"]
    with pytest.raises(WeightsMissing, match="serve 64, 192, 768 dimensions, not 2048"):
        Inception(2048, WEIGHTS)


@real
def test_real_images_bf16_and_content():
    net, half = Inception(768, WEIGHTS), Inception(768, WEIGHTS, dtype=torch.bfloat16)
    files = sorted((DATA / "photo/val").iterdir())[:3]
    a, b = (features(files, 768, extractor=o, cache=False) for o in (net, half))
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.02  # bf16 has 8 bits: measured .004 to .01
    one, other = ([np.asarray(Image.open(file))] for file in files[:2])
    assert content(one, one, net) == pytest.approx(1, abs=1e-5)
    assert 0.2 < content(one, other, net) < 0.9


def peer(*args):
    "The command of pytorch-fid"
    command = [sys.executable, "-m", "pytorch_fid", "--device", "cpu", "--dims", "192", "--num-workers", "0"]
    return subprocess.run([*command, *map(str, args)], capture_output=True, text=True, env=os.environ)


def peer_network():
    "The network of pytorch-fid, with the weights that the module makes"
    import pytorch_fid.inception

    with (
        patch.object(pytorch_fid.inception, "load_state_dict_from_url", lambda *args, **kw: {}),
        patch.object(torch.nn.Module, "load_state_dict", lambda *args, **kw: None),
    ):
        return pytorch_fid.inception.fid_inception_v3()


def test_the_network_is_that_of_pytorch_fid():
    import pytorch_fid.inception

    net = peer_network()
    state, rng = random_weights(2048), torch.Generator().manual_seed(1)
    for name, tensor in state.items():  # a batch normalization that does something
        if ".bn." in name:
            state[name] = tensor + 0.2 * torch.rand(tensor.shape, generator=rng)
    assert not net.load_state_dict(state, strict=False).unexpected_keys
    with patch.object(pytorch_fid.inception, "fid_inception_v3", lambda: net):
        peer = pytorch_fid.inception.InceptionV3([0, 1, 2, 3]).eval()
    images = scenes(2, side=64)
    with torch.no_grad():
        theirs = peer(torch.tensor(images).movedim(-1, 1).float() / 255)
    ours = Inception(2048, "random")
    ours.net = _network(state, 2048, "random")
    found = ours(images)
    assert list(found) == [x.shape[1] for x in theirs] == [64, 192, 768, 2048]
    for x in theirs:  # float32 through 94 convolutions: measured below 4e-7
        x = x.mean((2, 3))
        assert torch.linalg.norm(x - found[x.shape[1]]) < 1e-5 * torch.linalg.norm(x)


@real
def test_equals_the_command_of_pytorch_fid(tmp_path):
    """Its own process at 192 dimensions on 2 x 32 real images; its Frechet distance where its SciPy call still exists,
    else its statistics and our distance"""
    hub = tmp_path / "hub/hub/checkpoints"
    hub.mkdir(parents=True)
    # pytorch-fid loads strictly: the rest of the network is as the module makes it
    torch.save({**peer_network().state_dict(), **torch.load(WEIGHTS, weights_only=True)}, hub / OFFICIAL)
    for kind in ("cartoon", "photo"):
        (tmp_path / kind).mkdir()
        for file in sorted((DATA / kind / "val").iterdir())[:32]:
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
    cartoon, photo = tmp_path / "cartoon", tmp_path / "photo"
    ours, done = fid(cartoon, photo, 192, weights=WEIGHTS), peer(cartoon, photo)
    if done.returncode:
        assert "disp" in done.stderr, done.stderr  # SciPy 1.18 removed the argument that pytorch-fid 0.3.0 passes
        for folder in (cartoon, photo):
            assert peer("--save-stats", folder, folder.with_suffix(".npz")).returncode == 0
        a, b = (np.load(tmp_path / f"{kind}.npz") for kind in ("cartoon", "photo"))
        theirs = frechet_distance(a["mu"], a["sigma"], b["mu"], b["sigma"])
    else:
        theirs = float(done.stdout.split("FID:")[1])
    assert ours.name == "FID-192"
    assert ours == pytest.approx(theirs, rel=1e-3)

"The fourth system by way of everything that takes systems: trainer, runs, weights, translator, widgets, command line"

import pytest
import torch

from toon2real.cli import main
from toon2real.images import to_pil, to_tensor
from toon2real.patchwise import patchwise
from toon2real.runs import ONE_WAY_COLUMNS
from toon2real.scenes import pairs, scenes, write_scenes
from toon2real.training import Trainer
from toon2real.translate import Translator
from toon2real.weights import RunError, load_weights, save_weights
from toon2real.widgets import EpochStepper

SMALL = patchwise.tiny(width=4, blocks=1, side=32, epochs=1, decay_epochs=1, average=0.9)
CARTOONS, PHOTOS = scenes(4, seed=0, side=36), scenes(3, seed=100, side=36, kind="photo")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("patchwise") / "run"
    return Trainer(SMALL, CARTOONS, PHOTOS, path, samples=3, progress=False).fit()


def test_the_public_reference_has_no_such_network():
    with pytest.raises(TypeError, match="PatchGenerator is no network of the public reference"):
        SMALL.build().G_r.to_reference()


def test_samples_have_the_columns_that_exist(run):
    "Three columns, one of them the translations of the kept generator"
    samples = run.samples()
    assert tuple(samples) == ONE_WAY_COLUMNS
    assert {x.shape for x in samples.values()} == {(3, 32, 32, 3)}
    assert len(run.history) == 2


def test_epoch_stepper_shows_it(run):
    "Its translations; a column that it has not is refused where it is asked for"
    stepper = EpochStepper(run)
    assert stepper.picture("0/input")[:2] == stepper.picture("0/1")[:2] == b"\xff\xd8"
    with pytest.raises(ValueError, match="column=.*choose one of cartoon, to_photo, photo"):
        run.sample_bytes(column="to_cartoon")


def test_weights_are_the_means_and_load_by_name(run, tmp_path):
    "bf16 weights of the mean alone; the way back is refused in one line"
    system = run.system()
    save_weights(tmp_path / "own.safetensors", system)
    loaded = load_weights(tmp_path / "own.safetensors")
    for name, value in loaded.G_r.state_dict().items():
        assert torch.equal(value, system.G_r.state_dict()[name].bfloat16().float())
    last = run.build()
    run.restore(last)
    assert not torch.equal(last.G_r.down[1].weight, system.G_r.down[1].weight)
    assert torch.equal(last.means["G_r.down.1.weight"], system.G_r.down[1].weight)
    image = to_pil(scenes(1, seed=7, side=45)[0])
    made = [Translator.load(source)(image) for source in (run.path, tmp_path / "own.safetensors")]
    assert {one.size for one in made} == {(45, 45)}
    with pytest.raises(ValueError, match="from cartoon to photo"):
        Translator(loaded, direction="to_cartoon")(image)


def test_fine_tuning_begins_with_the_saved_weights(run, tmp_path):
    "From a weights file, where only the mean is, the trained generator starts there as well"
    save_weights(tmp_path / "own.safetensors", run.system(), torch.float32)
    slow, source = SMALL.replace(lr=1e-9), dict(init_from=tmp_path / "own.safetensors", progress=False)
    more = Trainer(slow, CARTOONS, PHOTOS, tmp_path / "more", **source)
    more._step()
    for a, b in zip(more.system.G_r.parameters(), run.system().G_r.parameters()):
        assert torch.allclose(a, b, atol=1e-7)  # Adam's first step is as long as the rate
    wider = SMALL.replace(width=8)
    with pytest.raises(RunError, match="do not fit"):
        Trainer(wider, CARTOONS, PHOTOS, tmp_path / "wider", **source)


def test_batch_is_the_mean_of_its_samples():
    "A sample has its own places and negatives: a batch of two is the mean of two of one (float64 rounding)"
    c, r = (to_tensor(x).double() for x in pairs(2, seed=3, side=32))
    recipe = SMALL.replace(norm="in", identity=1)
    both = recipe.replace(batch=2).build().double().step(c, r)
    alone = [recipe.build().double().step(c[i : i + 1], r[i : i + 1], index=[i]) for i in range(2)]
    for name, value in both.items():
        if name != "D_r":  # after the generator has moved
            assert torch.allclose(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-12), name


def test_half_precision_stays_near():
    "The step in bf16 has float32's losses to bf16's digits"
    c, r = (to_tensor(x) for x in pairs(1, seed=3, side=32))
    full, half = SMALL.build(), SMALL.build()
    half.precision = "bf16"
    for (name, a), b in zip(full.step(c, r).items(), half.step(c, r).values()):
        assert torch.isfinite(b) and abs(a - b) < 0.05 * (1 + abs(a)), name


def test_command_line_trains_it(tmp_path, capsys):
    for kind in ("cartoon", "photo"):
        write_scenes(tmp_path / kind, 2, kind, side=64)
    data = ["--cartoon", str(tmp_path / "cartoon"), "--photo", str(tmp_path / "photo"), "--run", str(tmp_path / "run")]
    size = ["--width", "4", "--blocks", "1", "--side", "32", "--epochs", "1", "--decay-epochs", "0"]
    assert main(["train", *data, "patchwise", *size, "--contrast-same", "0"]) == 0, capsys.readouterr().err
    assert Translator.load(tmp_path / "run").system.recipe.contrast_same == 0

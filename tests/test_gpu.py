"""What must hold on CUDA: `pytest -m gpu`, or `python bench/gpu.py`. Written without a GPU at hand.

Float64 on both devices rounds at 1e-16 and sums in other orders: gradients of a step agree to 1e-9, and trajectories of
20 steps, which multiply rounding by about 1e6, to 1e-7. Graph and plain step get the same rate, float32 on the device.
UNIT's noise is drawn on the device, and each kind of device draws its own: where two are compared, it is given.
TOON2REAL_COMPILE=1 adds what needs the compiler, a minute or two."""

import copy
import json
import threading
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_cyclegan import NAMES as CYCLEGAN_NAMES
from test_cyclegan import build as recorded_cyclegan
from test_cyclegan import golden
from test_engine import RECIPES, needs_compiler, pictures, relative, same_gradients
from test_unit import NAMES as UNIT_NAMES
from test_unit import build as recorded_unit
from test_unit import noise as recorded_noise

from toon2real.cyclegan import toon2real
from toon2real.data import Domain, Pairs
from toon2real.engine import Captured
from toon2real.features import Inception, features
from toon2real.generator import InstanceNorm
from toon2real.images import to_pil
from toon2real.patchwise import patchwise
from toon2real.runs import Run, translate_samples
from toon2real.scenes import scenes
from toon2real.system import load_system_state, system_state
from toon2real.training import Trainer
from toon2real.translate import Translator
from toon2real.unit import NOISES, LayerNorm, unit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
CUDA = torch.device("cuda")
CARTOONS, PHOTOS = scenes(9, seed=0, side=72), scenes(8, seed=100, side=72, kind="photo")
SMALL = toon2real.tiny(width=8, blocks=1, pool=4, epochs=2, decay_epochs=1)


def noise(recipe, device) -> dict:
    "What a step of UNIT is given; nothing for the others"
    if recipe.name != "unit":
        return {}
    shape = len(NOISES), recipe.batch, 4 * recipe.width, recipe.side // 4, recipe.side // 4
    draw = torch.Generator().manual_seed(1)
    return dict(noise=torch.randn(shape, generator=draw, dtype=torch.float64).to(device))


def gradients(recipe, device) -> dict:
    "Of every parameter that has one, after one step in float64"
    system = recipe.build().double().to(device)
    c, r = pictures(recipe, 1)[:, 0].to(device)
    system.step(c, r, **noise(recipe, device))
    return {name: p.grad.cpu() for name, p in system.named_parameters() if p.grad is not None}


def losses(system, steps, dtype=torch.float64) -> torch.Tensor:
    "A row for each step, at rates that change"
    c, r = pictures(system.recipe, 20, dtype).to(CUDA)
    rows = []
    for k in steps:
        system.set_lr(1 + k // 4, k + 1)
        rows.append(torch.stack(list(system.step(c[k], r[k]).values())))
    return torch.stack(rows).double().cpu()


def copied(system) -> dict:
    return {name: value.clone() for name, value in system_state(system).items()}


def same_bits(one, other):
    ours, theirs = system_state(one), system_state(other)
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different, f"{len(different)} of {len(ours)} tensors differ: {different[:5]}"


# --- the numbers are the processor's, and the references' ---


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_are_the_processor_s(name):
    same_gradients(gradients(RECIPES[name], CUDA), gradients(RECIPES[name], torch.device("cpu")), 1e-9)


def test_recorded_cyclegan():
    "Six steps of the public reference, each loss to 1e-7"
    common = {k: v.double() for k, v in load_file(golden / "cyclegan_common.safetensors").items()}
    record = json.loads((golden / "cyclegan_idt05.json").read_text())
    system = recorded_cyclegan(common, identity=0.5).to(CUDA)
    for t, expected in enumerate(record["losses_f64run"]):
        got = system.step(common["real_A"][t].to(CUDA), common["real_B"][t].to(CUDA))
        for name, value in got.items():
            assert value.item() == pytest.approx(expected[CYCLEGAN_NAMES[name]], rel=1e-7, abs=0), (t, name)


def test_recorded_unit():
    "Four steps, likewise"
    data = {k: v.double() for k, v in load_file(golden / "unit.safetensors").items()}
    record = json.loads((golden / "unit.json").read_text())
    system = recorded_unit(data).to(CUDA)
    for t, expected in enumerate(record["losses_f64run"]):
        given = [z.to(CUDA) for z in recorded_noise(data, t)]
        got = system.step(data["x_a"][t].to(CUDA), data["x_b"][t].to(CUDA), noise=given)
        for name, value in got.items():
            assert value.item() == pytest.approx(expected[UNIT_NAMES[name]], rel=1e-7, abs=0), (t, name)


@pytest.mark.parametrize("norm", [InstanceNorm(), LayerNorm(4)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_norms(norm, batch, layout):
    "Gradients against finite differences: some backward is wrong at batch 1 in one layout on some device"
    norm = copy.deepcopy(norm).double().to(CUDA)
    for p in norm.parameters():
        torch.nn.init.uniform_(p, 0.5, 1)
    x = torch.randn(batch, 4, 5, 5, dtype=torch.float64, device=CUDA).to(memory_format=layout).requires_grad_()
    weight = torch.randn(batch, 4, 5, 5, dtype=torch.float64, device=CUDA).to(memory_format=layout)
    assert torch.autograd.gradcheck(lambda x: norm(x) * weight, x, nondet_tol=1e-12)


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_processor_s(resident, monkeypatch):
    "From the GPU's memory and through pinned memory; CUDA divides by way of the reciprocal, which costs a bit"
    monkeypatch.setattr("toon2real.data._fits", lambda domains, device: resident and device.type == "cuda")
    domains = Domain.open(CARTOONS, 72), Domain.open(PHOTOS, 72)
    here, there = (Pairs(*domains, 64, batch=2, seed=3, device=device) for device in ("cpu", "cuda"))
    assert there.resident is resident
    for epoch in (1, 2):
        kept = [there.batch(epoch, k) for k in range(here.steps)]  # all at once: none may overwrite another
        for k, batch in enumerate(kept):
            own = here.batch(epoch, k)
            assert (batch.c.cpu() - own.c).abs().max() < 2.5e-7 and (batch.r.cpu() - own.r).abs().max() < 2.5e-7
            assert np.array_equal(batch.index, own.index)


# --- the step as a graph ---


@pytest.mark.parametrize("name", RECIPES)
def test_graph_against_plain(name):
    "Twenty steps in float64: losses, weights, moments and pools"
    recipe = RECIPES[name].replace(epochs=3, decay_epochs=4)
    plain, fast = (recipe.build().double().to(CUDA) for _ in range(2))
    plain.speed_up("float32", compile=False)
    Captured(plain)  # gives it the graph's rates, and is thrown away
    fast.speed_up("float32")
    assert plain.captured is None and isinstance(fast.captured, Captured)
    assert relative(losses(fast, range(20)), losses(plain, range(20))) < 1e-7
    assert fast.captured.graph is not None
    ours, theirs = (torch.cat([p.detach().flatten() for p in system.parameters()]) for system in (fast, plain))
    assert (ours - theirs).norm() < 1e-7 * theirs.norm()
    for a, b in zip(fast.stores(), plain.stores(), strict=True):
        assert (a - b).norm() <= 1e-7 * b.norm()


@pytest.mark.parametrize("name", ["toon2real", "unit", "averaged"])
def test_what_happens_between_replays(name):
    "Samples, a batch of another size, a state that is saved and loaded: the graph goes on, or is recorded anew"
    recipe = RECIPES[name].replace(epochs=3, decay_epochs=4)
    plain, fast = (recipe.build().double().to(CUDA) for _ in range(2))
    plain.speed_up("float32", compile=False)
    Captured(plain)
    fast.speed_up("float32")
    c, r = pictures(recipe, 1)[:, 0].to(CUDA)
    rows = {}
    for system in (plain, fast):
        before = losses(system, range(8))
        translate_samples(system, c, r)
        between = losses(system, range(8, 10))
        first = system.captured
        other = torch.stack(list(system.step(torch.cat([c, c]), torch.cat([r, r])).values())).double().cpu()[None]
        after = losses(system, range(10, 12))
        load_system_state(system, copied(system))
        rows[system] = torch.cat([before, between, other, after, losses(system, range(12, 20))])
    assert relative(rows[fast], rows[plain]) < 1e-7
    assert first is not fast.captured and first.graph is not None and fast.captured.graph is not None


@pytest.mark.parametrize("name", [*RECIPES, "full"])
def test_bf16_is_recorded(name, capsys):
    "As `auto` trains here; the full size too"
    recipe = RECIPES.get(name, toon2real)
    system = recipe.build().to(CUDA).speed_up()
    assert system.precision == "bf16"
    rows = losses(system, range(6), torch.float32)
    assert rows.isfinite().all()
    assert system.captured.graph is not None, capsys.readouterr().err


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_no_waiting(name, resident, monkeypatch):
    "Neither a batch nor a recorded step makes the processor wait for the GPU"
    monkeypatch.setattr("toon2real.data._fits", lambda domains, device: resident)
    recipe = RECIPES[name]
    system = recipe.build().to(CUDA).speed_up()
    domains = Domain.open(CARTOONS, recipe.side + 4), Domain.open(PHOTOS, recipe.side + 4)
    pairs = Pairs(*domains, recipe.side, recipe.batch, device="cuda")
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            for k in range(4):
                system.set_lr(1, k + 1)
                batch = pairs.batch(1, k % pairs.steps)
                system.step(batch.c, batch.r)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert system.captured.graph is not None


def test_memory_stays():
    "Steps, samples and recordings one after the other leave nothing behind"
    recipe = RECIPES["toon2real"].replace(side=64, width=16)
    system = recipe.build().to(CUDA).speed_up()
    c, r = pictures(recipe, 1, torch.float32)[:, 0].to(CUDA)

    def used(steps) -> int:
        for _ in range(steps):
            system.step(c, r)
        translate_samples(system, c, r)
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    first = used(10)
    assert used(50) <= first + 2**16
    for _ in range(3):
        load_system_state(system, copied(system))
        again = used(10)
    assert again <= first + 2**20


def test_recording_while_another_thread_works(capsys):
    "A notebook trains in the background and its other cells use the GPU"
    system = RECIPES["toon2real"].build().to(CUDA).speed_up()
    ended, problems = threading.Event(), []

    def work():
        try:
            while not ended.is_set():
                torch.ones(64, 64, device=CUDA).sum().item()
        except RuntimeError as e:
            problems.append(e)

    other = threading.Thread(target=work)
    other.start()
    try:
        rows = losses(system, range(8), torch.float32)
    finally:
        ended.set()
        other.join()
    assert rows.isfinite().all() and not problems
    assert system.captured.graph is not None, capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_on_the_second_gpu():
    device = torch.device("cuda:1")
    system = RECIPES["toon2real"].build().to(device).speed_up()
    c, r = pictures(system.recipe, 1, torch.float32)[:, 0].to(device)
    for _ in range(6):
        terms = system.step(c, r)
    assert system.captured.graph is not None and terms["G_r"].device == device


@needs_compiler
def test_compiled_and_recorded(capsys):
    "Nearly the same losses with compiled networks inside the graph, channels last: float32 rounds at 6e-8"
    recipe = RECIPES["toon2real"].replace(epochs=3, decay_epochs=4)
    plain, fast = (recipe.build().to(CUDA) for _ in range(2))
    plain.speed_up("float32", compile=False)
    Captured(plain)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        fast.speed_up("float32", compile=True)
        assert len(fast.forwards) == 2, capsys.readouterr().err
        rows = [losses(system, range(8), torch.float32) for system in (fast, plain)]
    assert relative(*rows) < 2e-3
    assert fast.captured.graph is not None, capsys.readouterr().err


# --- the same bits ---


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", RECIPES)
def test_deterministic_and_resumed(name, deterministic):
    "With deterministic algorithms: the same bits twice, and the same after a resume in the middle of replays"
    recipe = RECIPES[name]
    whole, again, half, resumed = (recipe.build().to(CUDA).speed_up() for _ in range(4))
    for system in (whole, again):
        losses(system, range(12), torch.float32)
    losses(half, range(6), torch.float32)
    load_system_state(resumed, copied(half))
    losses(resumed, range(6, 12), torch.float32)
    same_bits(again, whole)
    same_bits(resumed, whole)


def test_deterministic_is_recorded(deterministic, capsys):
    "Or a line says why not, and the training is right and slow"
    system = RECIPES["toon2real"].build().to(CUDA).speed_up()
    losses(system, range(6), torch.float32)
    assert system.captured.graph is not None or "plain steps instead" in capsys.readouterr().err


def trainer(path, recipe=SMALL, **options):
    return Trainer(recipe, CARTOONS, PHOTOS, run=path, samples=2, progress=False, **options)


def checkpoint(path) -> dict:
    "The newest one, without the seconds that it took"
    step, tensors = Run(path).load_checkpoint()
    return {name: value for name, value in tensors.items() if name != "loop/seconds"} | {"step": torch.tensor(step)}


@pytest.mark.parametrize("recipe", [SMALL, unit.tiny(width=8, blocks=1), patchwise.tiny(width=8, average=0.9)])
def test_a_resumed_run_has_the_same_bits(recipe, tmp_path):
    "A training on the GPU, and one that ended after an epoch and was resumed"
    options = dict(device="cuda", deterministic=True)
    trainer(tmp_path / "whole", recipe, **options).fit(2)
    trainer(tmp_path / "cut", recipe, **options).fit(1)
    Trainer.resume(tmp_path / "cut", CARTOONS, PHOTOS, device="cuda", progress=False).fit(2)
    whole, cut = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    different = [name for name, value in whole.items() if not torch.equal(value, cut[name])]
    assert not different, different[:5]


def test_from_the_processor_to_the_gpu_and_back(tmp_path):
    "A run goes on where it was, wherever it goes on; a warning says that its bits may differ"
    trainer(tmp_path / "run", device="cpu", precision="float32").fit(1)
    with pytest.warns(UserWarning, match="goes on in another environment"):
        resumed = Trainer.resume(tmp_path / "run", CARTOONS, PHOTOS, device="cuda", progress=False)
    resumed.fit(2)
    Trainer.resume(tmp_path / "run", CARTOONS, PHOTOS, device="cpu", progress=False).fit(3)
    run = Run(tmp_path / "run")
    assert len(run.history) == 3 and np.isfinite(run.history.G_r).all()
    for device in ("cpu", "cuda"):
        assert next(run.system(device=device).parameters()).device.type == device


def test_a_system_that_was_trained_on_the_processor():
    "Weights, moments and pools come along"
    here, there = (RECIPES["both"].build().double() for _ in range(2))
    c, r = pictures(here.recipe, 8)
    for system in (here, there):
        for k in range(3):
            system.step(c[k], r[k])
    there.to(CUDA).speed_up("float32", compile=False)
    for k in range(3, 8):
        ours, theirs = there.step(c[k].to(CUDA), r[k].to(CUDA)), here.step(c[k], r[k])
        for name, value in theirs.items():
            assert ours[name].item() == pytest.approx(value.item(), rel=1e-7), name


def test_in_the_background(tmp_path):
    "A training in its thread; pictures are translated meanwhile"
    Translator.load("toon2real", device="cuda")(CARTOONS[0])  # this thread's libraries are loaded before
    training = trainer(tmp_path / "run", device="cuda")
    background = training.fit(background=True)
    while background.running:
        Translator.load("toon2real", device="cuda")(CARTOONS[0])
    assert len(background.wait().history) == SMALL.total_epochs
    assert training.system.captured.graph is not None


# --- looking at pictures ---


@pytest.mark.parametrize("tile", [1024, 64])
@pytest.mark.parametrize("system", ["toon2real", "unit"])
def test_translations_are_the_processor_s(system, tile):
    "Whole and in tiles: float32 to a level of 255, TF32 to half a level and bf16 to one on average"
    image = scenes(1, seed=7, side=126)[0]
    expected = Translator.load(system, device="cpu", precision="float32", tile=tile)(image).astype(int)
    exact = Translator.load(system, device="cuda", precision="float32", tile=tile)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert np.abs(exact(image) - expected).max() <= 1
    assert np.abs(exact(image) - expected).mean() <= 0.5
    fast = Translator.load(system, device="cuda", tile=tile)
    assert fast.tiled.precision == "bf16"
    assert np.abs(fast(image) - expected).mean() <= 1


def test_pictures_of_all_kinds_and_a_folder(tmp_path):
    translator = Translator.load("toon2real", device="cuda")
    assert translator(CARTOONS).shape == CARTOONS.shape
    (tmp_path / "in").mkdir()
    for i in range(3):
        to_pil(CARTOONS[i]).save(tmp_path / "in" / f"{i}.png")
    report = translator.folder(tmp_path / "in", tmp_path / "out")
    assert report.done == 3 and not report.skipped


def test_inception_is_the_processor_s():
    "Features in float32: TF32 is off while the network looks"
    found = {}
    for device in ("cpu", "cuda"):
        found[device] = features(CARTOONS, (768, 192), extractor=Inception(768, "random", device))
    for dims, x in found["cpu"].items():
        assert np.linalg.norm(found["cuda"][dims] - x) <= 1e-4 * np.linalg.norm(x)


def test_simple_features_of_pictures_on_the_gpu():
    on_gpu = torch.from_numpy(CARTOONS).to(CUDA)
    assert np.array_equal(features(on_gpu, "simple"), features(CARTOONS, "simple"))


def test_noise_belongs_to_a_sample():
    "UNIT's noise on the GPU: of the same sample the same, whatever the batch"
    system = RECIPES["unit"].build().to(CUDA)
    x = torch.zeros(3, 3, 64, 64, device=CUDA)
    together, alone = system.draw_noise([4, 7, 9], x), system.draw_noise([7], x[:1])
    for name in NOISES:
        assert torch.equal(together[name][1], alone[name][0])


def test_nothing_warns(tmp_path):
    "Neither of streams nor of graphs nor of determinism: a training, its judge and its samples"
    held = scenes(8, seed=50, side=64), scenes(8, seed=150, side=64, kind="photo")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = trainer(tmp_path / "run", device="cuda", val=held, evaluate_every=1, extractor="simple").fit(1)
    assert run.best == 1
    words = "stream", "graph", "capturable", "determinis", "pinned"
    assert not [str(one.message) for one in told if any(word in str(one.message).lower() for word in words)]


def test_a_full_gpu_is_told_with_a_remedy(tmp_path):
    training, translator = trainer(tmp_path / "run", device="cuda"), Translator.load("toon2real", device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            training.fit(1)
        with pytest.raises(torch.cuda.OutOfMemoryError) as full:
            translator(scenes(1, side=512)[0])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "(side, width, batch)" in training.problem
    assert "smaller tile" in full.value.__notes__[0]


# --- last, for PyTorch's allocator remembers it ---


def test_a_recording_that_breaks_off(capsys):
    "A loss that reads a number: one line, and the plain step goes on, on the stream where it was"
    plain, fast = (RECIPES["toon2real"].build().double().to(CUDA) for _ in range(2))
    plain.speed_up("float32", compile=False)
    Captured(plain)
    fast.speed_up("float32")
    loss = fast.players[0].loss

    def reading(batch, scratch):
        total, terms = loss(batch, scratch)
        return total * (1.0 if total.item() > 0 else 2.0), terms

    fast.players[0].loss = reading
    before = torch.cuda.current_stream()
    assert relative(losses(fast, range(10)), losses(plain, range(10))) < 1e-7
    assert fast.captured.graph is None and torch.cuda.current_stream() == before
    assert capsys.readouterr().err.count("plain steps instead") == 1

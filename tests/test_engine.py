"""What makes a step fast changes nothing that it computes.

Tolerances: float64 rounds at 1e-16, and 20 steps of two players who chase each other multiply that by about 1e6 (seen:
1e-10), so a trajectory is held to 1e-7; the gradients of one step to 1e-9. Float32 rounds at 6e-8; a gradient is a sum
over thousands of such numbers behind 20 layers: 2e-2 of its norm. Compiling takes minutes: TOON2REAL_COMPILE=1 runs
it too."""

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toon2real import engine, generator
from toon2real.cyclegan import toon2real
from toon2real.engine import Captured
from toon2real.generator import ToColours
from toon2real.patchwise import patchwise
from toon2real.scenes import scenes
from toon2real.system import load_system_state, system_state
from toon2real.training import Trainer
from toon2real.unit import NOISES, unit

RECIPES = dict(
    toon2real=toon2real.replace(side=24, width=2, blocks=1, pool=3),
    both=toon2real.replace(side=24, width=2, blocks=1, pool=3, norm="sn+in", batch=2),
    unit=unit.replace(side=64, width=2, blocks=1),
    patchwise=patchwise.replace(side=24, width=2, blocks=1),
    averaged=patchwise.replace(side=24, width=2, blocks=1, average=0.9, contrast_same=0.5, identity=1.0),
)
needs_compiler = pytest.mark.skipif("TOON2REAL_COMPILE" not in os.environ, reason="minutes: TOON2REAL_COMPILE=1")


def pictures(recipe, steps, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    shape = (2, steps, recipe.batch, 3, recipe.side, recipe.side)
    return (torch.rand(shape, generator=draw, dtype=torch.float64) * 2 - 1).to(dtype)


def losses(system, steps=20, dtype=torch.float64):
    "A row for each step, at rates that change"
    rows = []
    for k, (c, r) in enumerate(zip(*pictures(system.recipe, steps, dtype))):
        system.set_lr(1 + k // 4, k + 1)
        rows.append(torch.stack(list(system.step(c, r).values())))
    return torch.stack(rows).double()


def relative(a, b):
    return ((a - b).abs() / b.abs().clamp_min(1e-300)).nan_to_num(0).max().item()


def gradients(system, dtype):
    "Of every parameter, after one step"
    c, r = pictures(system.recipe, 1, dtype)[:, 0]
    system.to(dtype).step(c, r)
    return {name: p.grad.double() for name, p in system.named_parameters()}


def same_gradients(fast, plain, tolerance):
    "Biases in front of an instance norm have no gradient but rounding: a norm is held to the largest one's at least"
    largest = max(g.norm() for g in plain.values())
    for name, g in plain.items():
        assert (fast[name] - g).norm() <= tolerance * max(g.norm(), 1e-3 * largest), name


@needs_compiler
def test_compiled_networks():
    recipe = RECIPES["toon2real"].replace(epochs=3, decay_epochs=4)
    plain, fast = recipe.build().double(), recipe.build().double()
    before = {name: value.clone() for name, value in system_state(fast).items()}
    assert fast.speed_up("float32", compile=True) is fast and len(fast.forwards) == 2
    for name, value in system_state(fast).items():
        assert torch.equal(value, before[name]), name  # compiling leaves no trace
    assert relative(losses(fast), losses(plain)) < 1e-7
    assert fast.to_photo(torch.zeros(3, 3, 40, 40).double()).shape == (3, 3, 40, 40)  # outside a step: plain


class Replayed:
    "In place of a CUDA graph: it computes anew, but from the graph's own buffers and into them"

    def __init__(self, captured, batch, draws):
        self.captured, self.batch, self.draws = captured, batch, draws

    def replay(self):
        terms = self.captured.system.turns(self.batch, dict(self.draws))
        self.captured.values.copy_(torch.stack(list(terms.values())))


class OnCPU(Captured):
    "The bookkeeping of a captured step, without a GPU"

    def _aside(self, batch, draws):
        return self.system.turns(batch, draws)

    def _record(self, given, index):
        self.given = {name: x.clone() for name, x in given.items()}
        draws = dict(self.given)
        batch = type(self.batch)(draws.pop("c"), draws.pop("r"), index)
        twin = self.system.recipe.build().double()  # a recording computes nothing
        load_system_state(twin, {name: value.clone() for name, value in system_state(self.system).items()})
        terms = twin.turns(batch, dict(draws))
        self.names, self.values = list(terms), torch.stack(list(terms.values()))
        self.graph = Replayed(self, batch, draws)

    def __call__(self, batch, draws):
        self.batch = batch
        return super().__call__(batch, draws)


@pytest.mark.parametrize("name", RECIPES)
def test_buffers_of_a_captured_step(name):
    "Pictures, draws and rates that are copied into buffers are all that a step needs; the rate is float32 there: 1e-4"
    recipe = RECIPES[name].replace(epochs=2, decay_epochs=4)
    plain, fast = recipe.build().double(), recipe.build().double()
    fast.captured = OnCPU(fast)
    assert relative(losses(fast, 8), losses(plain, 8)) < 1e-4
    assert fast.captured.graph is not None
    c, r = pictures(recipe, 1)[:, 0]
    twice = [torch.cat([x, x]) for x in (c, r)]  # another size: a plain step
    fast.step(*twice)
    load_system_state(fast, system_state(plain))
    assert fast.captured.graph is None  # recorded anew: the optimisers' tensors are others


def test_a_recording_that_computes_something_else_is_dropped(capsys):
    "A graph whose optimiser does nothing: a line says so, and the training is the plain one"

    class Still(Replayed):
        def replay(self):
            weights = [x.clone() for x in self.captured.system.parameters()]
            super().replay()
            for x, old in zip(self.captured.system.parameters(), weights):
                x.data.copy_(old)

    class Wrong(OnCPU):
        def _record(self, given, index):
            super()._record(given, index)
            self.graph = Still(self, self.graph.batch, self.graph.draws)

    recipe = RECIPES["toon2real"].replace(epochs=2, decay_epochs=4)
    plain, fast = recipe.build().double(), recipe.build().double()
    fast.captured = Wrong(fast)
    assert relative(losses(fast, 8), losses(plain, 8)) < 1e-4
    assert fast.captured.graph is None
    assert "it does not compute what the plain step computes" in capsys.readouterr().err


def test_last_layer_in_another_order():
    "`ToColours` as it trains, against the plain convolution: gradients of a step"
    recipe, results = RECIPES["both"], {}
    for dtype in (torch.float64, torch.float32):
        for fast in (True, False):
            ToColours.fast = fast
            try:
                results[fast] = gradients(recipe.build(), dtype)
            finally:
                ToColours.fast = True
        same_gradients(results[True], results[False], 1e-9 if dtype == torch.float64 else 2e-2)


def test_quick_forwards_of_wide_generators():
    "`winograd.Quick` against the plain step in bf16: losses round, and a state that was read back goes on bit for bit"
    recipe = toon2real.replace(side=32, blocks=1, pool=3)
    assert not recipe.build().speed_up("bf16", compile=False).forwards
    quick, again = (recipe.build().speed_up("bf16") for _ in "ab")
    assert len(quick.forwards) == 2 and not recipe.replace(width=32).build().speed_up("bf16").forwards
    plain = losses(recipe.build().speed_up("bf16", compile=False), 1, torch.float32)
    # bf16 rounds at 4e-3; these losses are means over pictures and patches behind some ten layers
    torch.testing.assert_close(losses(quick, 1, torch.float32), plain, rtol=5e-2, atol=0)
    load_system_state(again, {name: value.clone() for name, value in system_state(quick).items()})
    for c, r in zip(*pictures(recipe, 2, torch.float32)):
        quick.step(c, r)
        again.step(c, r)
    assert all(torch.equal(a, b) for a, b in zip(quick.parameters(), again.parameters()))


class Watched(TorchDispatchMode):
    "Counts what a step asks of its device; a tensor of another device, or a number made on the host, is an error"

    def __init__(self):
        super().__init__()
        self.asked = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        self.asked[name] += 1
        if "fused_adam" in name:  # nothing that has no memory can be changed by it
            assert args[0] and all(x.is_meta for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor))
            return None
        out = function(*args, **(kwargs or {}))
        strangers = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor) and not x.is_meta]
        assert not strangers, f"{name} brings {strangers} from the host: a CUDA graph cannot"
        return out


def watched(recipe, system=None) -> Counter:
    """What the turns of a step ask for.

    The meta device stands in for CUDA: what is on it has no values, so reading one is an error, and so is a mixture
    with tensors of the host."""
    with torch.device("meta"):
        system = system or recipe.build()
        pictures = torch.empty(2, recipe.batch, 3, recipe.side, recipe.side)
        noise = torch.empty(len(NOISES), recipe.batch, 4 * recipe.width, recipe.side // 4, recipe.side // 4)
    given = dict(noise=noise) if recipe.name == "unit" else {}  # there are no random numbers on meta
    watch = Watched()

    class OnMeta(Captured):
        def __call__(self, batch, draws):
            with watch:
                return self.system.turns(batch, draws)

    for player in system.players:
        for p in player.parameters:  # Adam would refuse to make these on meta
            step = torch.zeros((), device="meta")
            player.optimizer.state[p] = dict(step=step, exp_avg=torch.empty_like(p), exp_avg_sq=torch.empty_like(p))
    system.captured = OnMeta(system)
    system.set_lr(1, 1)
    system.step(*pictures, **given)
    return watch.asked


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_never_asks_the_host(name, deterministic, monkeypatch):
    "Nothing that a CUDA graph cannot record: no number read, none brought, in forwards, backwards and optimisers"
    if deterministic:
        monkeypatch.setattr(generator, "reflect_pad", generator._flip_pad)
    recipe = RECIPES[name]
    asked = watched(recipe)
    assert asked["aten._fused_adam_.tensor_lr"] == 2 and asked["aten.convolution_backward.default"] > 20
    assert not deterministic or not asked["aten.reflection_pad2d_backward.default"]
    # nor does it copy gradients because an activation wrote into a view: autograd would take them by as_strided
    assert not asked["aten.as_strided.default"]


@pytest.mark.parametrize("slip", ["reads", "brings", "decides"])
def test_a_slip_would_be_seen(slip):
    recipe = RECIPES["toon2real"]
    with torch.device("meta"):
        system = recipe.build()
    loss = system.players[1].loss

    def slipping(batch, scratch):
        total, terms = loss(batch, scratch)
        if slip == "brings":
            return total * torch.tensor([2.0], device="cpu").to("meta"), terms
        return (total * float(total.detach()) if slip == "reads" else total[total > 0].sum()), terms

    system.players[1].loss = slipping
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        watched(recipe, system)


def test_a_system_alone_can_be_sped_up():
    "In a program that imports nothing but the system's own room"
    code = """
import importlib, sys
for room, name in dict(cyclegan="toon2real", unit="unit", patchwise="patchwise").items():
    for imported in [module for module in sys.modules if module.startswith("toon2real")]:
        del sys.modules[imported]
    recipe = getattr(importlib.import_module(f"toon2real.{room}"), name)
    recipe.tiny(width=2, blocks=1).build().speed_up("float32")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_compiler_knows_the_option_that_cuda_asks_for():
    from torch._inductor import config

    assert isinstance(config.force_layout_optimization, bool)


def test_a_system_moves_with_its_moments():
    "Steps, another device, steps: there Adam finds its moments (meta stands in for the GPU)"
    system = RECIPES["toon2real"].build()
    system.step(*pictures(system.recipe, 1, torch.float32)[:, 0])
    for player in system.players:
        assert {x.device.type for state in player.optimizer.state.values() for x in state.values()} == {"cpu"}
    system._bring_state(torch.device("meta"))
    for player in system.players:
        assert {x.device.type for state in player.optimizer.state.values() for x in state.values()} == {"meta"}


@pytest.fixture
def busy(monkeypatch):
    "Two threads, on a machine whose cores others have"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(engine, "several_cost", lambda: 9.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_training_beside_other_work_has_one_thread_and_keeps_their_number(busy, monkeypatch, tmp_path, capsys):
    recipe = RECIPES["toon2real"].replace(epochs=1, decay_epochs=1)
    c, r = (scenes(2, side=27, kind=kind) for kind in ("cartoon", "photo"))
    trainer = Trainer(recipe, c, r, run=tmp_path / "run", samples=1, device="cpu")
    assert torch.get_num_threads() == trainer.run.about["environment"]["threads"] == 1
    assert "2 threads take 9 times as long" in capsys.readouterr().out
    trainer.fit(1)
    torch.set_num_threads(2)
    monkeypatch.setattr(engine, "several_cost", lambda: 0.6)
    Trainer.resume(tmp_path / "run", c, r, device="cpu").fit(2)
    assert torch.get_num_threads() == 1

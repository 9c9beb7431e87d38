"""What holds on CUDA, as far as nobody could try it without a GPU: `pytest -m gpu`, or `python bench/gpu.py`.

Float64 on both devices rounds at 1e-16 and sums in other orders: gradients of a step agree to 1e-9. A captured step
runs the kernels of the plain one; where these add atomically, float64 trajectories of 20 steps agree to 1e-7."""

import copy

import pytest
import torch
from test_engine import RECIPES, gradients, losses, pictures, relative, same_gradients
from toon2real.engine import Captured
from toon2real.generator import InstanceNorm
from toon2real.system import load_system_state, system_state
from toon2real.unit import LayerNorm

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
CUDA = torch.device("cuda")


class On:
    "A system on the GPU that takes pictures from the host"

    def __init__(self, system):
        self.system, self.recipe = system, system.recipe
        self.set_lr = system.set_lr

    def step(self, c, r):
        return {name: value.cpu() for name, value in self.system.step(c.to(CUDA), r.to(CUDA)).items()}

    def to(self, dtype):
        self.system.to(dtype)
        return self

    def named_parameters(self):
        for name, p in self.system.named_parameters():
            twin = torch.empty_like(p, device="cpu")
            twin.grad = p.grad.cpu()
            yield name, twin


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_are_the_processor_s(name):
    plain = gradients(RECIPES[name].build(), torch.float64)
    fast = gradients(On(RECIPES[name].build().to(CUDA)), torch.float64)
    same_gradients(fast, plain, 1e-9)


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
    assert torch.autograd.gradcheck(lambda x: norm(x) * weight, x)


@pytest.mark.parametrize("name", RECIPES)
def test_graph_against_plain(name):
    recipe = RECIPES[name].replace(epochs=3, decay_epochs=4)
    plain, fast = (recipe.build().double().to(CUDA) for _ in range(2))
    plain.speed_up("float32", compile=False)
    fast.speed_up("float32")
    assert plain.captured is None and isinstance(fast.captured, Captured)
    assert relative(losses(On(fast)), losses(On(plain))) < 1e-4  # the rate is float32 in a graph: 6e-8
    assert fast.captured.graph is not None


def test_no_waiting():
    "A step of a captured system never makes the processor wait for the GPU"
    system = RECIPES["toon2real"].build().to(CUDA).speed_up()
    c, r = pictures(system.recipe, 1, torch.float32)[:, 0].to(CUDA)
    for _ in range(5):
        system.step(c, r)
    torch.cuda.set_sync_debug_mode("error")
    try:
        system.set_lr(1, 6)
        system.step(c, r)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", RECIPES)
def test_deterministic_and_resumed(name, monkeypatch):
    "With deterministic algorithms: the same bits twice, and the same after a resume"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    recipe = RECIPES[name]
    c, r = pictures(recipe, 12, torch.float32).to(CUDA)

    def run(system, steps):
        for k in steps:
            system.step(c[k], r[k])
        return system

    torch.use_deterministic_algorithms(True)
    try:
        whole, again = (run(recipe.build().to(CUDA).speed_up(), range(12)) for _ in range(2))
        half = run(recipe.build().to(CUDA).speed_up(), range(6))
        resumed = recipe.build().to(CUDA).speed_up()
        load_system_state(resumed, {name: value.clone() for name, value in system_state(half).items()})
        run(resumed, range(6, 12))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in (again, resumed):
        for key, value in system_state(whole).items():
            assert torch.equal(value, system_state(other)[key]), key

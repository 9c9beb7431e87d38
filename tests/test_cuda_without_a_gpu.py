"""What the host does for a GPU, where there is none: PyTorch runs on a CUDA whose kernels do nothing (fake_cuda.c).

Its own code is the real one, so it finds tensors of two devices, waiting in the loop, what no graph can record, kernels
without a deterministic twin, streams and processes that are set up wrongly. Numbers are left to test_gpu.py."""

import ctypes
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent / "lib"
ASKING = "libtorch_cuda", "libtorch_cuda_linalg", "libtorch_python", "libc10_cuda", "libcaffe2_nvrtc"
THEIRS = ("__cuda", "cuda", "cublas", "cudnn", "nccl", "cuCtx", "cuDevice", "cuPointer")
WITHOUT_NUMBERS = "another_thread or second_gpu or nothing_warns or of_all_kinds or full_gpu"


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> dict:
    "The environment of a program that shall see two GPUs"
    if torch.cuda.is_available() or not (torch.version.cuda or "").startswith("13."):
        pytest.skip("for a machine without a GPU, and a PyTorch for CUDA 13")
    if not (shutil.which("gcc") and shutil.which("nm") and find_spec("triton")):
        pytest.skip("gcc, nm and Triton's headers make it")
    folder = tmp_path_factory.mktemp("cuda")
    library = folder / "libcuda.so.1"
    headers = Path(find_spec("triton").origin).parent / "backends" / "nvidia" / "include"
    build = ["gcc", "-shared", "-fPIC", "-w", "-I", headers, "-D__host__=", "-D__device__="]
    subprocess.run([*build, "-c", HERE / "fake_cuda.c", "-o", folder / "fake.o"], check=True)
    asked = set().union(*(symbols(TORCH / f"{name}.so", "--undefined-only") for name in ASKING))
    rest = {name for name in asked if name.startswith(THEIRS)} - symbols(folder / "fake.o", "--defined-only")
    (folder / "rest.c").write_text("".join(f"long {name}(void) {{ return 0; }}\n" for name in sorted(rest)))
    subprocess.run(
        [*build, folder / "fake.o", folder / "rest.c", "-o", library, f"-Wl,-soname,{library.name}"], check=True
    )
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = dict(LD_PRELOAD=str(library), TORCH_CUDNN_V8_API_DISABLED="1", FAKE_DEVICES="2", PYTHONPATH=paths)
    return os.environ | own | dict(OMP_NUM_THREADS="1")


def symbols(library: Path, which: str) -> set[str]:
    "Names of functions"
    dynamic = ["--dynamic"] if library.suffix == ".so" else []
    listed = subprocess.run(["nm", *dynamic, which, library], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in listed.splitlines()}


def run(fake, *command) -> str:
    done = subprocess.run([sys.executable, *command], env=fake, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_what_needs_no_numbers(fake):
    "Of the tests for a GPU"
    told = run(fake, "-m", "pytest", HERE / "test_gpu.py", "-k", WITHOUT_NUMBERS, "-p", "no:cacheprovider")
    assert "skipped" not in told


def test_steps(fake):
    "Of all systems in both precisions: no tensor of the host, no waiting, a graph that lacks nothing"
    run(fake, __file__, "steps")


def test_two_gpus(fake, tmp_path):
    "A training and its resume, in two processes; nothing on the device is float64, which Apple's GPUs lack"
    launch = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
    told = run(fake, *launch, __file__, "train", tmp_path / "run")
    assert sorted(told.split()) == ["cuda:0", "cuda:1"]


# --- what runs on that CUDA ---


def steps():
    from test_engine import RECIPES
    from test_gpu import CARTOONS, PHOTOS

    from toon2real.data import Domain, Pairs
    from toon2real.engine import Captured
    from toon2real.progress import Meter

    Captured._agrees = lambda self, plain: True
    recipes = *RECIPES.values(), RECIPES["toon2real"].replace(identity=0.0)
    for recipe, precision, exact in product(recipes, ("float32", "bf16"), (False, True)):
        torch.use_deterministic_algorithms(exact)
        system = recipe.build().to("cuda").speed_up(precision)
        domains = Domain.open(CARTOONS, recipe.side + 4), Domain.open(PHOTOS, recipe.side + 4)
        pairs = Pairs(*domains, recipe.side, recipe.batch, device="cuda")
        assert pairs.resident
        meter = Meter(100)
        for k in range(8):  # three plain steps, a recording, replays; from the fourth on the pools are full
            torch.cuda.set_sync_debug_mode("error" if k > 3 else "default")
            system.set_lr(1, k + 1)
            batch = pairs.batch(1 + k // pairs.steps, k % pairs.steps)
            meter.add(system.step(batch.c, batch.r, index=batch.index))
        torch.cuda.set_sync_debug_mode("default")
        assert system.captured.graph is not None, (recipe.name, precision, exact)
    assert not ctypes.CDLL(None).fake_cuda_strays()


class Single(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.is_cuda]
        assert torch.float64 not in {x.dtype for x in made}, function
        return out


def train(path: str):
    from test_gpu import CARTOONS, PHOTOS, SMALL

    from toon2real.training import Trainer

    recipe = SMALL.replace(batch=2, average=0.9)
    with Single():
        Trainer(recipe, CARTOONS, PHOTOS, run=path, samples=2, progress=False).fit(1)
        resumed = Trainer.resume(path, CARTOONS, PHOTOS, progress=False)
        resumed.fit(2)
    print(next(resumed.system.parameters()).device)


if __name__ == "__main__":
    dict(steps=steps, train=train)[sys.argv[1]](*sys.argv[2:])

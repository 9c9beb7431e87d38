"""Generator, discriminator, losses and pool against independent numbers and against float64 arithmetic.

The numbers are in tests/golden, described in its README.md.

Where tolerances come from: the outputs of step 0 were recorded by a float32 program, up to 6e-6 from float64 by its
own account (`float32_spread`); the spot values are unrounded float64, summed in another order by another library
(1e-10 is a thousand times the 1e-13 seen); the float32 bounds are those of the README."""

import copy
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from toon2real.discriminator import PatchGAN, SNConv2d, add_spectral_norm, convolutions, power_iterations
from toon2real.generator import Generator, InstanceNorm, _flip_pad, reflect_pad
from toon2real.losses import ImagePool, exchange

golden = Path(__file__).parent / "golden"
devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
layouts = [torch.contiguous_format, torch.channels_last]


def read(name):
    return json.loads((golden / name).read_text())


@pytest.fixture(scope="module")
def common():
    return load_file(golden / "cyclegan_common.safetensors")


def part(common, net):
    return {k.removeprefix(f"init.{net}."): v for k, v in common.items() if k.startswith(f"init.{net}.")}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ---- the full-size networks


@pytest.fixture(scope="module")
def full():
    return read("cyclegan_fullsize.json")


def recipe(full, net):
    base = full["recipe_forward"]["weight_seed_base"]
    return {
        k.removeprefix(f"{net}."): torch.from_numpy(
            (np.random.RandomState(base + i).standard_normal(shape) * (0.02 if k.endswith("weight") else 0.1)).astype(
                np.float32
            )
        )
        for i, (k, shape) in enumerate(full["tensors"])
        if k.startswith(f"{net}.")
    }


def test_counts(full):

    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert count(Generator()) == full["parameter_count"]["G_A"] == 7_837_699
    assert count(Generator(blocks=9)) == full["parameter_count"]["generator with 9 blocks"] == 11_378_179
    for norm in PatchGAN.norms:
        assert count(PatchGAN(norm=norm)) == full["parameter_count"]["D_A"] == 2_764_737


def test_shapes(full):
    nets = {"G_A": Generator(width=8), "D_A": PatchGAN(width=8)}  # the sides do not depend on the width
    with torch.inference_mode():
        for row in full["output_shapes"]:
            assert list(nets[row["net"]](torch.zeros(row["input"])).shape) == row["output"]
    assert nets["D_A"].to("meta")(torch.zeros(1, 3, 128, 128, device="meta")).shape == (1, 1, 14, 14)


@pytest.mark.parametrize("net", ["G_A", "D_A"])
def test_recipe_forward(full, net):
    f, cls = full["recipe_forward"], Generator if net == "G_A" else PatchGAN
    x = torch.from_numpy(
        np.tanh(np.random.RandomState(f["input_seed"]).standard_normal((1, 3, 128, 128))).astype(np.float32)
    )
    m = cls.from_reference(recipe(full, net))
    with torch.inference_mode():
        y32 = m(x)[0]
        y = m.double()(x.double())[0]
    at = tuple(np.array(f[net]["points"]).T)
    got = y.numpy()[at] if net == "G_A" else y[0].numpy()[at]
    np.testing.assert_allclose(got, f[net]["values"], atol=1e-10, rtol=0)
    np.testing.assert_allclose([y.mean(), y.std(correction=0)], [f[net]["mean"], f[net]["std"]], atol=1e-10, rtol=0)
    assert (y32 - y).abs().max() < 10 * f[net][
        "float32_max_abs_diff"
    ]  # another float32 convolution may round differently from the recorded one


# ---- the small networks of the golden runs, step 0


@pytest.mark.parametrize("dtype,atol", [(torch.float64, 1e-5), (torch.float32, 1e-4)])
@pytest.mark.parametrize("run", ["idt05", "idt0"])
def test_step0(common, run, dtype, atol):
    t = load_file(golden / f"cyclegan_{run}.safetensors")
    c, r = (common[k][0].to(dtype) for k in ("real_A", "real_B"))
    G_r, G_c = (Generator.from_reference(part(common, k)).to(dtype) for k in ("G_A", "G_B"))
    D_r, D_c = (PatchGAN.from_reference(part(common, k), norm="in").to(dtype) for k in ("D_A", "D_B"))
    with torch.inference_mode():
        fr, fc = G_r(c), G_c(r)
        got = dict(
            fake_B=fr,
            fake_A=fc,
            rec_A=G_c(fr),
            rec_B=G_r(fc),
            idt_A=G_r(r),
            idt_B=G_c(c),
            D_A_fake_B=D_r(fr),
            D_A_real_B=D_r(r),
            D_B_fake_A=D_c(fc),
            D_B_real_A=D_c(c),
        )
    assert set(got) == {k.removeprefix("step0.") for k in t if k.startswith("step0.")}
    for k, v in got.items():
        assert v.dtype == dtype
        torch.testing.assert_close(v, t[f"step0.{k}"].to(dtype), atol=atol, rtol=0, msg=lambda m: f"{k}: {m}")


# ---- from_reference


def test_from_reference_infers_its_sizes(common):
    g, d = Generator.from_reference(part(common, "G_A")), PatchGAN.from_reference(part(common, "D_A"), norm="sn+in")
    assert (g.width, len(g.blocks), d.width, d.norm) == (8, 6, 8, "sn+in")
    sd = part(common, "G_A")  # an eight-block generator: two more blocks, the three layers after them shifted
    last = {"model.16": "model.18", "model.19": "model.21", "model.23": "model.25"}
    eight = {next((k.replace(a, b) for a, b in last.items() if k.startswith(a + ".")), k): v for k, v in sd.items()}
    for i in (16, 17):
        eight.update({k.replace("model.10.", f"model.{i}."): v for k, v in sd.items() if k.startswith("model.10.")})
    assert len(Generator.from_reference(eight).blocks) == 8
    ours, theirs = [p for _, p in g.named_parameters()], sd.values()
    assert sorted(p.double().norm().item() for p in ours) == sorted(p.double().norm().item() for p in theirs)


def test_from_reference_variants(common):
    sd = part(common, "G_A")
    x = randn(1, 3, 32, 32, dtype=torch.float32)
    old = {f"module.{k}": v for k, v in sd.items()} | {
        f"module.model.2.{k}": torch.zeros(8) for k in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert torch.equal(Generator.from_reference(sd)(x), Generator.from_reference(old)(x))


def test_from_reference_errors(common):
    g, d = part(common, "G_A"), part(common, "D_A")

    def fails(cls, sd, *words):
        with pytest.raises(ValueError) as e:
            cls.from_reference(sd)
        for w in words:
            assert w in str(e.value), str(e.value)

    fails(Generator, {k: v for k, v in g.items() if k != "model.7.bias"}, "model.7.bias", "missing")
    fails(Generator, g | {"model.7.filt": torch.zeros(1)}, "model.7.filt", "antialiased")
    fails(
        Generator,
        {k.replace("conv_block.5", "conv_block.6"): v for k, v in g.items()},
        "model.10.conv_block.6.",
        "dropout",
    )
    fails(
        Generator, g | {"model.4.weight": torch.zeros(16, 8, 5, 5)}, "model.4.weight", "(16, 8, 5, 5)", "(16, 8, 3, 3)"
    )
    fails(Generator, d, "model.0.")
    fails(Generator, {"state_dict": g}, "state_dict")
    fails(PatchGAN, g, "model.1.")
    fails(PatchGAN, {}, "model.0.weight")
    with pytest.raises(ValueError, match="norm='bn': choose one of in, sn, sn\\+in"):
        PatchGAN.from_reference(d, norm="bn")


# ---- norms and pads: values and gradients


def in_by_hand(x):
    m = x.mean((2, 3), keepdim=True)
    return (x - m) / ((x - m).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize(
    "dtype,tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)  # some hundred roundings of 1e-16 and 6e-8
@pytest.mark.parametrize("device", devices)
def test_instance_norm_gradient(device, dtype, tol):
    for n in (1, 2):
        x0, g0 = randn(n, 8, 6, 10).to(device), randn(n, 8, 6, 10, seed=1).to(device)
        xr = x0.clone().requires_grad_()
        yr = in_by_hand(xr)
        (want,) = torch.autograd.grad(yr, xr, g0)
        for xl in layouts:
            for gl in layouts:
                x, g = (
                    x0.to(dtype).contiguous(memory_format=xl).requires_grad_(),
                    g0.to(dtype).contiguous(memory_format=gl),
                )
                y = InstanceNorm()(x)
                (got,) = torch.autograd.grad(y, x, g)
                (own,) = torch.autograd.grad(F.instance_norm(x), x, g)
                err, err_own = ((v.double() - want).norm() / want.norm() for v in (got, own))
                print(
                    f"{device} {str(dtype)[6:]} batch {n} input {str(xl)[6:]} gradient {str(gl)[6:]}: "
                    f"{err:.0e}, torch's own {err_own:.0e}"
                )
                torch.testing.assert_close(y.double(), yr, atol=tol, rtol=tol)
                assert err < tol


def test_instance_norm_gradcheck():
    for n in (1, 2):
        assert torch.autograd.gradcheck(InstanceNorm(), randn(n, 2, 3, 4).requires_grad_())


@pytest.mark.parametrize("device", devices)
@pytest.mark.parametrize("norm", ["generator", *PatchGAN.norms])
def test_network_gradient_does_not_depend_on_layout(device, norm):
    "The trap as it would bite: a whole network, batch 1, channels_last weights and images"
    net = (
        (Generator(4, 1) if norm == "generator" else PatchGAN(4, norm)).double().to(device).eval()
    )  # eval: u and v of spectral norm stay
    for n in (1, 2):
        x0, grads = randn(n, 3, 32, 40).to(device), []
        for layout in layouts:
            m, x = copy.deepcopy(net).to(memory_format=layout), x0.contiguous(memory_format=layout).requires_grad_()
            y = m(x)
            grads.append(
                torch.autograd.grad(
                    (y * randn(*y.shape, seed=2).to(device).contiguous(memory_format=layout)).sum(),
                    [x, *(p for k, p in m.named_parameters() if k.endswith(("original", "weight")))],
                )
            )
        for a, b in zip(*grads):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * a.abs().max().item() + 1e-15)


@pytest.mark.parametrize("device", devices)
def test_reflect_pad(device):
    for shape, p in [((2, 3, 8, 5), 3), ((1, 2, 4, 4), 3), ((1, 4, 7, 9), 1)]:
        a, b, g = randn(*shape).to(device).requires_grad_(), randn(*shape).to(device).requires_grad_(), None
        ya, yb = F.pad(a, (p,) * 4, mode="reflect"), _flip_pad(b, p)
        assert torch.equal(ya, yb) and torch.equal(ya, reflect_pad(a, p))
        g = randn(*ya.shape, seed=1).to(device)
        torch.testing.assert_close(
            torch.autograd.grad(ya, a, g)[0], torch.autograd.grad(yb, b, g)[0], rtol=1e-14, atol=1e-14
        )
    for pad in (_flip_pad, reflect_pad):
        with pytest.raises((ValueError, RuntimeError)):
            pad(torch.zeros(1, 1, 3, 8), 3)


@pytest.mark.skipif(len(devices) == 1, reason="needs a CUDA device")
def test_deterministic_on_cuda():
    net, x = Generator(16, 2).cuda(), randn(2, 3, 64, 64, dtype=torch.float32).cuda()
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        a, b = (torch.autograd.grad(net(x).square().sum(), list(net.parameters())) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(was)
    assert all(torch.equal(p, q) for p, q in zip(a, b))


# ---- initialisation


def test_init_is_a_function_of_the_seed():
    before = torch.get_rng_state()
    for make in (Generator, PatchGAN):
        a, b, c = (make(8, seed=s).state_dict() for s in (1, 1, 2))
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert all(not torch.equal(a[k], c[k]) for k in a if a[k].numel() > 1 and not k.endswith("bias"))
        assert all((v == 0).all() for k, v in a.items() if k.endswith("bias"))
    assert torch.equal(before, torch.get_rng_state())
    six, nine = Generator(8, 6).state_dict(), Generator(8, 9).state_dict()  # more blocks leave the others' draws alone
    assert all(torch.equal(v, nine[k]) for k, v in six.items())


def test_init_distribution_and_survival():
    raw, sn = PatchGAN(norm="in"), PatchGAN(norm="sn")
    for a, b in zip(convolutions(raw), convolutions(sn)):
        assert torch.equal(a.weight, b.parametrizations.weight.original)  # registering spectral norm kept the draw
    for net in (raw, Generator()):
        w = torch.cat([c.weight.detach().flatten() for c in convolutions(net)]).double()
        n = len(w)  # five standard errors of mean, standard deviation and 4th moment of N(0, .02)
        assert (
            abs(w.mean()) < 5 * 0.02 / n**0.5
            and abs(w.std() / 0.02 - 1) < 5 / (2 * n) ** 0.5
            and abs((w / 0.02).pow(4).mean() - 3) < 5 * 96**0.5 / n**0.5
        )


# ---- spectral norm


def test_sigma_exact():
    for case in read("spectral.json")["cases"]:
        net = add_spectral_norm(torch.nn.Sequential(SNConv2d(8, 16, 4, 2, 1).double()), seed=0)
        w = torch.tensor(case["weight"], dtype=torch.float64).view(case["weight_shape"])
        with torch.no_grad():
            net[0].parametrizations.weight.original.copy_(w)
        gap = case["sigma_second"] / case["sigma_exact"]  # the error of sigma falls by gap^2 an iteration
        power_iterations(net, math.ceil(math.log(1e-14) / (2 * math.log(gap))))
        net.eval()
        sigma = (w.norm() / net[0].weight.norm()).item()
        assert abs(sigma / case["sigma_exact"] - 1) < 1e-9


def uv(net):
    return torch.cat([b.flatten() for b in net.buffers()])


@pytest.mark.parametrize("device", devices)
def test_u_and_v_move_once_a_training_forward(device):
    net, x = PatchGAN(8).to(device), randn(1, 3, 32, 32, dtype=torch.float32).to(device)
    by_hand = power_iterations(copy.deepcopy(net), 1)
    start = uv(net).clone()
    with torch.no_grad():
        for _ in range(3):
            net.eval()(x)
        assert torch.equal(uv(net), start)
        net.train()(x)
    assert torch.equal(uv(net), uv(by_hand)) and not torch.equal(uv(net), start)


@pytest.mark.parametrize("device", devices)
def test_autocast_leaves_sigma_alone(device):
    a, x = PatchGAN(16).to(device), randn(1, 3, 32, 32, dtype=torch.float32).to(device)
    b = copy.deepcopy(a)
    weights = {a: [], b: []}
    for net in weights:
        for conv in convolutions(net):

            def note(layer, args, weight, net=net):
                weights[net].append(weight.detach())

            conv.parametrizations.weight[0].register_forward_hook(note)
    ya = a(x)
    with torch.autocast(device, dtype=torch.bfloat16):
        yb = b(x)
    assert torch.equal(uv(a), uv(b)) and yb.dtype == x.dtype and not torch.equal(ya, yb)
    assert len(weights[a]) == len(weights[b]) == 5
    for plain, own in zip(weights[a], weights[b]):
        assert own.dtype == torch.float32 and torch.equal(own, plain)


@pytest.mark.parametrize("device", devices)
def test_dtypes(device):
    for net in (Generator(4, 1), PatchGAN(4), PatchGAN(4, "in")):
        net, x = net.to(device), randn(1, 3, 32, 32, dtype=torch.float32).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            assert net(x).dtype == torch.float32 and net(x.bfloat16()).dtype == torch.bfloat16
        assert net.double()(x.double()).dtype == torch.float64


# ---- the pool


def labels(ls):
    return torch.tensor(ls, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


@pytest.mark.parametrize(
    "case", read("cyclegan_pool.json")["pool_only"], ids=lambda c: f"size{c['pool_size']}-batch{c['batch']}"
)
@pytest.mark.parametrize("ahead", [False, True])
def test_pool_only(case, ahead):
    n, size = case["batch"], case["pool_size"]
    pool, rng = ImagePool(size, random.Random(case["seed"]) if ahead else case["seed"]), random.Random(case["seed"])
    for q, want in enumerate(case["returned"]):
        new, draws = list(range(q * n, q * n + n)), None
        if ahead:  # the same decisions, drawn by the caller
            draws = []
            for i in new:
                u = rng.uniform(0, 1) if i >= size and size else 0.0
                draws.append((u, rng.randint(0, size - 1) if u > 0.5 else 0))
        assert pool.query(labels(new), draws)[:, 0, 0, 0].tolist() == want
    if ahead:
        assert pool.rng.getstate() == random.Random(case["seed"]).getstate()  # and none of the pool's own
    stored = pool.state_dict()["images"]
    assert (stored[:, 0, 0, 0].tolist() if size else []) == case["final_pool"]


@pytest.mark.parametrize("device", devices)
def test_plan_ahead_and_exchange_later(device):
    "What a captured graph does: decisions for many steps first, pixels afterwards, equal to queries one by one"
    a, b, like = ImagePool(4, 1), ImagePool(4, 1), labels([0]).to(device)
    plans = [a.plan(3) for _ in range(20)]
    store = a.reserve(like)
    for t, plan in enumerate(plans):
        x = labels([3 * t, 3 * t + 1, 3 * t + 2]).to(device)
        assert torch.equal(exchange(store, x, *(torch.tensor(o, device=device) for o in zip(*plan))), b.query(x))
    assert torch.equal(a.state_dict()["images"], b.state_dict()["images"])


def test_pools_of_the_run_share_their_draws():
    run, made = read("cyclegan_pool.json"), []

    class Recorded(random.Random):
        def uniform(self, a, b):
            made.append(["uniform", super().uniform(a, b)])
            return made[-1][1]

        def randint(self, a, b):
            made.append(["randint", super().randint(a, b)])
            return made[-1][1]

    rng = Recorded(run["random_seed"])
    pools = [ImagePool(run["pool_size"], rng) for _ in "BA"]
    got = [[int(p.query(labels([t]))[0, 0, 0, 0]) for p in pools] for t in range(run["steps"])]
    assert [list(x) for x in zip(*got)] == [run["returned_fake_B_step"], run["returned_fake_A_step"]]
    assert made == run["random_draws"]


@pytest.mark.parametrize("device", devices)
def test_pool_memory(device):
    pool = ImagePool(4, 0)
    for t in range(20):
        x = labels([t, t + 0.5]).clone().to(device).requires_grad_()
        y = pool.query(x)
        assert not y.requires_grad and y.device == x.device and y.dtype == x.dtype
        kept = pool.images.clone()
        y.fill_(-1)
        with torch.no_grad():
            x.fill_(-1)
        assert torch.equal(pool.images, kept)  # neither what came out nor what went in shares memory with the store
    assert len(pool) == 4


def test_pool_resume():
    a = ImagePool(5, 3)
    for t in range(4):
        a.query(labels([t]))
    for more in (0, 20):  # not yet full, full
        for t in range(more):
            a.query(labels([t]))
        b = ImagePool(5, 99)
        b.load_state_dict(copy.deepcopy(a.state_dict()))
        c = copy.deepcopy(a)
        for t in range(100, 130):
            assert torch.equal(b.query(labels([t])), c.query(labels([t])))
    empty = ImagePool(5)
    empty.load_state_dict(ImagePool(5).state_dict())
    assert len(empty) == 0
    with pytest.raises(ValueError, match="size 2"):
        ImagePool(2).load_state_dict(a.state_dict())
    with pytest.raises(ValueError, match="2 images and 1 draws"):
        ImagePool(2).query(labels([1, 2]), [(0.0, 0)])
    with pytest.raises(ValueError, match=r"\(3, 2, 2\).*\(3, 4, 4\)"):
        a.query(torch.zeros(1, 3, 4, 4))

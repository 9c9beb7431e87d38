"""UNIT against recorded numbers (tests/golden/README.md, section 4).

Where tolerances come from: losses, outputs and gradient norms of the float64 run are held to what that README
recommends (1e-7, 1e-6, 1e-6); outputs of step 0 were recorded in float32, up to 9e-6 from float64 by their own account
(`float32_spread`), so 1e-4 as recommended."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
from safetensors.torch import load_file

from toon2real.system import load_system_state, recipe_from_dict, recipe_to_dict, system_state
from toon2real.unit import NOISES, UNIT, LayerNorm, _reference_keys, unit
from toon2real.weights import load_weights, save_weights

golden = Path(__file__).parent / "golden"
NETS = ("gen_a", "gen_b", "dis_a", "dis_b")
RECORDED = ("dis.a", "dis.b", "gen.a", "gen.b", "gen.cyc_b", "gen.cyc_a")
NAMES = dict(
    dis_c="dis_a",
    dis_r="dis_b",
    dis_total="dis_total",
    gen_adv_c="gen_adv_a",
    gen_adv_r="gen_adv_b",
    gen_recon_x_c="gen_recon_x_a",
    gen_recon_x_r="gen_recon_x_b",
    gen_recon_kl_c="gen_recon_kl_a",
    gen_recon_kl_r="gen_recon_kl_b",
    gen_cyc_x_c="gen_cyc_x_a",
    gen_cyc_x_r="gen_cyc_x_b",
    gen_recon_kl_cyc_crc="gen_recon_kl_cyc_aba",
    gen_recon_kl_cyc_rcr="gen_recon_kl_cyc_bab",
    gen_total="gen_total",
)


@pytest.fixture(scope="module")
def data():
    return {k: v.double() for k, v in load_file(golden / "unit.safetensors").items()}


@pytest.fixture(scope="module")
def record():
    return json.loads((golden / "unit.json").read_text())


def state_of(data):
    return {n: {k.removeprefix(f"init.{n}."): v for k, v in data.items() if k.startswith(f"init.{n}.")} for n in NETS}


def build(data):
    return UNIT.from_reference(state_of(data), unit.replace(side=64)).double()


def noise(data, t):
    return [data[f"noise.step{t}.{p}"] for p in RECORDED]


def images(n, seed=0, side=64):
    return torch.rand(2, n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def named_parameters(s):
    "{the reference's key: our parameter}"
    out = {}
    for d, E, H, D in (("a", s.E_c, s.H_c, s.D_c), ("b", s.E_r, s.H_r, s.D_r)):
        for net, prefixes in zip((nn.ModuleList([E, H]), D), _reference_keys(d, s.recipe.blocks)):
            layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, LayerNorm))]
            for layer, prefix in zip(layers, prefixes, strict=True):
                out |= {f"{prefix}.{name}": p for name, p in layer.named_parameters()}
    return out


def outputs(s, data):
    c, r = data["x_a"][0].to(next(s.parameters())), data["x_b"][0].to(next(s.parameters()))
    with torch.no_grad():
        h_a, h_b = s.E_c(c), s.E_r(r)
        out = dict(
            h_a=h_a, h_b=h_b, x_a_recon=s.H_c(h_a), x_b_recon=s.H_r(h_b), x_ba=s.to_cartoon(r), x_ab=s.to_photo(c)
        )
        for name, D, x in (
            ("dis_a_x_a", s.D_c, c),
            ("dis_a_x_ba", s.D_c, out["x_ba"]),
            ("dis_b_x_b", s.D_r, r),
            ("dis_b_x_ab", s.D_r, out["x_ab"]),
        ):
            out |= {f"{name}.scale{i}": logits for i, logits in enumerate(D(x))}
    return out


def compare(got, data, prefix, atol):
    keys = [k for k in data if k.startswith(prefix)]
    assert len(keys) >= 14
    for k in keys:
        torch.testing.assert_close(
            got[k.removeprefix(prefix)].double(), data[k], rtol=0, atol=atol, msg=lambda m, k=k: f"{k}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_step0_outputs(data, dtype):
    compare(outputs(build(data).to(dtype), data), data, "step0.", 1e-4)


def test_trajectory(data, record):
    "Four steps in float64: losses, gradient norms of the first, every weight and the outputs after the last"
    s = build(data)
    ineffective = set(record["ineffective_biases"])
    ours = named_parameters(s)
    start = {k: v.detach().clone() for k, v in ours.items()}
    assert ours.keys() == record["step0_gradient_l2_f64run"].keys() and len(ours) == len(list(s.parameters()))
    for t, expected in enumerate(record["losses_f64run"]):
        got = s.step(data["x_a"][t], data["x_b"][t], noise=iter(noise(data, t)))
        assert list(got) == list(NAMES) and {NAMES[k] for k in got} == set(expected)
        for k, v in got.items():
            assert v.item() == pytest.approx(expected[NAMES[k]], rel=1e-7, abs=0), (t, k)
        if t == 0:
            for k, v in record["step0_gradient_l2_f64run"].items():
                if k not in ineffective:
                    assert ours[k].grad.norm().item() == pytest.approx(v, rel=1e-6, abs=0), k
    for k, v in record["final_f64run"].items():
        if k in ineffective:
            continue
        p, move = ours[k].detach(), ours[k].detach() - start[k]
        assert p.flatten()[:8].tolist() == pytest.approx(
            v["first8"], rel=0, abs=1e-6
        ) and p.norm().item() == pytest.approx(v["l2"], rel=1e-6), k
        assert move.norm().item() == pytest.approx(v["delta_l2"], rel=1e-5), (
            k
        )  # weights are stored to 6e-8, moves are 1e-3 or more
    compare(outputs(s, data), data, "after_f64run.", 1e-6)


def test_float32_first_step(data, record):
    got = (
        build(data).float().step(data["x_a"][0].float(), data["x_b"][0].float(), [z.half() for z in noise(data, 0)])
    )  # as stored; the third argument may be the noise
    for k, v in got.items():
        assert v.dtype == torch.float32 and v.item() == pytest.approx(record["losses"][0][NAMES[k]], rel=1e-5, abs=0), k


def test_full_size(record):
    "Parameter counts and every shape, in the reference's order"
    full, s = record["full_size"], unit.build()
    shapes = [[k, list(p.shape)] for k, p in named_parameters(s).items()]
    assert sorted(shapes) == sorted(full["tensors"])

    def count(*nets):
        return sum(p.numel() for net in nets for p in net.parameters())

    assert (
        dict(gen_a=count(s.E_c, s.H_c), gen_b=count(s.E_r, s.H_r), dis_a=count(s.D_c), dis_b=count(s.D_r))
        == full["parameter_count"]
    )
    assert (count(s.E_c), count(s.H_c)) == (5_385_856, 5_754_627)
    with torch.inference_mode():
        x = images(1, side=128)[0]
        assert (
            list(s.E_c(x).shape) == full["latent_shape_for_1x3x128x128"]
            and list(s.to_photo(x).shape) == full["image_shape_for_1x3x128x128"]
        )
        for side in (64, 128, 256):
            assert [list(logits.shape) for logits in s.D_c(images(1, side=side)[0])] == full[
                f"dis_shapes_for_1x3x{side}x{side}"
            ]


def test_smallest_side(record):
    "What the reference's discriminators accept, ours do; what they do not, is refused when the recipe is made"
    s = unit.tiny(width=4).build()
    for side, works in record["full_size"]["dis_accepts_square_size"]:
        if works:
            unit.replace(side=side)
            s.D_c(torch.zeros(1, 3, side, side))
            continue
        with pytest.raises(ValueError, match=f"side={side}.*side=64 or more"):
            unit.replace(side=side)
        with pytest.raises(ValueError, match=f"{side} x {side}"):
            s.D_c(torch.zeros(1, 3, side, side))
    assert s.to_photo(torch.zeros(1, 3, 8, 20)).shape == (1, 3, 8, 20)
    with pytest.raises(ValueError, match="multiples of 4"):
        s.to_photo(torch.zeros(1, 3, 64, 62))


def test_learning_rates(record):
    lr, s = json.loads((golden / "lr.json").read_text())["unit_step"], unit.tiny(width=4).build()
    assert (lr["base_lr"], lr["step_size"]) == (unit.lr, unit.halve_every)
    for n, want in zip(lr["iteration"], lr["lr"], strict=True):
        s.set_lr(1, n)
        for p in s.players:
            assert p.optimizer.param_groups[0]["lr"] == pytest.approx(want, rel=1e-12)


def test_initialisation():
    "A function of the recipe alone, of the stated spread, and torch's own generator is not touched"
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a = unit.replace(width=16).build()
    a.step(*images(1))
    assert torch.equal(torch.get_rng_state(), before)
    a, b, other = unit.replace(width=16).build(), unit.replace(width=16).build(), unit.replace(width=16, seed=1).build()
    for (k, x), y, z in zip(a.state_dict().items(), b.state_dict().values(), other.state_dict().values()):
        assert torch.equal(x, y), k
        if k.endswith(("weight", "gamma")):
            assert not torch.equal(x, z), k
    for k, p in a.named_parameters():
        if k.endswith(("bias", "beta")):
            assert not p.any(), k
        elif k.endswith("gamma"):
            assert p.min() >= 0 and p.max() <= 1 and p.std() > 0.1, k
        else:
            assert p.std().item() == pytest.approx(
                0.02 if k[0] == "D" else (2 / p[0].numel()) ** 0.5, rel=5 / (2 * p.numel()) ** 0.5
            ), k  # five standard errors of a standard deviation
    assert not torch.equal(a.E_c.down[1].weight, a.E_r.down[1].weight) and not torch.equal(
        a.D_c.scales[0][1].weight, a.D_c.scales[1][1].weight
    )


def test_noise():
    "Standard normal, different at each place and sample, the same however a batch is split and whatever the dtype"
    s, x = unit.tiny(width=8).build(), images(3)[0]
    z = s.draw_noise(np.array([4, 5, 6]), x)
    assert tuple(z) == NOISES
    flat = torch.stack([v[i].flatten() for v in z.values() for i in range(3)])
    assert (
        torch.allclose(torch.corrcoef(flat), torch.eye(18), atol=6 / flat.shape[1] ** 0.5)
        and abs(flat.mean()) < 5 / flat.numel() ** 0.5
        and abs(flat.std() - 1) < 5 / (2 * flat.numel()) ** 0.5
    )  # standard errors
    for i in range(3):
        for n, v in s.draw_noise([4 + i], x[:1].double()).items():
            assert v.dtype == torch.float64 and torch.equal(v.float(), z[n][i : i + 1]), n
    assert not torch.equal(
        s.draw_noise([4], x[:1])["gen_c"], unit.tiny(width=8, seed=1).build().draw_noise([4], x[:1])["gen_c"]
    )


def test_noise_follows_the_index():
    "`step` draws for the numbers it is given, third or by name, and counts on from the last"
    (c, r), recipe = images(1), unit.tiny(width=4, blocks=1)

    def first(*a, **kw):
        return recipe.build().step(c, r, *a, **kw)["gen_total"]

    assert first() == first(index=np.array([0])) and first() != first(index=np.array([1]))
    s = recipe.build()
    s.step(c, r, index=np.array([7]))
    assert (
        s.seen == 8 and torch.equal(s.step(c, r)["dis_c"], s.step(c, r, index=np.array([8]))["dis_c"]) is False
    )  # weights have moved between the two
    assert s.seen == 9
    for bad, message in (
        (list(recipe.build().draw_noise([0], c).values())[:5], "5 tensors"),
        ([torch.zeros(1, 1, 1, 1)] * 6, r"dis_c has shape \(1, 1, 1, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            s.step(c, r, noise=bad)
    assert s._given is None and s.step(c, r)


def test_batch_is_the_mean_of_its_samples():
    "No term mixes samples: a batch of two is the mean of two batches of one (float64 rounding)"
    recipe, (c, r) = unit.tiny(width=4, blocks=1, batch=2), images(2).double()
    both = recipe.build().double().step(c, r, index=np.array([0, 1]))
    apart = [recipe.build().double().step(c[i : i + 1], r[i : i + 1], index=np.array([i])) for i in range(2)]
    for k in ("dis_c", "dis_r", "dis_total", "gen_recon_kl_c", "gen_recon_x_r"):
        assert both[k].item() == pytest.approx((apart[0][k] + apart[1][k]).item() / 2, rel=1e-10), k


@pytest.mark.parametrize("shared", [0, 1])
def test_resume_bit_for_bit(shared):
    recipe, (c, r) = unit.tiny(width=4, blocks=2, shared_blocks=shared), images(6)

    def run(s, ns):
        for n in ns:
            s.set_lr(1, n + 1)
            s.step(c[n : n + 1], r[n : n + 1])
        return s

    whole, first, second = run(recipe.build(), range(6)), run(recipe.build(), range(3)), recipe.build()
    load_system_state(second, {k: v.clone() for k, v in system_state(first).items()})
    a, b = system_state(whole), system_state(run(second, range(3, 6)))
    assert a.keys() == b.keys() and int(a["seen"]) == 6
    for k in a:
        assert torch.equal(a[k], b[k]), k


def test_shared_blocks(data):
    "One module in both domains, moved once a step by the gradients of both; the reference shares nothing"
    recipe = unit.tiny(width=4, blocks=2, shared_blocks=1)
    s = recipe.build()
    assert (
        s.E_c.blocks[-1] is s.E_r.blocks[-1]
        and s.H_c.blocks[0] is s.H_r.blocks[0]
        and s.E_c.blocks[0] is not s.E_r.blocks[0]
        and s.H_c.blocks[-1] is not s.H_r.blocks[-1]
    )
    ps = s.players[1].parameters
    assert len(ps) == len({id(p) for p in ps}) == len(unit.tiny(width=4, blocks=2).build().players[1].parameters) - 8
    assert {id(p) for pl in s.players for p in pl.parameters} == {id(p) for p in s.parameters()}
    s.step(*images(1))
    assert torch.equal(s.state_dict()["E_c.blocks.1.layers.1.weight"], s.state_dict()["E_r.blocks.1.layers.1.weight"])
    with pytest.raises(ValueError, match="shared_blocks=1.*shared_blocks=0"):
        UNIT.from_reference(state_of(data), recipe)
    for bad, message in ((dict(shared_blocks=2), "shared_blocks=2"), (dict(blocks=0), "blocks=0")):
        with pytest.raises(ValueError, match=message):
            recipe.replace(**bad)


@pytest.mark.parametrize("shared", [0, 1])
def test_weights_file_and_recipe(tmp_path, shared):
    recipe = unit.tiny(width=4, blocks=1, shared_blocks=shared)
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe
    s = recipe.build()
    s.step(*images(1))
    save_weights(tmp_path / "w.safetensors", s, dtype=torch.float32)
    again, (c, r) = load_weights(tmp_path / "w.safetensors"), images(1)
    s.eval()  # a training sums the last layer in another order
    with torch.no_grad():
        assert torch.equal(again.to_photo(c), s.to_photo(c)) and torch.equal(again.to_cartoon(r), s.to_cartoon(r))


def test_from_reference_names_what_does_not_fit(data):
    recipe = unit.replace(side=64)
    s = UNIT.from_reference({n: {f"module.{k}": v for k, v in sd.items()} for n, sd in state_of(data).items()}, recipe)
    assert (s.recipe.width, s.recipe.blocks) == (8, 2)

    def broken(net, **changes):
        state = state_of(data)
        for k, v in changes.items():
            k = k.replace("__", ".")
            if v is None:
                del state[net][k]
            else:
                state[net][k] = v
        return state

    z = torch.zeros(5)
    for state, message in (
        (broken("gen_b", dec__model__2__norm__gamma=None), "gen_b.dec.model.2.norm.gamma' is missing"),
        (broken("gen_a", dec__model__4__norm__beta=z), r"gen_a.dec.model.4.norm.beta' has shape \(5,\)"),
        (broken("gen_a", enc__model__0__conv__weight=None), "gen_a.enc.model.0.conv.weight' is missing"),
        (broken("dis_b", cnns__1__4__bias=None), "dis_b.cnns.1.4.bias' is missing"),
        (broken("dis_a", extra=z), "dis_a.extra"),
        ({"gen_a": {}}, "'dis_a', 'dis_b', 'gen_b' is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            UNIT.from_reference(state, recipe)


def test_bf16():
    "Outputs and terms stay float32, every parameter gets a finite gradient, losses are float32's to bf16's eight bits"
    recipe, (c, r) = unit.tiny(width=8, blocks=1), images(1)
    a, b = recipe.build(), recipe.build()
    b.precision = "bf16"
    x, y = a.step(c, r), b.step(c, r)
    for k in x:
        assert y[k].dtype == torch.float32 and y[k].item() == pytest.approx(x[k].item(), rel=0.05), (
            k
        )  # 0.4 % a rounding, some twenty layers
    for k, p in b.named_parameters():
        assert p.grad.dtype == torch.float32 and p.grad.isfinite().all(), k
    with b.amp():
        assert b.E_c(c).dtype == b.to_photo(c).dtype == b.D_c(c)[0].dtype == torch.float32


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n", [1, 2])
def test_layer_norm(layout, n):
    "Values and gradients against a loop over images, float64 rounding; and the same in bf16 input, to its eight bits"
    g = torch.Generator().manual_seed(n)
    ln, x = (
        LayerNorm(6).double(),
        (torch.randn(n, 6, 9, 7, generator=g, dtype=torch.float64) + 3).to(memory_format=layout).requires_grad_(),
    )
    up = torch.randn(n, 6, 9, 7, generator=g, dtype=torch.float64).to(memory_format=layout)
    with torch.no_grad():
        ln.gamma.uniform_(generator=g)
        ln.beta.normal_(generator=g)
    want = torch.stack(
        [(i - i.mean()) / (i.std(unbiased=True) + 1e-5) * ln.gamma[:, None, None] + ln.beta[:, None, None] for i in x]
    )
    torch.testing.assert_close(ln(x), want, rtol=0, atol=1e-12)
    args = (x, ln.gamma, ln.beta)
    for a, b in zip(torch.autograd.grad(ln(x), args, up), torch.autograd.grad(want, args, up)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    half = ln.float()(x.detach().bfloat16())
    assert half.dtype == torch.bfloat16 and (half.double() - want.detach()).abs().max() < 0.1


def test_compute_is_the_players_own():
    "The discriminators' turn leaves the generators without gradients, and the other way round"
    s = unit.tiny(width=4, blocks=1).build()
    c, r = images(1)
    from toon2real.data import Batch

    b = Batch(c, r, np.arange(1))
    dis, gen = s.players
    assert (dis.name, gen.name) == ("discriminators", "generators")
    total, _ = dis.loss(b, s.draws(b))
    total.backward(inputs=dis.parameters)
    assert all(p.grad is None for p in gen.parameters) and all(p.grad is not None for p in dis.parameters)
    assert all(
        g["weight_decay"] == 1e-4 and tuple(g["betas"]) == (0.5, 0.999) and g["eps"] == 1e-8
        for p in s.players
        for g in p.optimizer.param_groups
    )

#!/usr/bin/env python
"""One training step of Cartoon-to-real (or toon2real) against a plain float32 step as the public CycleGAN makes it.

The peer is written here: plain torch modules, every forward by itself, pictures decoded and augmented by PIL in a
DataLoader, losses read with .item() at each step, pools as lists on the host. It starts from the same weights, and the
losses of the first step must agree before anything is timed. Peer and ours take turns in one process; medians count,
and a ratio is the median over the rounds. The loader has no workers: they would work on while ours is timed.

    python bench/step.py                              a table, in about five minutes on two idle cores
    python bench/step.py --batch 16 --compile         the large batch in one round, three minutes
    python bench/step.py --side 64 --width 16 --blocks 3 --rounds 2 --compile        does it run? 20 processor seconds

Compiling takes 130 processor seconds of the first; `--compile` without a number leaves it out. On CUDA, where
bench/gpu.py measures more, a time is of ten steps in a row, for a training does not wait after each."""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from datetime import date
from itertools import chain
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from toon2real.cyclegan import cartoon2real, toon2real
from toon2real.data import Domain, Pairs, load_side
from toon2real.generator import convolutions, raw_weight
from toon2real.images import to_tensor
from toon2real.scenes import write_scenes

RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS = {1: 5, 4: 3, 16: 1}  # by batch; others as the next smaller one


def conv(a, b, k, stride=1, padding=0):
    return [nn.Conv2d(a, b, k, stride, padding), nn.InstanceNorm2d(b), nn.ReLU(True)]


def up(a, b):
    return [nn.ConvTranspose2d(a, b, 3, 2, 1, 1), nn.InstanceNorm2d(b), nn.ReLU(True)]


class Residual(nn.Module):
    def __init__(self, w):
        super().__init__()
        second = [nn.ReflectionPad2d(1), nn.Conv2d(w, w, 3), nn.InstanceNorm2d(w)]
        self.body = nn.Sequential(nn.ReflectionPad2d(1), *conv(w, w, 3), *second)

    def forward(self, x):
        return x + self.body(x)


def generator(w, blocks):
    first = [nn.ReflectionPad2d(3), *conv(3, w, 7), *conv(w, 2 * w, 3, 2, 1), *conv(2 * w, 4 * w, 3, 2, 1)]
    last = [*up(4 * w, 2 * w), *up(2 * w, w), nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh()]
    return nn.Sequential(*first, *[Residual(4 * w) for _ in range(blocks)], *last)


def discriminator(w, norm):
    def layer(a, b, stride, between):
        made = nn.Conv2d(a, b, 4, stride, 1)
        if "sn" in norm:
            made = nn.utils.parametrizations.spectral_norm(made)
        return [made, *([nn.InstanceNorm2d(b)] if between and "in" in norm else [])]

    leaky = nn.LeakyReLU(0.2, True)
    middle = [(w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 1)]
    layers = list(chain(*[[*layer(a, b, stride, True), leaky] for a, b, stride in middle]))
    return nn.Sequential(*layer(3, w, 2, False), leaky, *layers, *layer(8 * w, 1, 1, False))


class Pool:
    "Fifty old fakes in a list"

    def __init__(self):
        self.kept = []

    def query(self, images):
        out = []
        for image in images.detach().split(1):
            if len(self.kept) < 50:
                self.kept.append(image)
            elif random.random() > 0.5:
                i = random.randrange(50)
                image, self.kept[i] = self.kept[i].clone(), image
            out.append(image)
        return torch.cat(out)


class Pictures(Dataset):
    "An aligned number of files of both kinds, decoded and augmented each time"

    def __init__(self, cartoon, photo, side):
        self.files, self.side = [sorted(Path(f).iterdir()) for f in (cartoon, photo)], side

    def __len__(self):
        return max(map(len, self.files))

    def _picture(self, file):
        stored = load_side(self.side)
        image = Image.open(file).convert("RGB").resize((stored, stored), Image.BICUBIC)
        x, y = (random.randint(0, stored - self.side) for _ in "xy")
        image = image.crop((x, y, x + self.side, y + self.side))
        if random.random() < 0.5:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        return to_tensor(image)

    def __getitem__(self, i):
        cartoons, photos = self.files
        return self._picture(cartoons[i % len(cartoons)]), self._picture(random.choice(photos))


class Peer:
    "The step as the public reference makes it"

    def __init__(self, system, device):
        self.recipe = recipe = system.recipe
        self.G = [generator(recipe.width, recipe.blocks).to(device) for _ in "rc"]
        self.D = [discriminator(recipe.width, recipe.norm).to(device) for _ in "rc"]
        ours = [system.G_r, system.G_c, system.D_r, system.D_c]
        for net, own in zip(self.G + self.D, ours):
            for a, b in zip(convolutions(net), convolutions(own), strict=True):
                raw_weight(a).data.copy_(raw_weight(b))
                a.bias.data.copy_(b.bias)
            buffers = dict(own.named_buffers())
            for (_, a), b in zip(net.named_buffers(), buffers.values(), strict=True):
                a.copy_(b)
        adam = dict(lr=recipe.lr, betas=recipe.betas)
        self.adam_G, self.adam_D = (
            torch.optim.Adam(chain(*[net.parameters() for net in nets]), **adam) for nets in (self.G, self.D)
        )
        self.pools = Pool(), Pool()

    def step(self, c, r, read=True):
        "Losses as numbers, or, where nobody reads them yet, as they lie on the device"
        (G_r, G_c), (D_r, D_c), recipe = self.G, self.D, self.recipe
        mse, l1 = nn.functional.mse_loss, nn.functional.l1_loss
        for p in chain(D_r.parameters(), D_c.parameters()):
            p.requires_grad_(False)
        fake_r, fake_c = G_r(c), G_c(r)
        back_c, back_r = G_c(fake_r), G_r(fake_c)
        terms = {}
        if recipe.identity:
            terms["identity_r"] = l1(G_r(r), r) * recipe.cycle * recipe.identity
            terms["identity_c"] = l1(G_c(c), c) * recipe.cycle * recipe.identity
        for name, D, fake in (("G_r", D_r, fake_r), ("G_c", D_c, fake_c)):
            judged = D(fake)
            terms[name] = mse(judged, torch.ones_like(judged))
        terms["cycle_c"], terms["cycle_r"] = l1(back_c, c) * recipe.cycle, l1(back_r, r) * recipe.cycle
        self.adam_G.zero_grad()
        sum(terms.values()).backward()
        self.adam_G.step()
        for p in chain(D_r.parameters(), D_c.parameters()):
            p.requires_grad_(True)
        self.adam_D.zero_grad()
        for name, D, real, fake, pool in zip(("D_r", "D_c"), self.D, (r, c), (fake_r, fake_c), self.pools):
            old = pool.query(fake)
            on_real, on_fake = D(real), D(old)
            loss = mse(on_real, torch.ones_like(on_real)) + mse(on_fake, torch.zeros_like(on_fake))
            terms[name] = loss * 0.5
            terms[name].backward()
        self.adam_D.step()
        return {name: value.item() for name, value in terms.items()} if read else terms


def forever(loader, device):
    while True:
        for c, r in loader:
            yield c.to(device), r.to(device)


def same_losses(recipe, device):
    "Peer and ours start alike: float64 rounds at 1e-16, twenty layers deep 1e-9 at most"
    recipe = recipe.replace(batch=min(recipe.batch, 2))  # more would take memory and show nothing else
    system = recipe.build().to(device)
    peer = Peer(system, device)
    for net in (system, *peer.G, *peer.D):
        net.double()
    c, r = torch.rand(2, recipe.batch, 3, recipe.side, recipe.side, device=device, dtype=torch.float64) * 2 - 1
    theirs = peer.step(c, r)
    own = system.step(c, r)
    for name, value in theirs.items():
        if abs(value - own[name].item()) > 1e-9 * abs(value):
            sys.exit(f"{name}: the peer's first loss is {value}, ours {own[name].item()}: they do not do the same")


class Case:
    "One batch and one identity weight: the peer and our ways, each with its own data"

    def __init__(self, recipe, folder, device, ways):
        self.recipe, self.device = recipe, device
        same_losses(recipe, device)
        pictures = Pictures(folder / "cartoon", folder / "photo", recipe.side)
        loader = DataLoader(pictures, recipe.batch, shuffle=True, drop_last=True)
        batches, peer = forever(loader, device), Peer(recipe.build().to(device), device)
        self.steps = {"peer, float32": lambda: peer.step(*next(batches))}
        domains = [
            Domain.open(folder / kind, load_side(recipe.side), folder / "cache") for kind in ("cartoon", "photo")
        ]
        pairs = Pairs(*domains, recipe.side, recipe.batch, recipe.seed, device)
        for name, options in ways.items():
            system = recipe.build().to(device).speed_up(**options)
            if options["compile"] is True and not system.forwards:
                continue  # it said why
            self.steps[name] = self.ours(system, pairs)

    def ours(self, system, pairs):
        def step():
            batch = pairs.batch(1 + step.done // pairs.steps, step.done % pairs.steps)
            step.done += 1
            return system.step(batch.c, batch.r, index=batch.index)

        step.done = 0
        return step

    def seconds(self, step):
        steps = 10 if self.device.type == "cuda" else 1
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    def measure(self, rounds, warm_up):
        for step in self.steps.values():
            for _ in range(warm_up):
                self.seconds(step)
        times = {name: [] for name in self.steps}
        for _ in range(rounds):
            for name, step in self.steps.items():
                times[name].append(self.seconds(step))
        return times


def flops(recipe):
    "Of a pair, forwards and backwards, counted"
    system = recipe.replace(batch=1).build()
    with FlopCounterMode(display=False) as counter:
        system.step(*(torch.rand(2, 1, 3, recipe.side, recipe.side) * 2 - 1))
    return counter.get_total_flops()


def fastest(work, device, times=5):
    "Seconds of its quickest call"
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken)


@torch.no_grad()
def peak(device, dtype):
    "Operations a second of a large matrix product or of a large convolution, whichever has more"
    side, images = (8192, 16) if device.type == "cuda" else (2048, 1)
    channels, pixels = 256, 128
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    product = 2 * side**3 / fastest(lambda: a @ b, device)
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype)
    x = torch.randn(images, channels, pixels, pixels, device=device).to(dtype)
    convolution = 2 * 9 * images * channels**2 * pixels**2 / fastest(lambda: layer(x), device)
    return max(product, convolution)


def environment(device):
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return dict(
        date=str(date.today()),
        torch=torch.__version__,
        device=name,
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        load=round(load, 2),
    )


def rows_of(case, times, work, peaks):
    for name, taken in times.items():
        seconds = statistics.median(taken)
        rate = case.recipe.batch / seconds
        kind = "bf16" if "bf16" in name else "float32"
        yield dict(
            batch=case.recipe.batch,
            identity=case.recipe.identity,
            what=name,
            seconds=seconds,
            pairs=rate,
            times=statistics.median(p / t for p, t in zip(times["peer, float32"], taken)),
            gflops=work * rate / 1e9,
            of_peak=work * rate / peaks[kind],
            rounds=len(taken),
        )


HEAD = """| batch | identity | | seconds a step | pairs/s | times the peer | GFLOP/s | of the peak |
|---|---|---|---|---|---|---|---|"""


def line(row):
    speed = (
        f"{row['seconds']:.3f} | {row['pairs']:.2f} | {row['times']:.2f} | {row['gflops']:.0f} | {row['of_peak']:.0%}"
    )
    return f"| {row['batch']} | {row['identity']:g} | {row['what']} | {speed} |"


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    ap.add_argument("--identity", type=float, nargs="+", default=[0.0, 0.5])
    ap.add_argument("--side", type=int, default=128)
    ap.add_argument("--width", type=int, default=64)
    ap.add_argument("--blocks", type=int, default=6)
    ap.add_argument("--system", choices=("cartoon2real", "toon2real"), default="cartoon2real")
    ap.add_argument("--rounds", type=int, help="timed steps of each (default: 5 at batch 1, 3 at 4, 1 from 16 on)")
    ap.add_argument("--compile", type=int, nargs="*", default=[1], help="batches to compile for, at the last identity")
    ap.add_argument("--out", type=Path, default=RESULTS / "step", help="writes OUT.md and OUT.json")
    return ap.parse_args()


def main():
    args = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = environment(device)
    peaks = {name: peak(device, getattr(torch, kind)) for name, kind in (("float32", "float32"), ("bf16", "bfloat16"))}
    base = dict(cartoon2real=cartoon2real, toon2real=toon2real)[args.system]
    base = base.replace(side=args.side, width=args.width, blocks=args.blocks)
    lines = [
        f"{args.system}, {args.side} px, width {args.width}, {args.blocks} blocks; {about}",
        f"the machine's peak: {peaks['float32'] / 1e9:.0f} GFLOP/s in float32, {peaks['bf16'] / 1e9:.0f} in bf16",
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind in ("cartoon", "photo"):
            write_scenes(folder / kind, max(32, *args.batch), kind, side=args.side)
        for batch in args.batch:
            for identity in args.identity:
                recipe = base.replace(batch=batch, identity=identity)
                ways = {f"ours, {kind}": dict(precision=kind, compile="auto") for kind in ("float32", "bf16")}
                if batch in args.compile and identity == args.identity[-1]:
                    ways["ours, bf16, compiled"] = dict(precision="bf16", compile=True)
                work = flops(recipe)
                told = f"identity {identity:g}: {work / 1e9:.0f} GFLOP a pair"
                print(f"batch {batch}, {told}", flush=True)
                if batch == args.batch[0]:
                    lines.append(told)
                case = Case(recipe, folder, device, ways)
                rounds = args.rounds or next(n for b, n in reversed(ROUNDS.items()) if b <= batch)
                warm_up = 5 if device.type == "cuda" else int(rounds > 1)
                for row in rows_of(case, case.measure(rounds, warm_up), work, peaks):
                    print(line(row), flush=True)
                    rows.append(row)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines.append(f"peak memory of the process: {memory:.1f} GB")
    if device.type == "cuda":
        lines.append(f"of the GPU: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python bench/step.py " + " ".join(sys.argv[1:])
    text = "\n\n".join([f"`{command.strip()}`", *lines, "\n".join([HEAD, *map(line, rows)])])
    args.out.with_suffix(".md").write_text(text + "\n")
    args.out.with_suffix(".json").write_text(json.dumps(dict(command=command, about=about, rows=rows), indent=1))
    print(f"\n{text}\n\n{args.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()

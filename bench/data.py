"Loading: the map and its batches against a DataLoader that opens, resizes and cuts every picture of every step"

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from toon2real.data import Domain, Pairs, load_side
from toon2real.images import list_images


class PerSample(Dataset):
    """What the public CycleGAN code does for a sample: open both files, resize to 143 (bicubic), crop 128, mirror,
    scale to [-1, 1]"""

    def __init__(self, cartoon, photo, side):
        self.cartoon, self.photo = list_images(cartoon), list_images(photo)
        resize = v2.Resize((load_side(side),) * 2, v2.InterpolationMode.BICUBIC)
        cut = [v2.RandomCrop(side), v2.RandomHorizontalFlip()]
        scale = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
        self.transform = v2.Compose([resize, *cut, *scale])

    def __len__(self):
        return max(len(self.cartoon), len(self.photo))

    def __getitem__(self, i):
        files = self.cartoon[i % len(self.cartoon)], random.choice(self.photo)
        return tuple(self.transform(Image.open(file).convert("RGB")) for file in files)


def latency(next_batch, n):
    "Milliseconds from asking for a batch to having it: median and 95th percentile of n; and seconds for all"
    times = []
    for _ in range(n):
        start = time.perf_counter()
        next_batch()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), np.percentile(times, 95), sum(times) / 1e3


def build(what, folder, side):
    "Make the map, cache empty, files in the page cache; print a row"
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        size = len(Domain.open(folder, load_side(side), cache=cache, progress=False))
        seconds = time.perf_counter() - start
    print(f"| {what} | {size} | {seconds:.1f} | {size / seconds:.0f} |", flush=True)


def builds(options):
    print("| map build | images | seconds | images/s |\n|---|---|---|---|")
    build(Path(options.photo).name, options.photo, options.side)
    if not options.large:
        return
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(list_images(options.photo)[: options.large]):
            Image.open(file).convert("RGB").resize((1280, 720)).save(Path(folder) / f"{i:05}.jpg")
        build("1280 x 720", folder, options.side)


def batches(options, cartoon, photo, size):
    "Batches of one size, from the map and from a DataLoader; print a row"
    on_gpu = options.device.startswith("cuda")
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    n = max(options.samples // size, 20)
    pairs, steps = Pairs(cartoon, photo, options.side, size, device=options.device), iter(range(10**9))

    def ask():
        pairs.batch(1, next(steps) % pairs.steps)
        wait()

    ask()
    ours = latency(ask, n)

    samples = PerSample(options.cartoon, options.photo, options.side)
    loader = DataLoader(samples, size, shuffle=True, num_workers=options.workers, drop_last=True, pin_memory=on_gpu)
    given = iter(loader)

    def fetch():
        [x.to(options.device, non_blocking=True) for x in next(given)]
        wait()

    drawn_ahead = 2 * options.workers + 1  # while the workers started
    for _ in range(drawn_ahead):
        fetch()
    m = min(n, len(given) - drawn_ahead)
    theirs = latency(fetch, m)
    rates = n * size / ours[2], m * size / theirs[2]
    times = f"{ours[0]:.2f} ({ours[1]:.2f}) | {theirs[0]:.2f} ({theirs[1]:.2f})"
    print(f"| {size} | {times} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.1f} |", flush=True)


def parse():
    root = Path(os.environ.get("TOON2REAL_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "scenery128"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--cartoon", default=root / "cartoon" / "train", help="folder of cartoons")
    p.add_argument("--photo", default=root / "photo" / "train", help="folder of photos")
    p.add_argument("--side", type=int, default=128, help="pixels of a crop")
    p.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16], help="batch sizes")
    p.add_argument("--samples", type=int, default=960, help="samples drawn for each figure")
    p.add_argument("--workers", type=int, default=2, help="workers of the DataLoader")
    p.add_argument("--large", type=int, default=0, metavar="N", help="also build a map of N JPEGs of 1280 x 720")
    p.add_argument("--device", default="cpu")
    return p.parse_args()


def main():
    options = parse()
    for folder in (options.cartoon, options.photo):
        for file in list_images(folder):
            file.read_bytes()  # into the page cache, for everyone
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    print(f"{load}, torch {torch.__version__}, {options.device}\n")
    builds(options)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        side = load_side(options.side)
        cartoon, photo = (Domain.open(o, side, cache=cache, progress=False) for o in (options.cartoon, options.photo))
        start = time.perf_counter()
        Domain.open(options.photo, side, cache=cache)
        print(f"| opened again | {len(photo)} | {time.perf_counter() - start:.2f} | |\n")
        peer = f"DataLoader, {options.workers} workers, ms (95 %)"
        print(f"| batch | Pairs.batch, ms (95 %) | {peer} | pairs/s | DataLoader pairs/s | ratio |")
        print("|---|---|---|---|---|---|")
        for size in options.batch:
            batches(options, cartoon, photo, size)
    print("\nThe DataLoader is asked as fast as it can give, so its milliseconds are its pace;")
    print("its workers hold every core meanwhile, Pairs holds one for the time shown.")


if __name__ == "__main__":
    main()

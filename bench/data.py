"Loading: the map and its batches against a DataLoader that decodes, resizes, crops and mirrors every picture of every step"
import argparse, os, random, statistics, tempfile, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from toon2real.data import Domain, Pairs, decode, load_side
from toon2real.images import list_images


class PerSample(Dataset):
    "What the public CycleGAN code does for a sample: open both files, resize to 143 (bicubic), crop 128, mirror, scale to [-1, 1]"
    def __init__(self, cartoon, photo, side):
        self.c, self.r = list_images(cartoon), list_images(photo)
        self.t = v2.Compose([v2.Resize((load_side(side),)*2, v2.InterpolationMode.BICUBIC), v2.RandomCrop(side), v2.RandomHorizontalFlip(),
                             v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([.5]*3, [.5]*3)])
    def __len__(self): return max(len(self.c), len(self.r))
    def __getitem__(self, i): return self.t(Image.open(self.c[i % len(self.c)]).convert("RGB")), self.t(Image.open(random.choice(self.r)).convert("RGB"))


def latency(next_batch, n):
    "Milliseconds from asking for a batch to having it: median and 95th percentile of n"
    ms = []
    for _ in range(n): t = time.perf_counter(); next_batch(); ms.append(1e3*(time.perf_counter() - t))
    return statistics.median(ms), np.percentile(ms, 95)


def builds(folder, side, threads):
    "Seconds to make the map with so many threads, cache empty, files in the page cache"
    with tempfile.TemporaryDirectory() as t:
        start = time.perf_counter(); d = Domain.open(folder, load_side(side), cache=t, threads=threads, progress=False)
        return len(d), time.perf_counter() - start


def main():
    root = Path(os.environ.get("TOON2REAL_SHARED", Path(__file__).parents[2]/"shared"))/"data"/"scenery128"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--cartoon", default=root/"cartoon"/"train", help="folder of cartoons")
    p.add_argument("--photo", default=root/"photo"/"train", help="folder of photos")
    p.add_argument("--side", type=int, default=128, help="pixels of a crop")
    p.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16], help="batch sizes")
    p.add_argument("--samples", type=int, default=960, help="samples drawn for each figure")
    p.add_argument("--workers", type=int, default=2, help="workers of the DataLoader")
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads that build the map")
    p.add_argument("--large", type=int, default=0, metavar="N", help="also build a map of N JPEGs of 1280 x 720 made from the photos")
    p.add_argument("--device", default="cpu")
    k = p.parse_args()
    for folder in (k.cartoon, k.photo): [f.read_bytes() for f in list_images(folder)]          # into the page cache, for everyone
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, torch {torch.__version__}, {k.device}\n")
    print("| map build | images | seconds | images/s |\n|---|---|---|---|")
    for n in k.threads:
        size, s = builds(k.photo, k.side, n); print(f"| {Path(k.photo).name}, {n} thread{'s'*(n > 1)} | {size} | {s:.1f} | {size/s:.0f} |", flush=True)
    if k.large:
        with tempfile.TemporaryDirectory() as t:
            for i, f in enumerate(list_images(k.photo)[:k.large]): Image.open(f).convert("RGB").resize((1280, 720)).save(Path(t)/f"{i:05}.jpg")
            for n in k.threads:
                size, s = builds(t, k.side, n); print(f"| 1280 x 720, {n} thread{'s'*(n > 1)} | {size} | {s:.1f} | {size/s:.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as t:
        C, R = (Domain.open(o, load_side(k.side), cache=t, progress=False) for o in (k.cartoon, k.photo))
        start = time.perf_counter(); Domain.open(k.photo, load_side(k.side), cache=t); print(f"| opened again | {len(R)} | {time.perf_counter() - start:.2f} | |")
        wait = torch.cuda.synchronize if k.device.startswith("cuda") else lambda: None
        print(f"\n| batch | Pairs.batch, ms (95 %) | DataLoader, {k.workers} workers, ms (95 %) | pairs/s | DataLoader pairs/s | ratio |\n|---|---|---|---|---|---|")
        for b in k.batch:
            n = max(k.samples//b, 20)
            pairs, step = Pairs(C, R, k.side, b, device=k.device), iter(range(10**9))
            ask = lambda: (pairs.batch(1, next(step) % pairs.steps), wait())
            ask(); start = time.perf_counter(); ours = latency(ask, n); rate = n*b/(time.perf_counter() - start)
            it = iter(DataLoader(PerSample(k.cartoon, k.photo, k.side), b, shuffle=True, num_workers=k.workers, drop_last=True, pin_memory=k.device.startswith("cuda")))
            fetch = lambda: ([o.to(k.device, non_blocking=True) for o in next(it)], wait())
            for _ in range(2*k.workers + 1): fetch()                                                  # past the start of the workers and what they drew ahead
            m = min(n, len(it) - 2*k.workers - 1); start = time.perf_counter(); theirs = latency(fetch, m); loader = m*b/(time.perf_counter() - start)
            del it
            print(f"| {b} | {ours[0]:.2f} ({ours[1]:.2f}) | {theirs[0]:.2f} ({theirs[1]:.2f}) | {rate:.0f} | {loader:.0f} | {rate/loader:.1f} |", flush=True)
        del C, R, pairs
    print("\nThe DataLoader is asked as fast as it can give, so its milliseconds are its pace; its workers hold every core meanwhile, Pairs holds one for the time shown.")


if __name__ == "__main__": main()

"""What several seeds of an ablation say together: `python bench/seeds.py bench/results/scenery.json KID-768 content`

Rows of `bench/ablation.py` that differ in the seed alone make one line: for each measure the mean over the seeds, the
lowest and the highest, and the exact permutation test against the line whose mean is lowest. Beside the measures of
the last epoch there are those of the whole training: "lowest luma" (below 0 colours were inverted), "gradient" and
"sigma" (means over the last ten looks: of the gradient that the judge of photographs gives the fake, and of the
spectral norm of its kernels before any normalization), "roughness" (`figures.roughness` of the weighted FID over the
epochs), "late rise" (its last value minus its lowest) and "core_seconds".
"""

import argparse
import json
from pathlib import Path

import numpy as np

from toon2real.experiment import permutation_p
from toon2real.figures import roughness


def rows_of(path):
    "The rows of a file: a JSON list, or JSON lines"
    text = Path(path).read_text()
    return json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]


def arms(rows):
    "{name of an arm: {seed: row}}, where an arm is what differs from others in more than the seed"
    found = {}
    for row in rows:
        if "system" not in row:  # floor and untranslated input
            continue
        changes = {name: value for name, value in row["changes"].items() if name != "seed"}
        words = [row["system"], *(f"{name}={value}" for name, value in changes.items())]
        words.append(f"{row['pairs']} pairs, width {row['width']}, {row['data']}")
        found.setdefault(" ".join(words), {})[int(row["changes"].get("seed", 0))] = row
    return found


def measures(row):
    "All numbers of a row by name"
    numbers = {"core_seconds": row["core_seconds"], **row["last"]}
    if row["trace"]:
        _, luma, gradients, *sigmas = zip(*row["trace"])
        numbers |= {"lowest luma": min(luma), "gradient": np.mean(gradients[-10:])}
        numbers |= {"sigma": np.mean(sigmas[0][-10:])} if sigmas else {}
    curve = [epoch.get("weighted FID-768") for epoch in row.get("epochs_judged", [])]
    if len(curve) > 2 and None not in curve:
        numbers |= {"roughness": roughness(curve), "late rise": curve[-1] - min(curve)}
    return numbers


def line(name, found, best):
    values = list(found.values())
    p = permutation_p(best, values)
    apart = "" if values == best or np.isnan(p) else f"{p:.3f}"
    numbers = f"{np.mean(values):.4g} | {min(values):.4g} to {max(values):.4g}"
    return f"| {name} | {', '.join(map(str, sorted(found)))} | {numbers} | {apart} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="what bench/ablation.py wrote")
    parser.add_argument("measures", nargs="+", help="names in `last`, such as KID-768")
    parser.add_argument("--without", nargs="*", default=[], help="leave out lines with such a word: patchwise")
    options = parser.parse_args()
    found = arms(rows_of(options.file))
    found = {name: seeds for name, seeds in found.items() if not any(word in name for word in options.without)}
    numbers = {name: {seed: measures(row) for seed, row in seeds.items()} for name, seeds in found.items()}
    for measure in options.measures:
        having = {
            name: {seed: row[measure] for seed, row in seeds.items() if measure in row}
            for name, seeds in numbers.items()
        }
        having = {name: values for name, values in having.items() if values}
        if not having:
            parser.error(f"no row of {options.file} has {measure!r}")
        best = min((list(values.values()) for values in having.values()), key=np.mean)
        print(f"\n| {measure} | seeds | mean | range | p |\n|---|---|---|---|---|")
        for name, values in having.items():
            print(line(name, values, best))


if __name__ == "__main__":
    main()

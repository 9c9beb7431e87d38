"""What several seeds of an ablation say together: `python bench/seeds.py bench/results/scenery.json KID-768 content`

Rows of `bench/ablation.py` that differ in the seed alone make one line: for each measure the mean over the seeds, the
lowest and the highest, and the exact permutation test against the line whose mean is lowest.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from toon2real.experiment import permutation_p


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


def line(name, seeds, measure, best):
    values = [row["last"][measure] for row in seeds.values()]
    p = permutation_p(best, values)
    apart = "" if values == best or np.isnan(p) else f"{p:.3f}"
    numbers = f"{np.mean(values):.4g} | {min(values):.4g} to {max(values):.4g}"
    return f"| {name} | {', '.join(map(str, sorted(seeds)))} | {numbers} | {apart} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="what bench/ablation.py wrote")
    parser.add_argument("measures", nargs="+", help="names in `last`, such as KID-768")
    options = parser.parse_args()
    found = arms(rows_of(options.file))
    for measure in options.measures:
        judged = {name: seeds for name, seeds in found.items() if all(measure in row["last"] for row in seeds.values())}
        if not judged:
            parser.error(f"no row of {options.file} has {measure!r}")
        values = [[row["last"][measure] for row in seeds.values()] for seeds in judged.values()]
        best = min(values, key=np.mean)
        print(f"\n| {measure} | seeds | mean | range | p |\n|---|---|---|---|---|")
        for name, seeds in judged.items():
            print(line(name, seeds, measure, best))


if __name__ == "__main__":
    main()

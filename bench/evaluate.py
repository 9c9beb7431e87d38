#!/usr/bin/env python
"""Judge translated cartoons: a table at equal N with the real-vs-real floor and the untranslated input.

    python bench/evaluate.py --input cartoons/ --generated translated/ --target photos/
    python bench/evaluate.py --input cartoons/ --generated toon2real=a/ unit=b/ --target photos/ --json table.json"""
import argparse, json, sys
from pathlib import Path
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

def cell(row, c):
    v = row.get(c)
    if v is None or v != v: return '-'
    if c.startswith('KID'): return f"{v:.4f} ± {row[f'{c} se']:.4f}"
    return f"{v:.3g} [{row[f'{c} low']:.3g}, {row[f'{c} high']:.3g}]" if f'{c} low' in row else f"{v:.3f}" if c in ('content', 'precision', 'recall') else f"{v:.2f}"

def markdown(table):
    cols = [c for c in table.columns if not c.endswith((' se', ' low', ' high'))]
    lines = ['| | ' + ' | '.join(cols) + ' |', '|---'*(len(cols) + 1) + '|']
    for name, row in table.iterrows(): lines.append(f'| {name} | ' + ' | '.join(cell(row.to_dict(), c) for c in cols) + ' |')
    return '\n'.join(lines)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--input', type=Path, required=True, help='folder of the cartoons that were translated')
    ap.add_argument('--generated', nargs='+', required=True, help='folders of translations, FOLDER or NAME=FOLDER; files named like their inputs')
    ap.add_argument('--target', type=Path, required=True, help='folder of real photographs')
    ap.add_argument('--weights', help='Inception weights (default: $TOON2REAL_INCEPTION, torch hub cache, download)')
    ap.add_argument('--dims', nargs='+', default=['768', '192'], help='feature depths, the main one first (64, 192, 768, 2048), or "simple"')
    ap.add_argument('--n', type=int, help='images in every set (default: as many as all sets allow)')
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--reps', type=int, default=100, help='resamplings of the intervals')
    ap.add_argument('--json', type=Path, help='write the table with its terms here')
    o = ap.parse_args()
    from toon2real.fid import WeightsMissing, evaluate
    def named(g): name, eq, folder = g.partition('='); return (name, folder) if eq else (Path(g).name, g)
    try: table = evaluate(dict(map(named, o.generated)), o.target, o.input, 'simple' if o.dims == ['simple'] else tuple(map(int, o.dims)), o.n, o.seed, o.reps,
                          weights=o.weights, progress=sys.stderr.isatty())
    except (WeightsMissing, ValueError) as e: sys.exit(f"{e}")
    t = table.attrs
    print(f"N = {t['n']} in every set ({', '.join(f'{k} {v}' for k, v in t['available'].items())} available), seed {t['seed']}; {t['extractor']}; "
          f"KID ± standard error (jackknife); [95 % interval of {t['reps']} resamplings]\n\n{markdown(table)}")
    if o.json: o.json.write_text(json.dumps({**t, 'rows': json.loads(table.to_json(orient='index'))}, indent=1))

if __name__ == '__main__': main()

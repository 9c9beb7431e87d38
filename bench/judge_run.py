#!/usr/bin/env python
"""Judge a run on held-out pictures at the side it was trained at: its kept epochs against the untranslated cartoons and the real-vs-real floor.

    python bench/judge_run.py runs/toon2real --cartoon val/cartoon --photo val/photo --weights inception.pth --json results/run.json"""
import argparse, json, sys
from pathlib import Path
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/"bench")]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("run", type=Path)
    ap.add_argument("--cartoon", type=Path, required=True, help="folder of held-out cartoons")
    ap.add_argument("--photo", type=Path, required=True, help="folder of held-out photographs")
    ap.add_argument("--epochs", type=int, nargs="+", help="which of the kept epochs (default: all)")
    ap.add_argument("--weights", help="Inception weights (default: $TOON2REAL_INCEPTION, torch hub cache, download)")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--reps", type=int, default=100, help="resamplings of the intervals")
    ap.add_argument("--json", type=Path, help="write recipe, history and table here")
    o = ap.parse_args()
    from evaluate import markdown
    from toon2real.data import Domain
    from toon2real.experiment import translate_all
    from toon2real.fid import evaluate
    from toon2real.runs import Run
    from toon2real.system import recipe_to_dict
    from toon2real.training import luma_correlation
    import numpy as np
    run = Run(o.run)
    c, r = (np.asarray(Domain.open(f, run.recipe.side).images) for f in (o.cartoon, o.photo))
    made = {f"epoch {e}": translate_all(run.system(e), c) for e in o.epochs or run.weight_epochs}
    table = evaluate(made, r, c, (768, 192), None, o.seed, o.reps, weights=o.weights, progress=sys.stderr.isatty())
    t = table.attrs
    luma = {k: round(luma_correlation(c, x), 3) for k, x in made.items()}
    print(f"{run!r}\n{run.recipe}\n{run.history.pairs.iloc[-1]} pairs, {run.history.seconds.sum():.0f} s of training, {run.about['environment']['threads']} thread(s), {run.about['options']['precision']}\n"
          f"N = {t['n']} in every set, {run.recipe.side} px, seed {t['seed']}; {t['extractor']}; KID ± standard error (jackknife); [95 % interval of {t['reps']} resamplings]\n\n{markdown(table)}\n\nluma correlation with the input: {luma}")
    if o.json: o.json.write_text(json.dumps({"recipe": recipe_to_dict(run.recipe), "environment": run.about["environment"], "options": run.about["options"],
        "data": {k: {x: v for x, v in d.items() if x != "source"} for k, d in run.about["data"].items()}, "history": json.loads(run.history.to_json(orient="records")),
        "judged": {**{k: v for k, v in t.items() if k != "terms"}, "rows": json.loads(table.to_json(orient="index")), "luma correlation": luma}}, indent=1, default=str))


if __name__ == "__main__": main()

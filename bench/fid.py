#!/usr/bin/env python
"""FID against pytorch-fid's own command: whole processes (imports, weights, decoding, network, distance) on the same real images.

Rows: toon2real cold (empty cache), with the features of the target kept (a training evaluates many outputs against one target), and cold in bfloat16.
Peer and ours alternate, and the median of the repeats counts. CPU seconds (user and system, workers included) are given beside the wall's, for a machine that others use too. Where the weights are partial they are completed with the module's own random tail, which the depths measured never reach."""
import argparse, json, os, platform, resource, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path
ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('TOON2REAL_SHARED', ROOT/'../shared')).resolve()

OURS = """import sys; from toon2real.fid import fid; from toon2real.features import features; import torch
a, b, dims, weights, dtype, only = sys.argv[1:]
kw = dict(dims=int(dims), weights=weights, dtype=getattr(torch, dtype))
print('VALUE', features(b, **kw).shape[0] if only == 'target' else repr(float(fid(a, b, **kw))))"""

def run(cmd, env):
    t, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    p = subprocess.run([sys.executable, *map(str, cmd)], capture_output=True, text=True, env=env, cwd=ROOT)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return p, (time.perf_counter() - t, now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime)

def ours(a, b, dims, weights, dtype, cache, env, only='-'):
    p, s = run(['-c', OURS, a, b, dims, weights, dtype, only], env | {'TOON2REAL_CACHE': str(cache)})
    if p.returncode: sys.exit(p.stderr)
    return float(p.stdout.split('VALUE')[1]), s

def peer(a, b, dims, env):
    p, s = run(['-m', 'pytorch_fid', a, b, '--dims', dims], env)
    if p.returncode:
        if 'disp' in p.stderr: sys.exit("pytorch-fid 0.3.0 needs SciPy < 1.18: its sqrtm(disp=...) is gone; run this where an older SciPy is installed")
        sys.exit(p.stderr)
    return float(p.stdout.split('FID:')[1]), s

def complete(weights, out):
    "Weights that pytorch-fid loads strictly"
    import pytorch_fid.inception as P, torch
    from unittest.mock import patch
    state = torch.load(weights, map_location='cpu', weights_only=True)
    with patch.object(P, 'load_state_dict_from_url', lambda *a, **k: {}), patch.object(torch.nn.Module, 'load_state_dict', lambda *a, **k: None): net = P.fid_inception_v3()
    torch.save({**net.state_dict(), **state}, out)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--generated', type=Path, default=SHARED/'data/scenery128/cartoon/val', help='folder of images')
    ap.add_argument('--target', type=Path, default=SHARED/'data/scenery128/photo/val', help='folder of images')
    ap.add_argument('--weights', type=Path, default=SHARED/'weights/fid_inception_to_mixed6e.pth', help='Inception weights')
    ap.add_argument('--dims', type=int, nargs='+', default=[768, 192, 64])
    ap.add_argument('--n', type=int, help='use the first n images of each folder')
    ap.add_argument('--repeats', type=int, default=1)
    ap.add_argument('--json', type=Path, help='write the numbers here too')
    o = ap.parse_args()
    from toon2real.features import OFFICIAL
    from toon2real.images import list_images
    with tempfile.TemporaryDirectory() as d:
        d = Path(d); hub = d/'torch/hub/checkpoints'; hub.mkdir(parents=True); complete(o.weights, hub/OFFICIAL)
        env = {**os.environ, 'TORCH_HOME': str(d/'torch'), 'PYTHONPATH': str(ROOT)}
        counts = {}
        for k, src in (('a', o.generated), ('b', o.target)):
            (d/k).mkdir(); files = list_images(src, recursive=False)[:o.n]; counts[k] = len(files)
            for f in files: shutil.copy(f, d/k/f.name)
        import torch
        print(f"{counts['a']} | {counts['b']} images; torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, "
              f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}; median of {o.repeats}\n", flush=True)
        print("| features | | distance | relative difference | seconds | times as fast | CPU seconds | times less |\n|---|---|---|---|---|---|---|---|", flush=True)
        rows = []
        for dims in o.dims:
            got = {k: [] for k in ('pytorch-fid', 'cold', 'target cached', 'cold, bfloat16')}
            for r in range(o.repeats):
                got['pytorch-fid'].append(peer(d/'a', d/'b', dims, env))
                got['cold'].append(ours(d/'a', d/'b', dims, o.weights, 'float32', d/f'cold{dims}{r}', env))
                ours(d/'a', d/'b', dims, o.weights, 'float32', d/f'warm{dims}{r}', env, only='target')
                got['target cached'].append(ours(d/'a', d/'b', dims, o.weights, 'float32', d/f'warm{dims}{r}', env))
                got['cold, bfloat16'].append(ours(d/'a', d/'b', dims, o.weights, 'bfloat16', d/f'half{dims}{r}', env))
            base, secs = got['pytorch-fid'][0][0], {k: [statistics.median(s[i] for _, s in v) for i in (0, 1)] for k, v in got.items()}
            for k, v in got.items():
                row = dict(dims=dims, what=k, distance=v[0][0], difference=v[0][0]/base - 1, seconds=secs[k][0], cpu=secs[k][1], ratio=secs['pytorch-fid'][0]/secs[k][0], cpu_ratio=secs['pytorch-fid'][1]/secs[k][1]); rows.append(row)
                print(f"| {dims} | {k if k == 'pytorch-fid' else f'toon2real, {k}'} | {row['distance']:.6g} | {row['difference']:+.1e} | {row['seconds']:.1f} | {row['ratio']:.2f} | {row['cpu']:.1f} | {row['cpu_ratio']:.2f} |", flush=True)
        if o.json: o.json.write_text(json.dumps(dict(counts=counts, rows=rows), indent=1))

if __name__ == '__main__': main()

"Distances against the golden numbers, against definitions written out, and against pytorch-fid's own command"
import json, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from toon2real.fid import (FeatureStats, Inception, Score, WeightsMissing, best_extractor, content, evaluate, features, fid, find_weights, frechet_distance,
                           frechet_features, kid, precision_recall, simple_features, statistics, subsample, weighted_fid, OFFICIAL)
from toon2real.images import ImageError
from toon2real.scenes import scenes

HERE = Path(__file__).parent
GOLD = json.loads((HERE/'golden/frechet.json').read_text())
SHARED = Path(os.environ.get('TOON2REAL_SHARED', HERE.parent/'../shared'))
WEIGHTS, DATA = SHARED/'weights/fid_inception_to_mixed6e.pth', SHARED/'data/scenery128'
real = pytest.mark.skipif(not (WEIGHTS.exists() and DATA.exists()), reason='real Inception weights and images are not here')

@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    "No weights, hub or cache of this machine"
    monkeypatch.setenv('TORCH_HOME', str(tmp_path/'hub')); monkeypatch.setenv('TOON2REAL_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('TOON2REAL_INCEPTION', raising=False); monkeypatch.setenv('TOON2REAL_OFFLINE', '1')

def recipe(r, n, d):
    z, j = np.random.RandomState(r['seed']).standard_normal((n, d)), np.arange(d)
    return (r['shift'] + r['scale']*(1 + .5*np.cos(j))*(z + r['mix']*np.roll(z, 1, 1)) + .1*np.sin(.7*j)).astype(np.float32)

# --- numbers

@pytest.mark.parametrize('pair', GOLD['pairs'], ids=lambda p: p['name'])
def test_golden_pairs(pair):
    x, y = (recipe(pair[f'recipe_{k}'], pair[f'n_{k}'], pair['d']) for k in 'xy')
    if pair.get('file'):
        with np.load(HERE/'golden'/pair['file']) as f: stored = [f[k] for k in f]
        assert any(o.shape == x.shape and np.array_equal(o, x) for o in stored) and any(o.shape == y.shape and np.array_equal(o, y) for o in stored)
    sx, sy = statistics(x), statistics(y)
    assert frechet_features(x, y) == pytest.approx(pair['frechet'], rel=1e-6)
    assert frechet_distance(sx.mean, sx.cov, sy.mean, sy.cov) == pytest.approx(pair['frechet'], rel=1e-6)     # any rank, also N < D
    assert frechet_features(x, x) == pytest.approx(0, abs=1e-9*pair['trace_x']) and fid(x, y) == frechet_features(x, y)

@pytest.mark.parametrize('triple', GOLD['weighted'], ids=lambda p: p['file'])
def test_golden_weighted(triple):
    with np.load(HERE/'golden'/triple['file']) as f: w = weighted_fid(f['generated'], f['target'], f['input'])
    assert w.weighted == pytest.approx(triple['weighted'], rel=1e-6)
    assert (w.target, w.input) == pytest.approx((triple['frechet_target'], triple['frechet_input']), rel=1e-6)

def test_kid_is_its_definition():
    rng = np.random.default_rng(0); x, y = rng.standard_normal((40, 12)), rng.standard_normal((25, 12))*1.3 + .2
    def k(a, b): return (float(a @ b)/12 + 1)**3
    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j)/(40*39)
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j)/(25*24)
    xy = sum(k(a, b) for a in x for b in y)/(40*25)
    assert kid(x, y).value == pytest.approx(xx + yy - 2*xy, rel=1e-9) and kid(x, y).se > 0

def test_kid_over_blocks():
    rng = np.random.default_rng(0); x, y = rng.standard_normal((2100, 3)), rng.standard_normal((1100, 3))    # more than one block of 1024 rows
    def s(a, b, same): k = (a @ b.T/3 + 1)**3; return k.sum() - (np.trace(k) if same else 0)
    want = s(x, x, 1)/(2100*2099) + s(y, y, 1)/(1100*1099) - 2*s(x, y, 0)/(2100*1100)
    assert kid(x, y).value == pytest.approx(want, rel=1e-6, abs=1e-12)

def test_precision_recall_is_its_definition():
    rng = np.random.default_rng(0); g, r = rng.standard_normal((60, 4))*.7, rng.standard_normal((50, 4))
    d = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2)
    def share(points, centres): return (d(points, centres) <= np.sort(d(centres, centres), 1)[:, 3]).any(1).mean()
    assert precision_recall(g, r) == pytest.approx((share(g, r), share(r, g)))

def test_statistics_files(tmp_path):
    x, y = (np.random.default_rng(i).standard_normal((50, 6)).astype(np.float32) for i in (0, 1))
    p = statistics(x).save(tmp_path/'x.npz'); np.savez(tmp_path/'peer.npz', mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    assert fid(p, y) == pytest.approx(frechet_features(x, y), rel=1e-9) and fid(tmp_path/'peer.npz', y) == pytest.approx(frechet_features(x, y), rel=1e-5)
    assert FeatureStats.load(p).n == 50 and '?' in repr(fid(tmp_path/'peer.npz', y))
    (tmp_path/'bad.npz').write_bytes(b'no zip')
    with pytest.raises(ValueError, match='bad.npz'): fid(tmp_path/'bad.npz', y)

def test_scores_carry_their_terms():
    import copy, pickle
    x = np.random.default_rng(0).standard_normal((30, 4)); s = fid(x, x[:20] + 1, n=10, seed=7)
    assert s.n == (10, 10) and s.of == (30, 20) and '10 of 30 | 10 of 20, seed 7' in repr(s) and json.loads(json.dumps(s)) == float(s)
    for t in (pickle.loads(pickle.dumps(s)), copy.deepcopy(s)): assert repr(t) == repr(s)
    assert np.array_equal(subsample(x, 10, 7), subsample(x, 10, 7)) and not np.array_equal(subsample(x, 10, 7), subsample(x, 10, 8))

@pytest.mark.parametrize('bad, message', [(lambda x: fid(x*np.nan, x), 'NaN'), (lambda x: fid(x[:1], x), 'at least 2'), (lambda x: fid(x, x[:, :2]), 'one extractor'),
    (lambda x: fid(x, x, n=99), '99 images asked for, 20 there'), (lambda x: kid(x[:2], x), 'at least 3'), (lambda x: fid('/no/such/folder', x, 'simple'), 'no such folder'),
    (lambda x: fid(torch.full((4, 3, 8, 8), 255.), x, 'simple'), r'\[-1, 1\]'), (lambda x: fid(np.zeros((4, 8, 8), np.uint8), x, 'simple'), 'N x H x W x 3'), (lambda x: fid([], x, 'simple'), 'empty set')])
def test_bad_input_says_what_to_do(bad, message):
    with pytest.raises(ValueError, match=message): bad(np.random.default_rng(0).standard_normal((20, 48)))

# --- images

def test_every_form_of_a_set_has_the_same_features(tmp_path):
    ims = scenes(6, side=32, kind='photo')
    for i, o in enumerate(ims): Image.fromarray(o).save(tmp_path/f'{i}.png')
    class Domain: images = ims
    want = simple_features(ims).numpy()
    forms = [tmp_path, str(tmp_path), sorted(tmp_path.glob('*.png')), list(ims), [Image.fromarray(o) for o in ims], torch.tensor(ims), torch.tensor(ims).movedim(-1, 1),
             torch.tensor(ims).movedim(-1, 1)/127.5 - 1, Domain()]
    for form in forms: assert np.array_equal(features(form, 'simple', batch=4), want), type(form)
    assert features(list(ims) + [scenes(1, side=48)[0]], 'simple').shape == (7, 48)                          # sizes may differ

def test_broken_image_is_named(tmp_path):
    Image.fromarray(scenes(1, side=32)[0]).save(tmp_path/'a.png'); (tmp_path/'b.png').write_bytes((tmp_path/'a.png').read_bytes()[:200])
    with pytest.raises(ImageError, match='b.png'): features(tmp_path, 'simple')

def test_cache_gives_identical_bytes(tmp_path):
    d = tmp_path/'set'; d.mkdir()
    for i, o in enumerate(scenes(3, side=32)): Image.fromarray(o).save(d/f'{i}.png')
    net = Inception(192, 'random'); calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    a = features(d, 192, extractor=net); b = features(d, 192, extractor=net); d.rename(tmp_path/'moved'); c = features(tmp_path/'moved', (64, 192), extractor=net)
    assert a.tobytes() == b.tobytes() == c[192].tobytes() and len(calls) == 1 and c[64].shape == (3, 64)
    fresh = features(tmp_path/'moved', 192, extractor=net, cache=False)
    assert fresh.tobytes() == a.tobytes() and len(calls) == 2
    assert features(tmp_path/'moved', 192, extractor=Inception(192, 'random', dtype=torch.bfloat16)).tobytes() != a.tobytes()      # another precision is another extractor

def test_processes_share_the_work():
    ims = scenes(7, side=32)
    assert np.array_equal(features(ims, 'simple', processes=2), features(ims, 'simple', processes=1))

def _rank(rank, port, path):
    import torch.distributed as dist
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    np.save(f'{path}/{rank}.npy', features(scenes(5, side=32), 'simple', shard='dist', batch=2)); dist.destroy_process_group()

def test_ranks_share_the_work(tmp_path):
    import socket
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (port, str(tmp_path)), nprocs=2)
    want = features(scenes(5, side=32), 'simple')
    for r in (0, 1): assert np.array_equal(np.load(tmp_path/f'{r}.npy'), want)

def test_simple_features_order_what_people_order():
    ref, photo, toon = scenes(40, seed=0, side=64, kind='photo'), scenes(40, seed=500, side=64, kind='photo'), scenes(40, seed=900, side=64, kind='cartoon')
    soft = torch.nn.functional.avg_pool2d(torch.tensor(photo).movedim(-1, 1).float(), 3, 1, 1, count_include_pad=False).round().byte().movedim(1, -1)
    floor, blurred, cartoon = (fid(o, ref, 'simple') for o in (photo, soft, toon))
    assert floor.name == 'Frechet (simple features)' and 2*floor < blurred and 2*floor < cartoon

def test_evaluate_pairs_outputs_with_inputs():
    toon, photo = scenes(12, side=32), scenes(30, side=32, kind='photo')
    t = evaluate({'same': toon, 'photos': photo[:12]}, photo, toon, 'simple', n=10, seed=3, reps=10)
    assert t.attrs['n'] == 10 and t.attrs['seed'] == 3
    assert np.allclose(t.loc['same'].dropna().to_numpy(float), t.loc['untranslated input'].dropna().to_numpy(float))      # doing nothing is doing nothing
    with pytest.raises(ValueError, match='11 outputs and 12 inputs'): evaluate(toon[:11], photo, toon, 'simple')

# --- weights

def test_missing_weights_say_what_to_do(monkeypatch):
    with pytest.raises(WeightsMissing) as e: find_weights()
    for word in ('weights=', 'TOON2REAL_INCEPTION=/path/to/', 'hub', 'download is off', OFFICIAL): assert word in str(e.value)
    with pytest.raises(WeightsMissing, match='/none.pth.*weights='): find_weights('/none.pth')
    monkeypatch.setenv('TOON2REAL_INCEPTION', '/none.pth')
    with pytest.raises(WeightsMissing, match=r'/none.pth.*\$TOON2REAL_INCEPTION'): fid(scenes(4, side=32), scenes(4, side=32), 64)
    assert repr(best_extractor()) == 'simple features'

def test_offline_download_fails_fast(monkeypatch):
    import urllib.error, urllib.request
    def fail(*a, **k): raise urllib.error.URLError('no route to host')
    monkeypatch.setenv('TOON2REAL_OFFLINE', '0'); monkeypatch.setattr(urllib.request, 'urlopen', fail)
    with pytest.raises(WeightsMissing, match='no route to host'): find_weights()

def test_broken_weights_are_refused(tmp_path):
    (tmp_path/'w.pth').write_bytes(b'not a file of weights')
    with pytest.raises(WeightsMissing, match='w.pth'): Inception(64, tmp_path/'w.pth')
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/owned',)
    torch.save({'a': Evil()}, tmp_path/'evil.pth')
    with pytest.raises(WeightsMissing, match='evil.pth'): Inception(64, tmp_path/'evil.pth')
    assert not (tmp_path/'owned').exists()
    state = Inception._random(64); state['Conv2d_1a_3x3.conv.weight'][0, 0, 0, 0] = float('nan'); torch.save(state, tmp_path/'nan.pth')
    with pytest.raises(WeightsMissing, match='nan.pth.*NaN'): Inception(64, tmp_path/'nan.pth')
    torch.save({'x': torch.ones(1)}, tmp_path/'other.pth')
    with pytest.raises(WeightsMissing, match='no dimensions'): Inception(64, tmp_path/'other.pth')

def test_partial_weights_serve_what_they_cover(tmp_path):
    torch.save(Inception._random(192), tmp_path/'part.pth')
    net = Inception(weights=tmp_path/'part.pth'); assert net.dims == 192
    assert set(net(scenes(1, side=32))) == {64, 192} and net.label('FID', 192) == 'Frechet (other weights 192)'
    for d in (768, 2048):
        with pytest.raises(WeightsMissing, match=f'serve 64, 192 dimensions, not {d}'): Inception(d, tmp_path/'part.pth')

@real
def test_published_weights_are_known():
    net = Inception(weights=WEIGHTS)
    assert net.dims == 768 and [net.label('FID', d) for d in (64, 192, 768)] == ['FID-64', 'FID-192', 'FID-768']
    with pytest.raises(WeightsMissing, match='serve 64, 192, 768 dimensions, not 2048'): Inception(2048, WEIGHTS)

@real
def test_real_images_bf16_and_content():
    net, half = Inception(768, WEIGHTS), Inception(768, WEIGHTS, dtype=torch.bfloat16)
    files = sorted((DATA/'photo/val').iterdir())[:3]
    a, b = (features(files, 768, extractor=o, cache=False) for o in (net, half))
    assert 0 < np.linalg.norm(a - b)/np.linalg.norm(a) < .02       # bf16 has 8 bits: measured .004 to .01
    assert content(files[:1], files[:1], extractor=net) == pytest.approx(1, abs=1e-5) and .2 < content(files[:1], [Image.open(files[1])], extractor=net) < .9

@real
def test_equals_the_command_of_pytorch_fid(tmp_path):
    "Its own process at 192 dimensions on 2 x 32 real images; its Frechet distance where its SciPy call still exists, else its statistics and our distance"
    hub = tmp_path/'hub/hub/checkpoints'; hub.mkdir(parents=True)
    torch.save(peer_weights(WEIGHTS), hub/OFFICIAL)
    for k in ('cartoon', 'photo'):
        (tmp_path/k).mkdir()
        for f in sorted((DATA/k/'val').iterdir())[:32]: (tmp_path/k/f.name).write_bytes(f.read_bytes())
    def peer(*a): return subprocess.run([sys.executable, '-m', 'pytorch_fid', '--device', 'cpu', '--dims', '192', '--num-workers', '0', *map(str, a)], capture_output=True, text=True, env=os.environ)
    ours, done = fid(tmp_path/'cartoon', tmp_path/'photo', 192, weights=WEIGHTS), peer(tmp_path/'cartoon', tmp_path/'photo')
    if done.returncode:
        assert 'disp' in done.stderr, done.stderr                  # SciPy 1.18 removed the argument that pytorch-fid 0.3.0 passes
        for k in ('cartoon', 'photo'): assert peer('--save-stats', tmp_path/k, tmp_path/f'{k}.npz').returncode == 0
        theirs = fid(tmp_path/'cartoon.npz', tmp_path/'photo.npz')
    else: theirs = float(done.stdout.split('FID:')[1])
    assert ours.name == 'FID-192' and ours == pytest.approx(theirs, rel=1e-3)

def peer_weights(path):
    "Weights that pytorch-fid loads strictly: those of `path`, the rest as the module makes them"
    import pytorch_fid.inception as peer
    from unittest.mock import patch
    with patch.object(peer, 'load_state_dict_from_url', lambda *a, **k: {}), patch.object(torch.nn.Module, 'load_state_dict', lambda *a, **k: None): net = peer.fid_inception_v3()
    return {**net.state_dict(), **torch.load(path, weights_only=True)}

"Curation under hard conditions: killed, sharded, fed broken files"
import os, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import av, numpy as np, pandas as pd, pytest
from PIL import Image
from toon2real.curate import Catalogue, CurateError, MANIFEST_COLUMNS, Thresholds, near_duplicates

SHARED = Path(os.environ.get('TOON2REAL_SHARED', Path(__file__).resolve().parents[1]/'..'/'shared'))
CODEC = 'libx264' if 'libx264' in av.codecs_available else 'mpeg4'

def make_film(path, seconds=20, seed=0, fps=8, size=(160, 96), faststart=False, options=None):
    "A film of moving coloured blocks, each shot its own colours: cheap to make, different at every moment"
    rng = np.random.default_rng(seed); w, h = size
    with av.open(str(path), 'w', options={'movflags': 'faststart'} if faststart else {}) as out:
        v = out.add_stream(CODEC, rate=fps, options=options or ({'g': str(3*fps), 'bf': '2'} if CODEC == 'libx264' else {})); v.width, v.height, v.pix_fmt = w, h, 'yuv420p'
        for i in range(seconds*fps):
            if i % (4*fps) == 0: base = rng.integers(60, 256, (6, 10, 3), np.uint8)
            im = np.roll(np.kron(base, np.ones((h//6, w//10, 1), np.uint8)), 3*i, 1)
            for p in v.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(im), format='rgb24')): out.mux(p)
        for p in v.encode(): out.mux(p)
    return path

def content(cat):
    "All that a catalogue knows, without its row numbers"
    f = pd.read_sql_query('SELECT f.content, r.pts, r.name, r.time, r.luma, r.contrast, r.text, r.cut, r.hash, r.top, r.bottom, r.tiny, r.thumb, r.error FROM frames r JOIN films f ON f.id=r.film ORDER BY 1, 2, 3', cat.db)
    return f, pd.read_sql_query('SELECT content, name, kind, width, height, duration, every, status, error FROM films ORDER BY content', cat.db)

def same(a, b):
    for x, y in zip(content(a), content(b)): pd.testing.assert_frame_equal(x, y)
    x, y = a.frames(), b.frames(); assert x.reason.tolist() == y.reason.tolist() and x.kept.tolist() == y.kept.tolist()

@pytest.fixture(scope='module')
def films(tmp_path_factory):
    d = tmp_path_factory.mktemp('films')
    for i in range(3): make_film(d/f'film{i}.mp4', seconds=24 + 8*i, seed=i)
    (d/'stills').mkdir(); rng = np.random.default_rng(9)
    for i in range(12): Image.fromarray(np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((16, 16, 1), np.uint8))).save(d/'stills'/f's{i}.png')
    return d

@pytest.fixture(scope='module')
def whole(films):
    with Catalogue(films.parent/'whole.sqlite') as c: assert not len(c.add(films, every=.25, progress=False)); yield c

def test_needs_no_torch():
    code = "import sys, toon2real.curate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_kill_and_go_on(films, whole, tmp_path):
    "kill -9 at several moments, then go on: the catalogue of a run that was never killed"
    path = tmp_path/'killed.sqlite'
    slow = f"""import time, toon2real.curate as C
look = C.look
def slowly(im, **kw): time.sleep(.02); return look(im, **kw)
C.look = slowly; print('ready', flush=True); C.Catalogue({str(path)!r}).add({str(films)!r}, every=.25, progress=False)"""
    seen = []
    for wait in (1.3, 1.7):
        p = subprocess.Popen([sys.executable, '-c', slow], stdout=subprocess.PIPE); p.stdout.readline(); time.sleep(wait); p.send_signal(signal.SIGKILL); p.wait()
        with Catalogue(path) as c: seen.append(len(c.frames()))
    with Catalogue(path) as c:
        assert 0 < seen[0] < seen[1] < len(whole.frames()), seen       # it was indeed cut off, twice, and went on
        c.add(films, every=.25, progress=False); same(c, whole)

def test_again_adds_nothing(films, whole):
    with Catalogue(whole.path.with_name('again.sqlite')) as c:
        c.merge(whole.path); ids = c.frames().index.tolist(); assert not len(c.add(films, every=.25, progress=False))
        same(c, whole); assert c.frames().index.tolist() == ids      # not a row was written anew

def test_processes_and_shards(films, whole, tmp_path):
    parts = []
    for i in (1, 2):
        with Catalogue(tmp_path/f'{i}.sqlite') as c: c.add(films, every=.25, shard=(i, 2), processes=i, progress=False); parts.append(c.path); assert 0 < len(c.frames()) < len(whole.frames())
    with Catalogue(tmp_path/'merged.sqlite') as c:
        same(c.merge(parts[::-1]), whole); same(c.merge(parts), whole)
    with Catalogue(tmp_path/'x.sqlite') as c:
        with pytest.raises(CurateError, match='1 to 2'): c.add(films, shard=(3, 2))

def test_broken_films(tmp_path):
    "Whatever cannot be read is reported, what can be is kept, and the rest goes on"
    d = tmp_path/'films'; d.mkdir(); make_film(d/'good.mp4', 12)
    whole = make_film(tmp_path/'long.mp4', 40, seed=5, faststart=True).read_bytes(); (d/'cut.mp4').write_bytes(whole[:len(whole)*6//10])
    late = make_film(tmp_path/'late.mp4', 12, seed=6).read_bytes(); (d/'headless.mp4').write_bytes(late[:len(late)*8//10])     # the index stands at the end
    hole = bytearray(whole); hole[len(hole)//2:len(hole)//2 + 3000] = os.urandom(3000); (d/'hole.mp4').write_bytes(hole)
    (d/'text.mp4').write_text('I am a film, honestly'); (d/'zero.mkv').touch(); make_film(d/'raw.ts', 6, seed=7)
    (d/'audio.mp4').write_bytes(silence(tmp_path/'a.mp4'))
    with Catalogue(tmp_path/'c.sqlite') as c:
        r = c.add(d, every=.5, progress=False); f = c.films().set_index('name')
        assert f.status['good.mp4'] == f.status['raw.ts'] == 'done' and f.frames['good.mp4'] == 24
        assert f.status['cut.mp4'] == 'partial' and 30 < f.frames['cut.mp4'] < 70 and 'cut short' in f.error['cut.mp4']
        assert f.frames['hole.mp4'] > 60
        assert (f.status[['headless.mp4', 'text.mp4', 'zero.mkv', 'audio.mp4']] == 'broken').all() and 'no video' in f.error['audio.mp4'] and 'empty' in f.error['zero.mkv']
        assert {'cut.mp4', 'text.mp4', 'zero.mkv'} <= {Path(o).name for o in r.file} and all(Path(o.file).name in o.what or o.status == 'partial' for o in r.itertuples())
        r2 = c.add(d, every=.5, progress=False); assert sorted(r2.file) == sorted(r.file)      # told again, not read again
        assert (c.frames().reason != '').sum() + c.counts()['kept'] == len(c.frames())

def silence(path):
    with av.open(str(path), 'w') as out:
        a = out.add_stream('aac', rate=44100)
        f = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono'); f.sample_rate = 44100
        for p in a.encode(f): out.mux(p)
        for p in a.encode(): out.mux(p)
    return path.read_bytes()

def test_decoder_crash(tmp_path, monkeypatch):
    "A process that dies takes nothing with it"
    make_film(tmp_path/'a.mp4', 4); make_film(tmp_path/'b.mp4', 8, seed=1); import toon2real.curate as C
    monkeypatch.setattr(C, '_child', _dies_on_a)      # stands for a decoder that crashes in one film
    with Catalogue(tmp_path/'c.sqlite') as c:
        r = c.add(tmp_path, processes=2, progress=False); assert 'crashed' in r.what[0]
        assert c.films().set_index('name').status.to_dict() == {'a.mp4': 'broken', 'b.mp4': 'done'}

def _dies_on_a(job, pipe):
    from toon2real.curate import _work
    pipe.send('here')
    if job['path'].endswith('a.mp4'): os._exit(11)
    for m in _work(job): pipe.send(m)

def test_names(tmp_path):
    "Quotes, percent signs, other scripts, a leading dash: all are data"
    d = tmp_path/"it's \"100%\"; DROP TABLE films; -- 風の谷"; d.mkdir(); names = ["l'été.mp4", '-rf.mp4', '風 "谷".mp4', 'a%20b;.mp4']
    for i, n in enumerate(names): make_film(d/n, 5, seed=20 + i)
    (d/'st').mkdir(); Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(d/'st'/"naïve 'x'.png")
    with Catalogue(tmp_path/"c'at.sqlite") as c:
        c.add(d, licence="own; \"mine\"", progress=False); assert sorted(c.films().name) == sorted([*names, 'st'])
        c.split(val=.4); out = c.export(tmp_path/"out 'x'", side=48, progress=False); back = pd.read_csv(tmp_path/"out 'x'"/'manifest.csv', keep_default_na=False)
        assert tuple(back.columns) == MANIFEST_COLUMNS and set(back.source) <= {*names, "st/naïve 'x'.png"} and len(back) == len(out) and back.file.map(str.isascii).all()
        assert all((tmp_path/"out 'x'"/o).is_file() for o in back.file)

def test_decisions_outlive(films, whole, tmp_path):
    with Catalogue(tmp_path/'c.sqlite') as c:
        c.merge(whole.path); df = c.frames(); gone, kept = df.index[df.kept][:3], df.index[~df.kept][:2]
        c.decide(gone, keep=False, who='ann'); c.decide(kept, keep=True, who='bob')
        for t in (Thresholds(dark=.9), Thresholds(flat=.9, small=10**6), Thresholds(duplicate=0)):
            c.thresholds = t; now = c.frames(); assert not now.kept[gone].any() and now.kept[kept].all() and now.reason[gone].str.contains('ann').all()
        with Catalogue(tmp_path/'d.sqlite') as d: assert d.merge(c.path).frames().decision.value_counts().to_dict() == c.frames().decision.value_counts().to_dict()
        assert c.counts(Thresholds(licences=('CC*',)))['kept'] == 0 and c.frames(Thresholds(licences=('CC*',))).reason[kept].eq('licence: none stated').all()   # but no licence is made up
        c.thresholds = Thresholds(dark=.9, picked=True); assert c.counts()['kept'] == 2
    with Catalogue(tmp_path/'c.sqlite') as c: assert c.thresholds == Thresholds(dark=.9, picked=True)

def test_splits_never_mix(films, whole, tmp_path):
    with Catalogue(tmp_path/'c.sqlite') as c:
        c.merge(whole.path); c.split(val=.3, seed=3); out = c.export(tmp_path/'set', side=32, progress=False); kept = c.frames().query('kept')
        assert set(out.split) == {'train', 'val'} and out.assign(film=out.source.str.split('/').str[0]).groupby('film').split.nunique().max() == 1
        first = c.films().split.to_dict(); c.thresholds = Thresholds(duplicate=0); c.split(val=.3, seed=9); assert c.films().split.to_dict() == first      # films stay where they are
        assert len(out) == len(kept) == len(list((tmp_path/'set').rglob('*.png')))

def test_changed_and_moved(tmp_path):
    d = tmp_path/'d'; d.mkdir(); make_film(d/'a.mp4', 6); make_film(d/'b.mp4', 6, seed=2)
    with Catalogue(tmp_path/'c.sqlite') as c:
        c.add(d, progress=False); n = len(c.frames()); (d/'a.mp4').rename(d/'moved.mp4')
        with pytest.raises(CurateError, match='gone or changed'): c.export(tmp_path/'x', progress=False)
        c.add(d, progress=False); assert len(c.frames()) == n; c.export(tmp_path/'x', progress=False)
        make_film(d/'b.mp4', 8, seed=3)
        with pytest.raises(CurateError, match='b.mp4: gone or changed'): c.export(tmp_path/'x', progress=False)

def test_not_a_catalogue(tmp_path):
    (tmp_path/'c.sqlite').write_text('x'*5000)
    with pytest.raises(CurateError, match='c.sqlite: cannot be used'): Catalogue(tmp_path/'c.sqlite')
    with pytest.raises(CurateError, match='no such catalogue'): Catalogue(tmp_path/'none.sqlite', create=False)

def test_duplicates_are_fast_and_right():
    rng = np.random.default_rng(0); n = 20000; H = rng.integers(0, 2**64, n, np.uint64); T = rng.integers(0, 256, (n, 192), np.uint8)
    i = rng.permutation(n)[:4000]; a, b = np.minimum(i[:2000], i[2000:]), np.maximum(i[:2000], i[2000:]); H[b] = H[a]^np.uint64(0x11); T[b] = T[a]
    of, far = near_duplicates(H, T); assert set(np.flatnonzero(of >= 0)) == set(b) and (of[b] == a).all()

@pytest.mark.skipif(not (SHARED/'data'/'video').is_dir(), reason='needs the real clips')
def test_real_clips(tmp_path):
    with Catalogue(tmp_path/'c.sqlite') as c:
        c.add(SHARED/'data'/'video', progress=False); df = c.frames(); b = df[df.source.str.startswith('big')].set_index('time'); s = df[df.source.str.startswith('sintel')]
        text = b.marks.str.contains('text'); assert text[[0., 21., 22., 23., 27., 28.]].all() and text.sum() <= 9          # the titles, seen by eye, and nothing else
        assert s.letterbox.all() and s.top.between(.1, .14).all() and not b.letterbox.any()

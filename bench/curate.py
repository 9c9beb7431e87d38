"""Curation against bare decoding of the same films.

Bare: PyAV decodes every frame and does nothing with it. Curation: the same decoding, one frame a second scored (luma, contrast, letters, hash, bars, colours), thumbnails and scores written to a catalogue.
Runs alternate and the ratio of the medians is printed with its spread, so that other work on the machine hits both sides. On two processes both sides get two (films read at the same time, decoder threads shared out).
`--memory` makes an hour-long film and prints the largest resident set of the reading process at each quarter.
"""
import argparse, multiprocessing, os, resource, statistics, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import av

SHARED = Path(os.environ.get('TOON2REAL_SHARED', Path(__file__).resolve().parents[1]/'..'/'shared'))

def bare(path, threads=0):
    with av.open(str(path)) as c:
        s = c.streams.video[0]; s.thread_type = 'AUTO'; s.codec_context.thread_count = threads
        return sum(1 for _ in c.decode(s))

def bare_all(films, processes):
    if processes == 1: return sum(map(bare, films))
    with ProcessPoolExecutor(processes, multiprocessing.get_context('spawn')) as pool: return sum(pool.map(bare, films, [max(1, (os.cpu_count() or 1)//processes)]*len(films)))

def curate_all(films, processes, every, keyframes=False):
    from toon2real.curate import Catalogue
    with tempfile.TemporaryDirectory() as d, Catalogue(Path(d)/'c.sqlite') as c: c.add(films, every, processes, keyframes=keyframes, progress=False); return len(c.frames())

def clock(f, *args): t = time.perf_counter(); n = f(*args); return time.perf_counter() - t, n

def compare(name, films, processes, every, repeats):
    curate_all(films[:1], 1, every)      # imports and caches
    a, b = zip(*((clock(bare_all, films, processes), clock(curate_all, films, processes, every)) for _ in range(repeats)))
    ratios = [y[0]/x[0] for x, y in zip(a, b)]; m = lambda v: statistics.median(o[0] for o in v)
    print(f'{name}, {processes} process{"es" if processes > 1 else ""}: bare {m(a):.2f} s for {a[0][1]} frames, curation {m(b):.2f} s for {b[0][1]} sampled: ratio {m(b)/m(a):.2f} (of single pairs {min(ratios):.2f} to {max(ratios):.2f}, {repeats} repeats)', flush=True)
    return m(a), m(b)

def looped(source, path, seconds):
    "The packets of a film again and again, until it is this long; nothing is decoded"
    with av.open(str(source)) as src, av.open(str(path), 'w') as out:
        s = src.streams.video[0]; v = out.add_stream_from_template(s); packets = [p for p in src.demux(s) if p.dts is not None]; one = int(packets[-1].dts - packets[0].dts) + (packets[-1].duration or 1)
        data = [(bytes(p), p.pts, p.dts, p.is_keyframe, p.duration) for p in packets]; tick = s.time_base
        for k in range(int(seconds/(one*tick)) + 1):
            for b, pts, dts, key, duration in data:
                p = av.Packet(b); p.pts, p.dts, p.duration, p.time_base, p.stream, p.is_keyframe = pts + k*one, dts + k*one, duration, tick, v, key; out.mux(p)
    return path

def hour(folder, minutes):
    "A low-resolution film of that length: a small film of scenes, its packets looped"
    from toon2real.scenes import write_film
    write_film(folder/'short.mp4', fps=12); return looped(folder/'short.mp4', folder/'hour.mp4', 60*minutes)

def memory(folder, minutes):
    "Largest resident set of this process while an hour is read"
    import toon2real.curate as C
    film = hour(folder, minutes); print(f'{minutes} minutes, {film.stat().st_size/1e6:.0f} MB', flush=True)
    rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(1 << 10 if sys.platform != 'darwin' else 1 << 20); marks, put = [], C.Catalogue._put
    def seen(self, rows): put(self, rows); marks.append((rows[-1]['time']/60, rss()))
    C.Catalogue._put = seen
    with C.Catalogue(folder/'c.sqlite') as c:
        t = time.perf_counter(); c.add(film, progress=False); wall = time.perf_counter() - t; b = clock(bare, film)[0]
        for q in (.05, .25, .5, .75, 1.): print(f'  after {q*minutes:4.0f} minutes of film: {[r for m, r in marks if m <= q*minutes + .1][-1]:.0f} MiB at most')
        print(f'  {len(c.frames())} frames in {wall:.1f} s, bare decoding {b:.1f} s, ratio {wall/b:.2f}; all reasons worked out in {clock(c.frames)[0]:.2f} s')

def duplicates(n):
    import numpy as np; from toon2real.curate import near_duplicates
    r = np.random.default_rng(0); h, t = r.integers(0, 2**64, n, np.uint64), (r.normal(128, 40, (n, 1)) + r.normal(0, 30, (n, 192))).clip(0, 255).astype(np.uint8)   # pictures of all brightnesses
    print(f'near-duplicates among {n} frames, all different (the slowest case: all are kept and compared): {clock(near_duplicates, h, t)[0]:.1f} s')

if __name__ == '__main__':
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('films', nargs='*', type=Path, help='films to read; default: the clips of TOON2REAL_SHARED/data/video')
    a.add_argument('--every', type=float, default=1., help='seconds between two sampled frames'); a.add_argument('--repeats', type=int, default=5)
    a.add_argument('--minutes', type=float, default=4., help='length the clips are looped to for the comparison of 1 and 2 processes (start-up of processes is part of the time)')
    a.add_argument('--memory', action='store_true', help='largest resident set over a long synthetic film'); a.add_argument('--hours', type=float, default=1.)
    a.add_argument('--duplicates', type=int, metavar='N', help='time of the search for near-duplicates among N frames')
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        if o.memory: memory(d, 60*o.hours)
        if o.duplicates: duplicates(o.duplicates)
        if not (o.memory or o.duplicates):
            films = o.films or sorted((SHARED/'data'/'video').glob('*.mp4'))
            if not films: sys.exit('no films: name some, or set TOON2REAL_SHARED')
            for f in films: compare(f.name, [f], 1, o.every, o.repeats)
            long = [looped(f, d/f'{i}_{f.stem}.mkv', 60*o.minutes) for i, f in enumerate(films)]
            one, two = (compare(f'{len(long)} films of {o.minutes:g} minutes', long, n, o.every, max(1, o.repeats//2)) for n in (1, 2))
            print(f'on two processes: bare decoding {one[0]/two[0]:.2f} times as fast as on one, curation {one[1]/two[1]:.2f} times')
            b, k = clock(bare_all, long, 1)[0], clock(curate_all, long, 1, o.every, True)[0]; print(f'key frames only: {k:.2f} s, {k/b:.2f} of bare decoding')

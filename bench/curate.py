"""Curation against bare decoding of the same films.

Bare: PyAV decodes every frame and does nothing with it. Curation: the same decoding, a tile of every frame for cuts and
dissolves, one frame a second scored (light, letters, sharpness, hash, bars, colours), thumbnails and scores written.
Runs alternate and the ratio of the medians is printed with its spread, so that other work on the machine hits both.
`--memory` makes an hour-long film and prints the largest resident set of the reading process at each quarter.
`--cuts` prints the frames that begin a shot, and the processor seconds of finding them against bare decoding; beside
them those of PySceneDetect's detectors with their defaults, where scenedetect is installed.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

SHARED = Path(os.environ.get("TOON2REAL_SHARED", Path(__file__).resolve().parents[1] / ".." / "shared"))


def bare(films):
    "Frames of these films, decoded and thrown away"
    count = 0
    for film in films:
        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            count += sum(1 for _ in container.decode(stream))
    return count


def curated(films, every):
    "Frames of these films, sampled into a catalogue"
    from toon2real.catalogue import Catalogue

    with tempfile.TemporaryDirectory() as folder, Catalogue(Path(folder) / "c.sqlite") as cat:
        cat.add(films, every, progress=False)
        return int(cat.films().frames.sum())


def clock(function, *arguments):
    "(seconds, processor seconds of all threads, result)"
    start, before = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - start, time.process_time() - before, result


def compare(name, films, every, repeats):
    curated(films[:1], every)  # imports and caches
    pairs = [(clock(bare, films), clock(curated, films, every)) for _ in range(repeats)]
    (*_, frames), (*_, sampled) = pairs[0]
    print(f"{name}: {frames} frames, {sampled} sampled, {repeats} repeats")
    for measure, unit in enumerate(["seconds", "processor seconds"]):
        ratios = [curation[measure] / decoding[measure] for decoding, curation in pairs]
        decoding, curation = (statistics.median(pair[side][measure] for pair in pairs) for side in (0, 1))
        spread = f"of single pairs {min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {unit}: bare {decoding:.2f}, curation {curation:.2f}, ratio {curation / decoding:.2f} ({spread})")
    sys.stdout.flush()


def looped(source, path, seconds):
    "The packets of a film again and again, until it is this long; nothing is decoded"
    with av.open(str(source)) as film, av.open(str(path), "w") as out:
        stream = film.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in film.demux(stream) if packet.dts is not None]
        length = int(packets[-1].dts - packets[0].dts) + (packets[-1].duration or 1)
        data = [(bytes(o), o.pts, o.dts, o.duration, o.is_keyframe) for o in packets]
        for turn in range(int(seconds / (length * stream.time_base)) + 1):
            for content, pts, dts, duration, key in data:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + turn * length, dts + turn * length, duration
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, copy, key
                out.mux(packet)
    return path


def memory(folder, minutes):
    "Largest resident set of this process while a long film is read"
    from toon2real.curate import Catalogue
    from toon2real.scenes import write_film

    write_film(folder / "short.mp4", fps=12)
    film = looped(folder / "short.mp4", folder / "hour.mp4", 60 * minutes)
    print(f"{minutes:g} minutes, {film.stat().st_size / 1e6:.0f} MB", flush=True)
    unit = 1 << 10 if sys.platform != "darwin" else 1 << 20
    marks, put = [], Catalogue._put

    def seen(self, rows):
        put(self, rows)
        if rows:
            marks.append((rows[-1]["time"] / 60, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit))

    Catalogue._put = seen
    with Catalogue(folder / "c.sqlite") as cat:
        wall, *_ = clock(lambda: cat.add(film, progress=False))
        decoding, *_ = clock(bare, [film])
        for share in (0.05, 0.25, 0.5, 0.75, 1.0):
            most = [size for at, size in marks if at <= share * minutes + 0.1][-1]
            print(f"  after {share * minutes:4.0f} minutes of film: {most:.0f} MiB at most")
        seconds, _, frames = clock(cat.frames)
        print(f"  {len(frames)} frames in {wall:.1f} s, bare decoding {decoding:.1f} s, ratio {wall / decoding:.2f}")
        print(f"  all reasons worked out in {seconds:.2f} s")


def duplicates(count):
    "Time of the search for near-duplicates where all pictures are different: all are kept and compared"
    from toon2real.picks import near_pairs, settle

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    brightness = rng.normal(128, 40, (count, 1))
    tiny = (brightness + rng.normal(0, 30, (count, 192))).clip(0, 255).astype(np.uint8)
    seconds, *_ = clock(lambda: settle(near_pairs(hashes, tiny), count))
    print(f"near-duplicates among {count} different frames: {seconds:.1f} s")


def our_cuts(film):
    "Frames that begin a shot, from a tile of every decoded frame"
    from av.video.reformatter import Interpolation, VideoReformatter

    from toon2real.scores import TILE, Thresholds, cuts

    tiler = VideoReformatter()
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        tiles = [
            tiler.reformat(frame, *TILE, "rgb24", interpolation=Interpolation.AREA).to_ndarray()
            for frame in container.decode(stream)
        ]
    return np.flatnonzero(cuts(np.stack(tiles)) > Thresholds().cut).tolist()


def their_cuts(film, detector):
    "The same by PySceneDetect"
    import scenedetect

    scenes = scenedetect.detect(str(film), getattr(scenedetect, detector)())
    return [start.frame_num for start, _ in scenes][1:]


def compare_cuts(films, repeats):
    "Cuts of each film by every finder, and processor seconds against bare decoding, the median of so many turns"
    finders = {
        "bare decoding": lambda film: bare([film]),
        "ours": our_cuts,
        "all of curation": lambda film: curated([film], 1),
    }
    if find_spec("scenedetect"):
        for detector in ("ContentDetector", "AdaptiveDetector"):
            finders[f"PySceneDetect, {detector}"] = partial(their_cuts, detector=detector)
    for film in films:
        seconds = {name: [] for name in finders}
        found = {}
        for _ in range(repeats):
            for name, find in finders.items():
                start = time.process_time()
                found[name] = find(film)
                seconds[name].append(time.process_time() - start)
        took = {name: statistics.median(times) for name, times in seconds.items()}
        for name in finders:
            ratio = took[name] / took["bare decoding"]
            cuts = found[name] if isinstance(found[name], list) else ""
            print(f"{film.name}, {name}: {took[name]:.2f} s, ratio {ratio:.2f} {cuts}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="*", type=Path, help="default: the clips of TOON2REAL_SHARED/data/video")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two sampled frames")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, help="loop each film to this length first, without encoding it anew")
    parser.add_argument("--cuts", action="store_true", help="where shots begin, and how long it takes to find out")
    parser.add_argument("--memory", action="store_true", help="largest resident set over a long synthetic film")
    parser.add_argument("--hours", type=float, default=1.0, help="length of that film")
    parser.add_argument("--duplicates", type=int, metavar="N", help="time of the search for near-duplicates")
    options = parser.parse_args()
    if options.duplicates:
        duplicates(options.duplicates)
    if options.memory:
        with tempfile.TemporaryDirectory() as folder:
            memory(Path(folder), 60 * options.hours)
    if options.memory or options.duplicates:
        return
    films = options.films or sorted((SHARED / "data" / "video").glob("*.mp4"))
    if not films:
        sys.exit("no films: name some, or set TOON2REAL_SHARED")
    if options.cuts:
        return compare_cuts(films, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        for film in films:
            if options.minutes:
                film = looped(film, Path(folder) / film.name, 60 * options.minutes)
            compare(film.name, [film], options.every, options.repeats)


if __name__ == "__main__":
    main()

"Strangers' films: playlists, joined clocks, full range; a writer without H.264, with a full disk, with long sound"

import resource
import socket

import av
import numpy as np
import pytest

from toon2real.files import WriteError
from toon2real.films import FilmError, Writer, decode, open_film, picture

COLOUR = 210, 60, 40
FLAT = np.full((48, 64, 3), COLOUR, np.uint8)


def colour_of(path):
    return np.asarray(picture(next(decode(path))[2]))[9, 9].astype(int)


def sounding_film(path, seconds, codec):
    "One colour and a tone"
    with av.open(str(path), "w") as box:
        video = box.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        audio = box.add_stream(codec, rate=44100, layout="mono")
        for i in range(10 * seconds):
            box.mux(video.encode(av.VideoFrame.from_ndarray(FLAT, format="rgb24")))
            tone = (np.sin(np.arange(4410) * 0.06) * 8000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44100, 4410 * i
            box.mux(audio.encode(frame))
        box.mux(video.encode(None))
        box.mux(audio.encode(None))


def test_a_playlist_fetches_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        (tmp_path / "film.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n")
        (tmp_path / "film.m3u8").write_bytes((tmp_path / "film.mp4").read_bytes())
        for name in ("film.mp4", "film.m3u8"):
            with pytest.raises(FilmError, match=name), open_film(tmp_path / name):
                pass
        with pytest.raises(TimeoutError):
            server.accept()


def test_full_range(tmp_path):
    "Motion JPEG uses all 256 levels"
    with av.open(str(tmp_path / "x.avi"), "w") as box:
        stream = box.add_stream("mjpeg", rate=10, width=64, height=48, pix_fmt="yuvj420p", options={"qscale": "2"})
        box.mux(stream.encode(av.VideoFrame.from_ndarray(FLAT, format="rgb24")))
        box.mux(stream.encode(None))
    assert abs(colour_of(tmp_path / "x.avi") - COLOUR).max() <= 4


@pytest.mark.parametrize("name", ["x.mp4", "x.mov", "x.mkv"])
@pytest.mark.parametrize("h264", [True, False])
def test_the_writer_names_its_colours(tmp_path, monkeypatch, name, h264):
    "Also where there is no H.264. FFmpeg's scaler rounds down by up to 2 levels each way, and the encoder adds 1"
    if not h264:
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with Writer(tmp_path / name) as film:
        for _ in range(3):
            film.add(FLAT)
    with open_film(tmp_path / name) as (_, stream):
        assert (stream.codec_context.name == "h264") == h264
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
    assert abs(colour_of(tmp_path / name) - COLOUR).max() <= 5


@pytest.mark.parametrize("codec,told", [("aac", "copied"), ("mp2", "encoded as AAC")])
def test_a_clock_that_begins_anew(tmp_path, codec, told):
    "Two recordings in one file: the sound is cut where its clock goes back, and the film is whole"
    sounding_film(tmp_path / "one.ts", 2, codec)
    joined = (tmp_path / "one.ts").read_bytes() * 2
    (tmp_path / "two.ts").write_bytes(joined)
    with Writer(tmp_path / "x.mp4", rate=10, sound=tmp_path / "two.ts") as film:
        for _, seconds, frame in decode(tmp_path / "two.ts"):
            film.add(picture(frame), seconds)
    assert film.sound == told
    assert len(list(decode(tmp_path / "x.mp4"))) == film.frames >= 39


def test_a_codec_that_nobody_knows(tmp_path):
    with Writer(tmp_path / "film.mkv") as film:
        film.add(FLAT)
    data = (tmp_path / "film.mkv").read_bytes()
    assert data.count(b"V_MPEG4/ISO/AVC") == 1
    (tmp_path / "odd.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX"))
    with pytest.raises(FilmError, match="odd.mkv: nothing here decodes its pictures"):
        list(decode(tmp_path / "odd.mkv"))


def test_a_full_disk(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    random = np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # bytes that a file may have
    try:
        with pytest.raises(WriteError, match="x.mp4 could not be written"), Writer(tmp_path / "x.mp4", crf=1) as film:
            for _ in range(60):
                film.add(random.integers(0, 256, (96, 128, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())

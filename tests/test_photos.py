"""Flickr's interface and its moods, from a server on this machine: every fault that a long download meets,
kill -9 at each instant, and the key in no file."""

import csv
import io
import itertools
import json
import os
import random
import re
import signal
import socket
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image

from toon2real import files, photos
from toon2real.curate import Catalogue  # with its methods of `picks`
from toon2real.images import list_images, open_image
from toon2real.photos import Busy, Flickr, Gone, PhotoError, Web, download, photos_command

KEY = "0123456789abcdef0123456789abcdef"
CC = "https://creativecommons.org/licenses/"
TABLE = [
    (0, "All Rights Reserved", ""),
    (2, "Attribution-NonCommercial License", CC + "by-nc/2.0/"),
    (4, "Attribution License", CC + "by/2.0/"),
    (5, "Attribution-ShareAlike License", CC + "by-sa/2.0/"),
]


def jpeg(n, size=(96, 72)):
    "Picture n: smooth colours, unlike any other"
    a = np.random.default_rng(n).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    b = io.BytesIO()
    Image.fromarray(a).resize(size, Image.BICUBIC).save(b, "JPEG", quality=80)
    return b.getvalue()


class Server(ThreadingHTTPServer):
    """A small Flickr. `mood(path, query)` may return (status, headers, body), or a function of the handler;
    None answers properly."""

    daemon_threads = True

    def __init__(self):
        self.photos, self.mood, self.log, self.per_page, self.most = {}, lambda path, q: None, [], 500, 4000
        super().__init__(("127.0.0.1", 0), Handler)
        self.site = f"http://127.0.0.1:{self.server_port}"
        self.base = self.site + "/services/rest/"
        threading.Thread(target=self.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True).start()

    def handle_error(self, *args):
        pass

    def add(self, id, tag="sea", licence=4, owner=None, **more):
        sizes = dict(url_m=f"{self.site}/img/{id}.jpg", width_m="96", height_m="72")
        self.photos[str(id)] = (
            dict(
                id=str(id),
                owner=owner or f"{id}@N00",
                ownername=f"Author {id}",
                title=f"Title {id}",
                license=str(licence),
                tag=tag,
                uploaded=1_400_000_000 + 50_000 * len(self.photos),
            )
            | sizes
            | more
        )

    def images(self):
        return [p for p, q in self.log if p.startswith("/img")]

    def calls(self):
        return [q for p, q in self.log if q.get("method", "").endswith("search")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def reply(self, status, headers, body):
        self.send_response(status)
        for k, v in ({"Content-Length": len(body)} | headers).items():
            if v is not None:
                self.send_header(k, v)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        s, (path, _, q) = self.server, self.path.partition("?")
        q = {k: v[0] for k, v in parse_qs(q).items()}
        s.log.append((path, q))
        m = s.mood(path, q)
        if callable(m):
            return m(self)
        if m:
            return self.reply(*m)
        if path.startswith("/img"):
            return self.reply(200, {}, jpeg(int(re.search(r"\d+", path)[0])))
        self.reply(200, {}, json.dumps(self.answer(s, q)).encode())

    def answer(self, s, q):
        if q.get("api_key") != KEY:
            return dict(stat="fail", code=100, message=f"Invalid API Key ({q.get('api_key')} has invalid format)")
        if q["method"] == "flickr.photos.licenses.getInfo":
            return dict(stat="ok", licenses=dict(license=[dict(id=i, name=n, url=u) for i, n, u in TABLE]))
        lo, hi = int(q.get("min_upload_date", 0)), int(q.get("max_upload_date", 1 << 40))
        found = [
            p
            for p in s.photos.values()
            if p["tag"] == q["tags"] and p["license"] in q["license"].split(",") and lo <= p["uploaded"] <= hi
        ]
        k, page = s.per_page, int(q["page"])
        reach = found[: s.most]
        shown = reach[k * page - k : k * page] or reach[-k:]  # past the end, the last page again
        return dict(
            stat="ok", photos=dict(page=page, pages=-(-len(found) // k), perpage=k, total=str(len(found)), photo=shown)
        )


@pytest.fixture
def server():
    s = Server()
    yield s
    s.shutdown()
    s.server_close()


def flickr(s, key=KEY, **kw):
    return Flickr(key, base=s.base, **dict(rate=2000, backoff=0.01, cooldown=0.01, tries=3, timeout=2) | kw)


LAST = {}  # folder -> states of the last run there


def run(s, folder, n=100, what="sea", **kw):
    report = download(what, folder, n, side=64, flickr=kw.pop("flickr", None) or flickr(s), progress=False, **kw)
    LAST[folder] = report.states
    return report


def states(folder):
    return LAST[folder]


def lines(folder):
    manifest = folder / "manifest.csv"
    text = manifest.read_text() if manifest.exists() else ""
    return list(csv.DictReader(io.StringIO(text)))


def pictures(folder):
    return sorted(path for path in folder.glob("*.*") if path.suffix == ".jpg")


def consistent(folder):
    "Images and manifest tell the same story; nothing half-written is left"
    here = [path.name for path in pictures(folder)]
    told = lines(folder)
    assert set(here) <= {line["file"] for line in told} and len({line["file"] for line in told}) == len(told)
    for path in pictures(folder):
        open_image(path)
    assert all(line["licence"] and line["author"] and line["link"] for line in told)
    return len(here)


def no_key(folder):
    for f in folder.rglob("*"):
        assert f.is_dir() or KEY.encode() not in f.read_bytes(), f


def failure(f, kind=PhotoError):
    "The error's message; the key must not appear in it, nor anywhere in its printed traceback"
    with pytest.raises(kind) as e:
        f()
    assert (
        KEY not in str(e.value) and KEY not in "".join(traceback.format_exception(e.value)) and KEY not in repr(e.value)
    )
    return str(e.value)


def test_plain(server, tmp_path):
    for i in range(12):
        server.add(i, tag=("sea", "sky")[i % 2], licence=(4, 5, 0)[i % 3])
    r = run(server, tmp_path, what=("sea", "sky"))
    assert (r.kept, r.new) == (8, 8) and consistent(tmp_path) == 8 and "no more: 8 of 100" in r.note
    line = {o["source"]: o for o in lines(tmp_path)}["flickr:1"]
    assert (line["licence"], line["author"], line["link"], json.loads(line["scores"])["width"]) == (
        "CC BY-SA 2.0",
        "Author 1",
        "https://www.flickr.com/photos/1@N00/1",
        96,
    )
    assert json.loads(line["scores"])["title"] == "Title 1"
    no_key(tmp_path)


def test_the_client_alone(server):
    w = Web(server.base, rate=2000, backoff=0.01, tries=2, timeout=2)
    server.mood = lambda p, q: (200, {"Content-Length": 1000}, b"x" * 10)
    assert "cut short" in failure(lambda: w.get(f"{server.site}/a", 2000), Busy) and len(server.log) == 2
    for url in (
        "https://example.com/",
        server.site.replace("127.0.0.1", "127.0.0.2") + "/a",
        "file:///etc/passwd",
        f"{server.site}@example.com/a",
        f"{server.site}/a b",
    ):
        assert "off site" in failure(lambda: w.get(url, 2000), Gone)
    assert len(server.log) == 2
    server.mood = lambda p, q: (200, {}, b"{}")
    assert w.get(f"{server.site}/a?api_key={KEY}", 2000, json.loads) == {}
    server.mood = lambda p, q: (404, {}, b"")
    assert (
        failure(lambda: w.get(f"{server.site}/a?api_key={KEY}", 2000), Gone)
        == f"{server.site}/a: the server answers 404"
    )


def test_user_agent_and_query(server, tmp_path):
    server.add(1)
    seen = []
    server.mood = lambda path, q: (
        lambda h: (
            seen.append((path, q, h.headers["User-Agent"])),
            h.reply(200, {}, jpeg(1) if path.startswith("/img") else json.dumps(h.answer(server, q)).encode()),
        )[-1]
    )
    run(server, tmp_path)
    assert all(a.startswith("toon2real/") for *_, a in seen)
    q = next(q for _, q, _ in seen if q.get("method", "").endswith("search"))
    assert q["license"] == "4,5" and q["safe_search"] == "1" and q["media"] == "photos" and "owner_name" in q["extras"]
    assert all("api_key" not in q for p, q, _ in seen if p.startswith("/img"))


def test_bad_key(server, tmp_path, monkeypatch):
    other = "f" * 32
    with pytest.raises(PhotoError) as e:
        run(server, tmp_path, flickr=flickr(server, key=other))
    assert "FLICKR_API_KEY" in str(e.value) and other not in "".join(
        traceback.format_exception(e.value)
    )  # the server repeats the key; we do not
    assert len(server.log) == 1  # a bad key is not tried again
    monkeypatch.delenv("FLICKR_API_KEY", raising=False)
    assert "FLICKR_API_KEY" in failure(Flickr)
    monkeypatch.setenv("FLICKR_API_KEY", " \n")
    assert "FLICKR_API_KEY" in failure(Flickr)
    monkeypatch.setenv("FLICKR_API_KEY", KEY + "\n")
    assert KEY not in repr(Flickr()) and KEY not in str(vars(Flickr().web))


def test_key_never_travels_in_the_clear(server):
    for base in (
        "http://api.flickr.com/services/rest/",
        "http://192.168.1.2/",
        "ftp://127.0.0.1/",
        "file:///tmp",
        "api.flickr.com",
    ):
        assert "https" in failure(lambda: Flickr(KEY, base=base))


def test_an_echo_of_the_key_is_cut_out(server, tmp_path):
    server.add(1, title=f"my key {KEY}", ownername=KEY)
    r = run(server, tmp_path)
    no_key(tmp_path)
    assert r.kept == 1 and json.loads(lines(tmp_path)[0]["scores"])["title"] == "my key ***"
    server.mood = lambda p, q: (200, {}, json.dumps(dict(stat="fail", code=1, message=f"what is {KEY}?")).encode())
    assert "refuses" in failure(lambda: list(flickr(server).search("sea")))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_retried(server, tmp_path, status):
    for i in range(4):
        server.add(i)
    count = itertools.count(1)
    server.mood = lambda p, q: (status, {}, b"wait") if next(count) % 2 else None  # every other request
    assert run(server, tmp_path).kept == 4 and consistent(tmp_path) == 4


def test_429_waits_as_long_as_asked(server, tmp_path):
    server.add(1)
    asked = []
    server.mood = lambda p, q: (
        asked.append(time.monotonic()) or ((429, {"Retry-After": "1"}, b"") if len(asked) == 3 else None)
    )
    run(server, tmp_path)
    assert 1 <= asked[3] - asked[2] < 8


def test_429_cools_down_longer_each_time_and_stops_the_run(server, tmp_path, monkeypatch):
    for i in range(3):
        server.add(i)
    server.mood = lambda p, q: (429, {}, b"") if p.startswith("/img/1") else None
    naps = []
    monkeypatch.setattr(Web, "_sleep", lambda self, s, why: naps.append(s))
    m = failure(lambda: run(server, tmp_path, flickr=flickr(server, cooldown=60, tries=4)))
    assert naps == [60, 120, 240] and "429" in m and "run the same again later" in m
    assert consistent(tmp_path) == 1  # photo 1 is not written off
    server.mood = lambda p, q: None
    assert run(server, tmp_path).kept == 3


def test_500_for_good(server, tmp_path):
    for i in range(4):
        server.add(i)
    server.mood = lambda p, q: (500, {}, b"") if p == "/img/2.jpg" else None
    r = run(server, tmp_path)
    assert (
        r.kept == 3
        and states(tmp_path)["2"] == ("unreachable", f"{server.site}/img/2.jpg: the server answers 500")
        and "/img/2.jpg" in str(r)
    )
    assert server.images().count("/img/2.jpg") == 3
    server.mood = lambda p, q: None
    assert run(server, tmp_path).kept == 4  # the next run asks again


def test_search_down_for_good(server, tmp_path):
    server.mood = lambda p, q: (502, {}, b"<html>") if q.get("method", "").endswith("search") else None
    assert "run the same again later" in failure(lambda: run(server, tmp_path))


def test_five_unreachable_in_a_row_end_the_run(server, tmp_path):
    for i in range(20):
        server.add(i)
    server.mood = lambda p, q: (500, {}, b"") if p.startswith("/img/") and int(re.search(r"\d+", p)[0]) >= 3 else None
    assert "check the network" in failure(lambda: run(server, tmp_path))
    assert consistent(tmp_path) == 3 and len(set(server.images())) == 8


def test_nobody_there(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    m = failure(
        lambda: download(
            "sea",
            tmp_path,
            5,
            flickr=Flickr(KEY, base=f"http://127.0.0.1:{port}/", rate=1000, backoff=0.01, tries=2),
            progress=False,
        )
    )
    assert "NewConnectionError" in m


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>busy</html>",
        b"",
        b"[1, 2]",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(dict(stat="fail", code=105, message="Service currently unavailable")).encode(),
        json.dumps(
            dict(stat="fail", code=201, message="Sorry, the Flickr API service is not currently available.")
        ).encode(),
    ],
)
def test_passing_nonsense_is_retried(server, tmp_path, answer):
    server.add(1)
    count = itertools.count(1)
    server.mood = lambda p, q: (200, {}, answer) if next(count) in (1, 3) else None
    assert run(server, tmp_path).kept == 1


@pytest.mark.parametrize(
    "answer",
    [
        dict(stat="ok"),
        dict(stat="ok", photos=[]),
        dict(stat="ok", photos=dict(photo=None, total=1, pages=1)),
        dict(stat="ok", photos=dict(photo=[], pages="many")),
        dict(stat="fail", code=3, message="Parameterless searches have been disabled"),
        dict(stat="fail"),
    ],
)
def test_lasting_nonsense_is_an_error(server, tmp_path, answer):
    server.mood = lambda p, q: (
        (200, {}, json.dumps(answer).encode()) if q.get("method", "").endswith("search") else None
    )
    failure(lambda: run(server, tmp_path))


def test_truncated_jpeg(server, tmp_path):
    for i in range(3):
        server.add(i)
    count = itertools.count(1)

    def mood(p, q):
        if p == "/img/0.jpg" and next(count) == 1:
            return 200, {}, jpeg(0)[:-400]  # cut, and announced so
        if p == "/img/1.jpg":
            return 200, {}, jpeg(1)[:-400]  # cut for good
        if p == "/img/2.jpg" and server.images().count(p) == 1:
            return 200, {"Content-Length": len(jpeg(2))}, jpeg(2)[:-400]  # the connection breaks

    server.mood = mood
    r = run(server, tmp_path)
    s = states(tmp_path)
    assert (
        r.kept == 2
        and [s[k][0] for k in "012"] == ["kept", "failed", "kept"]
        and "truncated" in s["1"][1]
        and server.images().count("/img/1.jpg") == 3
    )
    server.mood = lambda p, q: None
    assert run(server, tmp_path).kept == 3 and consistent(tmp_path) == 3  # the next run asks again


@pytest.mark.parametrize(
    "body", [b"", b"<!doctype html><title>404</title>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a"]
)
def test_not_an_image(server, tmp_path, body):
    server.add(1)
    server.mood = lambda p, q: (200, {"Content-Type": "image/jpeg"}, body) if p.startswith("/img") else None
    assert run(server, tmp_path).kept == 0 and states(tmp_path)["1"][0] == "failed" and consistent(tmp_path) == 0


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_gone(server, tmp_path, status):
    server.add(1)
    server.mood = lambda p, q: (status, {}, b"") if p.startswith("/img") else None
    r = run(server, tmp_path)
    assert (
        states(tmp_path)["1"] == ("failed", f"{server.site}/img/1.jpg: the server answers {status}")
        and len(server.images()) == 1
        and "failed" in str(r)
    )


def test_missing_sizes(server, tmp_path):
    server.add(0)
    server.add(1, url_m=None)
    server.add(2, width_m="wide")
    server.add(3, width_m=80, height_m=60)
    server.add(4, url_l=f"{server.site}/img/400.jpg", width_l=1024, height_l="768")
    del server.photos["4"]["url_m"]
    server.add(5, height_m=-72)
    r = run(server, tmp_path)
    s = states(tmp_path)
    assert [s[k][0] for k in "012345"] == [
        "kept",
        "skipped",
        "skipped",
        "skipped",
        "kept",
        "skipped",
    ] and "/img/400.jpg" in server.images()
    assert [s[k][1] for k in "1235"] == [
        "no size offered",
        "no size offered",
        "short side under 64 px",
        "no size offered",
    ] and r.other["no size offered"] == 3
    assert (
        download("sea", tmp_path, 9, side=32, flickr=flickr(server), progress=False).kept == 3
    )  # a smaller side takes what was skipped


def test_smaller_than_promised(server, tmp_path):
    server.add(1)
    server.mood = lambda p, q: (200, {}, jpeg(1, (40, 30))) if p.startswith("/img") else None
    assert run(server, tmp_path).other == {"short side 30 px, under 64": 1}


def test_licences_are_checked_here_too(server, tmp_path):
    for i, licence in enumerate((4, 0, 2, 77)):
        server.add(i, licence=licence)
    answer = Handler.answer
    server.mood = lambda p, q: (
        (
            200,
            {},
            json.dumps(
                dict(stat="ok", photos=dict(page=1, pages=1, total=4, photo=list(server.photos.values())))
            ).encode(),
        )
        if q.get("method", "").endswith("search")
        else None
    )
    r = run(server, tmp_path)
    s = states(tmp_path)  # a server that ignores what was asked
    assert (
        r.kept == 1
        and s["1"] == ("skipped", "licence not asked for: All Rights Reserved")
        and s["3"][1] == "licence not asked for: unknown"
        and answer is Handler.answer
    )
    assert run(server, tmp_path, licences="research").kept == 2
    assert "not known" in failure(lambda: run(server, tmp_path, licences="free"))


def test_strange_entries(server, tmp_path):
    for id in ("../../evil", "a/b", "", "x" * 200, "1\n2", "ok-1@2"):
        server.photos[id] = dict(
            id=id,
            owner="o",
            license="4",
            tag="sea",
            uploaded=1,
            url_m=f"{server.site}/img/7.jpg",
            width_m=96,
            height_m=72,
        )
    server.photos["none"] = dict(license="4", tag="sea", uploaded=1)
    r = run(server, tmp_path / "in")
    assert (
        r.kept == 1
        and [p.name for p in tmp_path.iterdir()] == ["in"]
        and list_images(tmp_path / "in")[0].name == "ok-1@2.jpg"
    )
    assert lines(tmp_path / "in")[-1]["author"] == "o"


def test_pages_without_end(server, tmp_path):
    "A server that promises a billion photos, first always the same page, then ever new useless ones"
    for i in range(10):
        server.add(i)
    first = list(server.photos.values())

    def mood(p, q):
        if q.get("method", "").endswith("search"):
            return (
                200,
                {},
                json.dumps(dict(stat="ok", photos=dict(page=1, pages=10**9, total=10**9, photo=first))).encode(),
            )

    server.mood = mood
    assert run(server, tmp_path / "a").kept == 10 and len(server.calls()) <= 2
    fresh = itertools.count(1000)

    def mood(p, q):
        if q.get("method", "").endswith("search"):
            return (
                200,
                {},
                json.dumps(
                    dict(
                        stat="ok",
                        photos=dict(
                            page=1,
                            pages=10**9,
                            total=10**9,
                            photo=[dict(first[0], id=str(next(fresh)), license="0") for _ in range(500)],
                        ),
                    )
                ).encode(),
            )

    server.mood, server.log = mood, []
    found = list(flickr(server).search("sea", side=64))
    assert len(found) == 4000 and all(o.reason for o in found) and len(server.calls()) == 8


def test_redirects(server, tmp_path):
    for i in range(5):
        server.add(i)
    to = {
        "/img/0.jpg": "/img/100.jpg",
        "/img/1.jpg": "https://s.yimg.com/pw/images/en-us/photo_unavailable.png",
        "/img/2.jpg": "http://169.254.169.254/latest/meta-data/",
        "/img/3.jpg": "file:///etc/passwd",
        "/img/4.jpg": "/img/4.jpg",
    }
    server.mood = lambda p, q: (302, {"Location": to[p]}, b"") if p in to else None
    run(server, tmp_path)
    s = states(tmp_path)
    assert [s[k][0] for k in "01234"] == ["kept", "failed", "failed", "failed", "failed"]
    assert (
        "deleted or made private" in s["1"][1]
        and "off site, to http://169.254.169.254" in s["2"][1]
        and "302" in s["3"][1] + s["4"][1]
        and len(server.images()) < 12
    )


def test_a_call_is_not_redirected_off_site(server):
    server.mood = lambda p, q: (302, {"Location": f"http://127.0.0.1:9/?api_key={KEY}"}, b"")
    assert "off site" in failure(lambda: flickr(server).licences)


def test_image_address_off_site(server, tmp_path):
    server.add(1, url_m="https://example.com/1.jpg")
    server.add(2, url_m="file:///etc/passwd")
    server.add(3, url_m=f"{server.site}@example.com/1.jpg")
    run(server, tmp_path)
    assert {r for _, r in states(tmp_path).values()} == {"image off site"} and not server.images()


def test_huge_bodies(server, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_BYTES", 1 << 20)
    for i in range(3):
        server.add(i)
    sent = []

    def endless(h):
        h.send_response(200)
        h.end_headers()
        try:
            for _ in range(1000):
                h.wfile.write(bytes(1 << 16))
                sent.append(1 << 16)
        except OSError:
            pass

    server.mood = lambda p, q: (
        (200, {"Content-Length": 10**12}, b"x") if p == "/img/0.jpg" else endless if p == "/img/1.jpg" else None
    )
    r = run(server, tmp_path)
    s = states(tmp_path)
    assert r.kept == 1 and "cut short" in s["0"][1] and "more than the limit" in s["1"][1]
    assert sum(sent) < 40 << 20  # 1 MiB and what fits in socket buffers, not 64
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + bytes(4)
    server.add(9)
    server.mood = lambda p, q: (200, {}, bomb) if p == "/img/9.jpg" else None
    run(server, tmp_path)
    assert states(tmp_path)["9"][0] == "failed"


def test_not_a_byte(server, tmp_path):
    server.add(1)
    server.mood = lambda p, q: (lambda h: time.sleep(1)) if p.startswith("/img") else None
    run(server, tmp_path, flickr=flickr(server, timeout=0.2, tries=2))
    assert states(tmp_path)["1"][0] == "unreachable"


def test_rate(server, tmp_path):
    for i in range(6):
        server.add(i)
    t = time.monotonic()
    run(server, tmp_path, flickr=flickr(server, rate=20))
    assert time.monotonic() - t >= 7 / 20  # 8 requests: list, search, 6 images; the first need not wait
    for rate in (0, -1):
        assert "rate" in failure(lambda: flickr(server, rate=rate))


def test_deleted_by_hand(server, tmp_path):
    for i in range(5):
        server.add(i)
    run(server, tmp_path)
    out = pictures(tmp_path)[0]
    data = out.read_bytes()
    out.unlink()
    assert run(server, tmp_path).kept == 4 and len(server.images()) == 5  # a decision: not fetched again
    out.write_bytes(data)
    assert run(server, tmp_path).kept == 5 and consistent(tmp_path) == 5


def test_two_runs_in_one_folder(server, tmp_path):
    server.add(1)
    with photos._album(tmp_path):
        assert "another run is at work" in failure(lambda: run(server, tmp_path))
    assert run(server, tmp_path).kept == 1


def test_broken_manifest(server, tmp_path):
    server.add(1)
    for text in (b"", b"not a table, whatever the name says" * 99):
        (tmp_path / "manifest.csv").write_bytes(text)
        assert "manifest.csv: not a table" in failure(lambda: run(server, tmp_path))
    (tmp_path / "manifest.csv").unlink()
    assert run(server, tmp_path).kept == 1 and len(lines(tmp_path)) == 1
    whole = (tmp_path / "manifest.csv").read_bytes()
    for line in (b"x.jpg\r\n", b"1,2,3,4,5,6,7,8,9\r\n", b'"' + b"x" * 200_000 + b'"\r\n'):
        (tmp_path / "manifest.csv").write_bytes(whole + line)
        assert "manifest.csv: " in failure(lambda: run(server, tmp_path))


def test_curate_reads_it(server, tmp_path):
    "Licence, author and link come along; pictures of one photographer are one group"
    for i in range(6):
        server.add(i, ownername=f"Author {i % 3}")
    run(server, tmp_path / "photos")
    with Catalogue(tmp_path / "photos.sqlite") as catalogue:
        assert not len(catalogue.add(tmp_path / "photos", progress=False))
        frames = catalogue.frames()
    assert set(frames.source) == {"Author 0", "Author 1", "Author 2"} and len(frames) == 6
    assert set(frames.licence) == {"CC BY 2.0"} and all(frames.link.str.startswith("https://www.flickr.com/photos/"))


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")


def forked(f) -> int:
    "Run f in a child that may be killed; its wait status"
    if (pid := os.fork()) == 0:
        try:
            f()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def killed_at(k, f):
    "f in a child that gets SIGKILL just before its k-th write to the disk; True if it was killed"

    def child():
        count = itertools.count(1)

        def strike(g):
            def h(*a, **kw):
                if next(count) == k:
                    os.kill(os.getpid(), signal.SIGKILL)
                return g(*a, **kw)

            return h

        files.os.replace = strike(os.replace)
        f()

    return os.WIFSIGNALED(forked(child))


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_kill_before_every_write_and_resume(server, tmp_path):
    for i in range(4):
        server.add(i)
    server.add(4)
    server.mood = lambda p, q: (404, {}, b"") if p == "/img/4.jpg" else None  # one that is gone too
    for k in itertools.count(1):
        d = tmp_path / str(k)
        died = killed_at(k, lambda: run(server, d))
        before = len(server.images())
        had = len(lines(d))
        assert run(server, d).kept == 4 and consistent(d) == 4
        assert len(server.images()) - before == 5 - had  # nothing known is fetched again
        if not died:
            break
    assert k == 4 * 2 + 1  # pictures and their lines; then nothing was left to strike


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_kill_at_any_time_and_resume(server, tmp_path):
    for i in range(40):
        server.add(i)
    rng, kills = random.Random(0), 0
    while True:
        if (pid := os.fork()) == 0:
            try:
                run(server, tmp_path, flickr=flickr(server, rate=150))
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.03, 0.2))
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
        assert kills < 60
    assert kills and run(server, tmp_path).new == 0 and consistent(tmp_path) == 40
    assert len(server.images()) <= 40 + kills  # at most the one under way, once more


def test_command(server, tmp_path, monkeypatch, capsys):
    for i in range(3):
        server.add(i)
    monkeypatch.setenv("FLICKR_API_KEY", KEY)
    photos_command(tmp_path / "a", tags=("sea",), n=2, side=64, rate=1000, base=server.base)
    said = capsys.readouterr()
    assert "2 photos, 2 of them new" in said.out and KEY not in said.out + said.err
    no_key(tmp_path)

    def stop(*args, **kw):
        raise KeyboardInterrupt

    monkeypatch.setattr(photos, "download", stop)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        photos_command(tmp_path / "a", base=server.base)

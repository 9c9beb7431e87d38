"What holds for every input: pictures there and back, padding, samplers, the Frechet distance, the pool"

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from toon2real.data import choose, epoch_order
from toon2real.distances import frechet_distance
from toon2real.images import grid, png_bytes, resize, to_pil, to_tensor, to_uint8
from toon2real.images import open_image as opened
from toon2real.losses import ImagePool
from toon2real.tiles import mirror_index, tiles

settings.register_profile(
    "calm",
    deadline=None,
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("calm")

sides = st.integers(1, 40)
pictures = st.tuples(sides, sides, st.just(3)).flatmap(lambda shape: arrays(np.uint8, shape))
sizes = st.integers(1, 60)


@given(pictures)
def test_pictures_there_and_back(a):
    assert np.array_equal(to_uint8(to_tensor(a)), a)
    assert np.array_equal(np.asarray(to_pil(to_tensor(a))), a)
    assert np.array_equal(np.asarray(opened(png_bytes(a))), a)
    assert np.abs(to_uint8(to_tensor(a).bfloat16()).astype(int) - a).max() <= 1  # 8 significant bits


@given(pictures, sizes)
def test_resized_to_its_own_size_is_itself(a, size):
    im = Image.fromarray(a)
    assert resize(im, im.size, "squash") is im
    assert min(resize(im, size).size) == size or 1 in resize(im, size).size
    assert resize(im, size, "crop").size == (size, size)


@given(st.lists(pictures, min_size=1, max_size=5), st.integers(1, 6))
def test_a_grid_holds_all_its_pictures(found, cols):
    sheet = grid([Image.fromarray(a) for a in found], cols=cols, pad=0)
    assert sheet.width * sheet.height >= sum(a.shape[0] * a.shape[1] for a in found)


@given(st.integers(1, 300))
def test_a_mirrored_side_begins_with_itself_and_repeats_no_jump(n):
    index = mirror_index(n)
    assert len(index) >= max(n, 8) and np.array_equal(index[:n], np.arange(n))
    assert index.min() >= 0 and index.max() < n and np.abs(np.diff(index)).max(initial=0) <= 1
    assert len(index) % 4 == 0


@given(st.integers(2, 900), st.integers(16, 80), st.integers(0, 5))
def test_tiles_cover_each_pixel_once(quarter, tile, margin):
    n, tile, margin = 4 * quarter, 4 * tile, 4 * margin
    index, parts = np.arange(n), list(tiles(n, tile, margin))
    assert np.array_equal(np.concatenate([index[to] for *_, to in parts]), index)
    for read, keep, to in parts:
        assert np.array_equal(index[read][keep], index[to]) and len(index[read]) <= tile


@given(
    sizes,
    sizes,
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(0, 30),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_an_epoch_shows_every_picture_and_cuts_within_it(n_c, n_r, seed, epoch, more, room):
    n = max(n_c, n_r) + more
    order = epoch_order(n_c, n_r, n, seed, epoch, room)
    assert set(order.c) == set(range(n_c)) and set(order.r) <= set(range(n_r)) and len(order.c) == len(order.r) == n
    assert order.crop_c.min() >= 0 and order.crop_c.max() <= room[0] and order.crop_r.max() <= room[1]
    shorter = epoch_order(n_c, n_r, max(n_c, n_r), seed, epoch, room)
    assert all(np.array_equal(a[: len(b)], b) for a, b in zip(order, shorter))


@given(sizes, st.integers(0, 80), st.integers(0, 99))
def test_a_choice_is_of_different_ones_in_order(total, n, seed):
    chosen = choose(total, n, seed, "x")
    assert len(chosen) == min(n, total) == len(set(chosen)) and np.array_equal(chosen, np.sort(chosen))


def statistics(seed, dims, scale=1.0):
    x = np.random.default_rng(seed).normal(seed % 3, 1 + seed % 2, (4 * dims, dims)) * scale
    return x.mean(0), np.cov(x, rowvar=False)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(2, 12), st.floats(0.1, 10))
def test_the_frechet_distance_is_symmetric_zero_for_equals_and_grows_with_the_square(a, b, dims, scale):
    one, other = statistics(a, dims), statistics(b, dims)
    distance = frechet_distance(*one, *other)
    trace = np.trace(one[1]) + np.trace(other[1])
    tolerance = 1e-6 * trace  # the root of a covariance of rank dims loses half the digits of float64
    assert distance >= -tolerance and abs(frechet_distance(*one, *one)) <= tolerance
    assert abs(distance - frechet_distance(*other, *one)) <= tolerance
    scaled = frechet_distance(*statistics(a, dims, scale), *statistics(b, dims, scale))
    assert abs(scaled - scale**2 * distance) <= tolerance * scale**2 + 1e-9 * abs(scaled)


@given(st.integers(0, 6), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 99))
def test_a_pool_returns_what_it_was_given_and_holds_no_more_than_its_size(size, batches, seed):
    pool, given_so_far = ImagePool(size, seed), set()
    for number, count in enumerate(batches):
        images = torch.full((count, 1, 1, 1), float(number)) + torch.arange(count).view(-1, 1, 1, 1) / 10
        given_so_far |= set(images.flatten().tolist())
        returned = pool.query(images)
        assert returned.shape == images.shape and set(returned.flatten().tolist()) <= given_so_far
        if size == 0:
            assert torch.equal(returned, images)

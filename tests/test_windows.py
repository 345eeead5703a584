"""The window schedule against an independent statement of its rule."""

import pytest

from reasonrank.rerank import windows


def test_paper_setting_makes_nine_windows():
    expected = [(80, 100), (70, 90), (60, 80), (50, 70), (40, 60), (30, 50), (20, 40), (10, 30), (0, 20)]
    assert windows(100, 20, 10) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 20, 10), []),
        ((1, 20, 10), [(0, 1)]),
        ((15, 20, 10), [(0, 15)]),
        ((20, 20, 10), [(0, 20)]),
        ((25, 20, 10), [(5, 25), (0, 15)]),
        ((21, 10, 10), [(11, 21), (1, 11), (0, 1)]),
        ((3, 1, 1), [(2, 3), (1, 2), (0, 1)]),
    ],
)
def test_short_and_uneven_lists(arguments, expected):
    assert windows(*arguments) == expected


def test_released_makes_no_window_where_the_list_is_as_long_as_the_overlap():
    assert windows(10, 20, 10) == [(0, 10)]
    assert windows(10, 20, 10, variant="released") == []


def test_every_schedule_follows_the_rule():
    """Window k is [max(0, N - w - k * s), N - k * s); the first that starts at 0 is the last."""
    for size in range(1, 41):
        for step in range(1, size + 1):
            for n in range(1, 201):
                count = 1 + max(0, -(-(n - size) // step))
                expected = [(max(0, n - size - k * step), n - k * step) for k in range(count)]
                schedule = windows(n, size, step)
                assert schedule == expected, (n, size, step)
                assert windows(n, size, step, "released") == (expected if n != size - step else [])
                assert schedule[0] == (max(0, n - size), n) and schedule[-1][0] == 0
                assert all(0 < end - start <= size for start, end in schedule)


def test_windows_cover_the_list():
    for n in range(1, 60):
        for step in (1, 3, 7):
            covered = {place for start, end in windows(n, 7, step) for place in range(start, end)}
            assert covered == set(range(n))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 20, 10), "num_candidates is -1"),
        ((10, 0, 1), "size is 0"),
        ((10, 5, 0), "step is 0"),
        ((10, 5, 6), "step is 6; expected 1 to 5"),
        ((10, 5, 5, "theirs"), "variant is 'theirs'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments)

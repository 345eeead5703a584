"""The latency protocol: what is timed, and figures worked out by hand."""

import pytest

from fakes.engine import FakeEngine, FakePrompt, reverse
from reasonrank.latency import LatencyResult, measure, ratio
from reasonrank.rerank.listwise import ListwiseReranker, run_sync


def result(name="a", seconds=(1.0, 2.0, 3.0), qids=("1", "2", "3")):
    n = len(seconds)
    return LatencyResult(
        name=name,
        qids=list(qids),
        seconds=list(seconds),
        engine_seconds=[s / 2 for s in seconds],
        calls=[2] * n,
        prompt_tokens=[10, 20, 30][:n],
        output_tokens=[5] * n,
        counts={"ok": 2 * n},
        together_seconds=1.5,
        together_engine_seconds=1.0,
    )


def test_quantiles_and_throughput():
    one = result()
    assert one.quantile(0.5).value == 2.0
    assert one.quantile(0.95).value == pytest.approx(2.9)
    assert one.quantile(0.5, "engine_seconds").value == 1.0
    assert one.throughput == 2.0
    median = one.quantile(0.5)
    assert 1.0 <= median.low <= median.value <= median.high <= 3.0
    assert one.quantile(0.5, seed=3) == one.quantile(0.5, seed=3)


def test_no_spread_gives_no_width():
    interval = result(seconds=(2.0, 2.0, 2.0)).quantile(0.95)
    assert (interval.low, interval.value, interval.high) == (2.0, 2.0, 2.0)


def test_summary_is_of_means_per_query():
    summary = result().summary()
    assert summary["calls"] == 2.0 and summary["prompt_tokens"] == 20.0 and summary["queries"] == 3
    assert summary["p50_seconds"]["value"] == 2.0


def test_ratio_is_paired():
    """Twice as long on each query: the ratio of medians is 2 in every paired resample."""
    interval = ratio(result(seconds=(2.0, 4.0, 6.0)), result("b"))
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="different queries"):
        ratio(result(), result("b", qids=("1", "3", "2")))


def test_measure_warms_up_then_times_one_by_one_and_together():
    engine = FakeEngine(reverse)
    reranker = ListwiseReranker(engine, FakePrompt(), window=4, step=2)
    run = {"x": ["a", "b", "c"], "y": ["c", "b", "a", "d", "e"]}
    texts = dict.fromkeys("abcde", "1")
    measured = run_sync(measure(reranker, run, {"x": "qx", "y": "qy"}, texts, name="ours", warmup=1))
    assert engine.finished[:4] == ["qx", "qx", "qy", "qy"]  # warm-up, then x (one window), y (two)
    assert sorted(engine.finished[4:]) == ["qx", "qy", "qy"]
    assert engine.resets == 2
    assert measured.qids == ["x", "y"] and measured.calls == [1, 2] and measured.counts == {"ok": 3}
    assert measured.output_tokens == [3, 6]
    assert all(0 < e <= s for e, s in zip(measured.engine_seconds, measured.seconds, strict=True))


def test_measure_needs_a_query():
    reranker = ListwiseReranker(FakeEngine(reverse), FakePrompt())
    with pytest.raises(ValueError, match="no query"):
        run_sync(measure(reranker, {}, {}, {}, name="ours"))

"""The model of the time: constants that are found again, parts by hand, and the paper's study from a data sheet."""

import numpy as np
import pytest

from reasonrank import latency, latency_model
from reasonrank.latency_model import TimeModel, break_even, fit, predicted

MODEL = TimeModel(prefill=0.001, step=0.02, token=0.003)


def point(prompt, output, batch):
    work = {"prompt": prompt, "output": output, "batch": batch}
    return {**work, "seconds": MODEL.seconds(work)}


def test_parts_by_hand():
    """1,000 tokens read; 640 written in batches of 16: 40 steps in place of 10 full ones."""
    parts = MODEL.parts(point(1000, 640, 16.0))
    assert parts == pytest.approx({"reading prompts": 1.0, "decoding": 0.2 + 1.92, "waiting": 0.6})
    assert MODEL.parts(point(0, 640, 128.0))["waiting"] == 0


def test_the_constants_of_exact_measurements_are_found_and_noise_shows_in_the_error():
    rng = np.random.default_rng(0)
    points = [point(*rng.uniform(100, 9000, 2), rng.uniform(1, 64)) for _ in range(20)]
    found = fit(points)
    assert found["model"] == pytest.approx(vars(MODEL)) and found["error"] == pytest.approx(0, abs=1e-9)
    assert [row["used"] for row in found["rows"]] == [True, False] * 10
    noisy = fit(
        [{**p, "seconds": p["seconds"] * f} for p, f in zip(points, rng.uniform(0.8, 1.2, 20), strict=True)]
    )
    assert 0.02 < noisy["error"] < 0.3
    with pytest.raises(ValueError, match="5 measurements; a fit and its test need 6 or more"):
        fit(points[:5])


def test_measurements_of_a_method_are_one_row_of_a_query():
    """Two collections, of 3 queries and of 1: 40 steps for 640 tokens and 20 for 160, so a batch of 800 / 60."""
    about = {"mode": "together", "method": "listwise", "lengths": "own", "top": 20}
    rows = [about | {"n": 3} | point(1000, 640, 16.0), about | {"n": 1} | point(600, 160, 8.0)]
    rows += [rows[0] | {"lengths": "declared"}, rows[0] | {"top": 10}]
    (row,) = latency_model.explained({"model": vars(MODEL), "rows": rows}, 20, 64)
    assert (row["where"], row["prompt"], row["output"]) == ("ours, together", 400, 200)
    assert row["batch"] == pytest.approx(800 / 60)
    assert row["seconds"] == pytest.approx(sum(row[part] for part in MODEL.parts(row)))


def test_break_even_is_where_both_take_as_long():
    pointwise = point(8000, 9000, 64.0)
    tokens = break_even(MODEL, 40.0, pointwise)
    assert MODEL.seconds({**pointwise, "output": tokens}) == pytest.approx(40.0)


def test_the_papers_study_from_a_data_sheet():
    """A 7B model has 15.2 GB of weights: 15 ms a step at half of 2.04 TB/s; four GPUs share the queries."""
    model = latency_model.on_gpus(1000)
    assert 4 * model.step == pytest.approx(0.0149, rel=0.02)
    assert model.token > model.prefill == pytest.approx(2 * 7.6e9 / (312e12 * 0.4) / 4, rel=0.02)
    assert latency_model.on_gpus(0).token == model.prefill
    listwise, pointwise = predicted(latency.declared())
    assert listwise["prompt"] == 9 * 5656 and pointwise["prompt"] == pytest.approx(100 * (400 + 262.8))
    assert (listwise["batch"], pointwise["batch"]) == (29, 256)
    for row in (listwise, pointwise):
        assert row["seconds"] == pytest.approx(sum(row[part] for part in model.parts(row)))
    assert listwise["even"] == pytest.approx(listwise["output"] / 9) and 200 < pointwise["even"] < 300

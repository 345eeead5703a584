"""The figures: what they draw, what they say about units, n and intervals, and what they refuse."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

from fakes import made_up
from reasonrank import figures, paper

RESULTS = made_up.results()
SCORES = RESULTS["05_gpu_evaluation"]["scores"]


def texts(figure) -> str:
    """All text that a figure shows, one piece a line."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


SPENT = {"reading prompts": 1.0, "decoding": 2.0, "waiting": 0.5}
PARTS = [{"method": m, "where": "ours, together", "seconds": 3.6, **SPENT} for m in ("listwise", "pointwise")]


def draw_all() -> dict:
    """Every figure of the package, from the made-up results."""
    filtering, facts = RESULTS["02_filtering"], paper.facts()
    dev = [{"step": s, "ndcg": 0.3 + s / 500, "low": 0.2, "high": 0.6, "n": 60} for s in (10, 20, 30)]
    return {
        "long": figures.long_run({"loss": RESULTS["03_sft"]["loss"], "dev": dev}, "SFT"),
        "long-rl": figures.long_run({"loss": [], "parts": RESULTS["04_rl"]["parts"]}, "RL"),
        "method": figures.method_diagram(),
        "windows": figures.sliding_window_diagram([(5, 10), (2, 7), (0, 4)], 10),
        "ndcg": figures.ndcg_by_collection(SCORES),
        "loss": figures.training_curve(RESULTS["03_sft"]["loss"]),
        "reward": figures.reward_parts(RESULTS["04_rl"]["parts"], rollouts=16),
        "alpha": figures.alpha_sweep(filtering["sweep"], alpha=0.4),
        "scores": figures.score_distribution(filtering["scores"], alpha=0.4),
        "answers": figures.answer_status(RESULTS["05_gpu_evaluation"]["answers"]),
        "latency": figures.latency_figure(RESULTS["06_latency_study"], facts.figure5),
        "parts": figures.latency_parts(
            PARTS,
            [{"where": "ours", "top": n, "ratio": 2, "low": 1, "high": 3, "n": n // 5} for n in (20, 100)]
            + [{"where": "model", "top": 20, "ratio": 1.5}],
        ),
    }


DRAWN = draw_all()

SAYS = {
    "long": ["SFT: loss", "NDCG@10 of the first window (%)", "Dev, n = 60 queries", "95 % interval"],
    "long-rl": ["RL: mean total reward", "n = 20 logged steps", "batch of rollouts"],
    "method": ["Self-consistency", "GRPO", "Supervised fine-tuning", "Reranking"],
    "windows": ["call 1: 6 to 10", "call 3: 1 to 4", "rank in the candidate list (1 = best)"],
    "ndcg": ["NDCG@10 (%), with 95 % interval", "coding\nn = 12", "average\nn = 60", "SFT + RL"],
    "loss": ["loss (nats per token)", "optimiser step", "n = 40 logged steps"],
    "reward": [
        "Recall@10",
        "RBO",
        "batch of rollouts",
        "n = 20 batches\nof 16 rollouts each",
        "± 1 standard deviation",
    ],
    "alpha": ["examples kept (%)", "of n = 200", "alpha = 0.4"],
    "scores": ["self-consistency (NDCG@10, 0 to 1)", "coding\nn = 40", "alpha = 0.4"],
    "answers": ["share of answers (%)", "zero-shot\nn = 100", "truncated", "malformed"],
    "parts": [
        "ours, together: listwise",
        "waiting",
        "measured",
        "candidates",
        "pointwise by listwise",
        "= 100",
        "ours, n = 4",
        "ours, n = 20",
        "pointwise by listwise (95 % interval)",
    ],
    "latency": [
        "seconds per query, all together (95 % interval)",
        "n = 6",
        "paper, 7B on 8 sets: 2 to 2.7",
        "vllm",
    ],
}


@pytest.mark.parametrize("name", SAYS)
def test_a_figure_names_units_n_and_intervals(name):
    shown = texts(DRAWN[name])
    for piece in SAYS[name]:
        assert piece in shown, f"{piece!r} is not in\n{shown}"


@pytest.mark.parametrize("name", sorted(set(SAYS) - {"method"}))
def test_every_visible_axis_has_a_label(name):
    for ax in [ax for ax in DRAWN[name].axes if ax.axison]:
        names = "".join(label.get_text() for label in ax.get_yticklabels())
        assert ax.get_xlabel()
        assert ax.get_ylabel() or any(letter.isalpha() for letter in names)


def test_no_figure_stays_open_and_the_callers_settings_stay():
    before = dict(plt.rcParams)
    figures.alpha_sweep(RESULTS["02_filtering"]["sweep"])
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_ndcg_has_one_point_for_each_collection_and_system():
    (ax,) = DRAWN["ndcg"].axes
    points = [len(container.lines[0].get_xdata()) for container in ax.containers]
    assert points == [6, 6, 6, 6]
    retriever = ax.containers[0].lines[0].get_ydata()
    assert retriever[0] == pytest.approx(100 * SCORES[0]["ndcg"])


def test_training_curve_draws_raw_points_and_their_rolling_mean():
    logs = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}, {"step": 4}]
    (ax,) = figures.training_curve(logs).axes
    assert ax.collections[0].get_offsets()[:, 1].tolist() == [3.0, 1.0, 2.0]
    assert ax.lines[0].get_ydata().tolist() == [2.0, 2.0, 2.0]


def test_answer_status_takes_counts_and_shares_alike():
    counts = {"system": "a", "ok": 1, "repaired": 1, "truncated": 2, "malformed": 0, "n": 4}
    shares = {"system": "a", "ok": 0.25, "repaired": 0.25, "truncated": 0.5, "malformed": 0.0, "n": 4}
    widths = [[p.get_width() for p in figures.answer_status([r]).axes[0].patches] for r in (counts, shares)]
    named = figures.answer_status({"a": counts}).axes[0].patches
    assert widths[0] == widths[1] == [p.get_width() for p in named] == [25, 25, 50, 0]


def test_latency_writes_pointwise_over_listwise_above_each_collection():
    base = {"collection": "coding", "n": 5, "low": 1.0, "high": 9.0}
    rows = [{**base, "method": "listwise", "seconds": 2.0}, {**base, "method": "pointwise", "seconds": 5.0}]
    ours = {"rows": rows, "ratio": {"value": 2.5, "low": 2.0, "high": 3.0}, "model": "m", "engine": "e"}
    shown = texts(figures.latency_figure(ours, paper.facts().figure5))
    assert "2.5×" in shown and "2.5 times (2.0 to 3.0, 95 %)" in shown


def test_windows_carry_over_what_the_next_window_sees_again():
    (ax,) = DRAWN["windows"].axes
    widths = [bar.get_width() for bar in ax.patches if bar.get_width()]
    assert widths == [5, 2, 5, 2, 4]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.ndcg_by_collection([]), "NDCG by collection: no rows"),
        (
            lambda: figures.ndcg_by_collection([{**SCORES[0], "ndcg": 31.2}]),
            r"ndcg = 31.2: expected .* 0\.\.1",
        ),
        (lambda: figures.ndcg_by_collection([{"system": "SFT"}]), "row 1: no collection, ndcg, low, high, n"),
        (lambda: figures.alpha_sweep([{"alpha": 0.1}]), "alpha sweep, row 1: no kept"),
        (lambda: figures.score_distribution([{"scenario": "a", "score": 1.5}]), "score = 1.5"),
        (lambda: figures.training_curve([{"step": 1}]), "no row has a value of 'loss'"),
        (lambda: figures.reward_parts([{"step": 1, "ndcg": 0.1}]), "row 1: no recall"),
    ],
)
def test_bad_input_is_an_error_that_says_what_was_expected(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_save_is_whole_deterministic_and_refuses_other_formats(tmp_path):
    sweep = RESULTS["02_filtering"]["sweep"]
    first = figures.save(figures.alpha_sweep(sweep), tmp_path / "deep" / "a.png").read_bytes()
    second = figures.save(figures.alpha_sweep(sweep), tmp_path / "deep" / "b.png").read_bytes()
    assert first == second
    assert first.startswith(b"\x89PNG") and b"Software" not in first
    assert int.from_bytes(first[16:20], "big") == 1350  # 9 inches at 150 dpi
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.png", "b.png"]
    with pytest.raises(ValueError, match=r"a\.svg: expected a name that ends in \.png"):
        figures.save(DRAWN["alpha"], tmp_path / "a.svg")

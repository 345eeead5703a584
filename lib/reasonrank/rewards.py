"""The multi-view ranking reward of the RL stage (paper, section 4.2, Eq. 2 to 4).

`R = NDCG@10 + 0.2 * Recall@10 + 0.1 * RBO` where both formats hold, 0 where the tags hold but the answer is
no ranking, -1 where the tags are missing. NDCG and Recall judge by the pointwise labels, RBO compares with
the listwise label. Two variants:

- `released` does what the authors' released code does. The first `<think>..</think> <answer>..</answer>`
  found counts; each run of digits inside is an identifier; only how many and how many distinct ones there are
  is checked. 0 turns into the last passage, identifiers past the end are dropped for NDCG and Recall, and RBO
  is the average overlap of the identifiers as they are written.
- `strict` is the paper's wording. The completion is exactly the two blocks, the answer is a permutation of
  1..n, and RBO has a p (0.9 where none is given, since the paper gives none).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from . import answers, metrics

Variant = Literal["released", "strict"]
Completion = str | Sequence[Mapping[str, Any]]
Reading = tuple[list[int], list[str]] | float
"""The ranking and its identifiers as written, or the format score, -1 or 0, of a completion without one."""

STRICT_RBO_P = 0.9

_RELEASED = re.compile(r"<think>.*?</think>\s*<answer>(.*?)</answer>", re.DOTALL)
_STRICT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True)
class RewardParts:
    """The reward (`total`) and what it is made of: the first three in 0..1, unweighted, 0 where a format fails;
    `format`: -1 where the tags are missing, 0 where they hold but the answer is no ranking, else 1."""

    ndcg: float
    recall: float
    rbo: float
    format: float
    total: float


class Reward(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """The settings of the reward, as a profile has them; ValueError for an unknown variant, a weight that is negative
    or not finite, or a `rbo_p` outside (0, 1). `rbo_p` None is average overlap for `released`, 0.9 for `strict`."""

    variant: Variant = "released"
    recall_weight: float = Field(0.2, ge=0)
    rbo_weight: float = Field(0.1, ge=0)
    rbo_p: Annotated[float, Field(gt=0, lt=1)] | None = None

    def parts(
        self, completion: str, gold_ranking: list[int], relevant: Collection[int], num_passages: int
    ) -> RewardParts:
        """The reward of one completion and its parts, finite for every string.

        `gold_ranking`: the listwise label, best first; `relevant`: the pointwise label; both as 1-based positions in
        the window of `num_passages`. Where a chat template puts `<think>` into the prompt, put that before the
        completion. Raises ValueError for a listwise label that is no list of distinct identifiers in 1..n.
        """
        known, strict = set(range(1, num_passages + 1)), self.variant == "strict"
        if not gold_ranking or len(known.intersection(gold_ranking)) < len(gold_ranking):
            expected = f"distinct identifiers in 1..{num_passages}"
            raise ValueError(f"gold_ranking is {gold_ranking}; expected {expected}")
        result = (_read_strict if strict else _read_released)(completion, gold_ranking, num_passages)
        if isinstance(result, float):
            return RewardParts(0.0, 0.0, 0.0, format=result, total=result)
        ranking, written = result
        p = STRICT_RBO_P if strict and self.rbo_p is None else self.rbo_p
        ndcg, recall = metrics.ndcg(ranking, relevant), metrics.recall(ranking, relevant)
        rbo = metrics.rbo(written, [str(i) for i in gold_ranking], p)
        total = ndcg + self.recall_weight * recall + self.rbo_weight * rbo
        return RewardParts(ndcg, recall, rbo, 1.0, total)

    def for_trl(
        self, log: Callable[[list[RewardParts]], None] | None = None, prefix: str = ""
    ) -> Callable[..., list[float]]:
        """The reward as TRL calls it, with a `__name__`, by which TRL reports it.

        It takes completions as strings or message lists, and a label of each in the columns; what else TRL passes is
        ignored. `prefix` is put before each completion: what makes it whole, such as `prompts.Prompt.begun`. `log` is
        called with the parts of each batch. Raises ValueError for a column of another length.
        """

        def multi_view(completions, gold_ranking, relevant, num_passages, **_: Any) -> list[float]:
            columns = {"gold_ranking": gold_ranking, "relevant": relevant, "num_passages": num_passages}
            for name, values in columns.items():
                if len(values) != (count := len(completions)):
                    raise ValueError(f"column {name!r} has {len(values)} values for {count} completions")
            parts = []
            for said, *labels in zip(completions, *columns.values(), strict=True):
                text = said if isinstance(said, str) else "".join(m.get("content") or "" for m in said)
                parts.append(self.parts(prefix + text, *labels))
            if log is not None:
                log(parts)
            return [part.total for part in parts]

        multi_view.__name__ = f"multi_view_{self.variant}"
        return multi_view


def multi_view_reward(
    completion: str,
    *,
    gold_ranking: list[int],
    relevant: Collection[int],
    num_passages: int,
    variant: Variant = "released",
    recall_weight: float = 0.2,
    rbo_weight: float = 0.1,
    rbo_p: float | None = None,
) -> float:
    """The reward of one completion, a finite number for every string; see `Reward` and `Reward.parts`."""
    reward = Reward(variant=variant, recall_weight=recall_weight, rbo_weight=rbo_weight, rbo_p=rbo_p)
    return reward.parts(completion, gold_ranking, relevant, num_passages).total


def trl_reward(
    completions: Sequence[Completion],
    gold_ranking: Sequence[list[int]],
    relevant: Sequence[Collection[int]],
    num_passages: Sequence[int],
    **kwargs: Any,
) -> list[float]:
    """The reward of a batch as TRL passes it; `kwargs` may hold fields of `Reward`."""
    reward = Reward(**{name: kwargs[name] for name in Reward.model_fields if name in kwargs})
    return reward.for_trl()(completions, gold_ranking, relevant, num_passages)


def _read_released(completion: str, gold_ranking: list[int], num_passages: int) -> Reading:
    """Read an answer as the authors' released code does, its oversights included."""
    found = _RELEASED.search(completion)
    if not found:
        return -1.0
    written = "".join(c if c.isdigit() else " " for c in found[1]).split()
    if len(written) != len(gold_ranking) or len(set(written)) != len(gold_ranking):
        return 0.0
    try:
        identifiers = [int(token) for token in written]
    except ValueError:  # a superscript, or more digits than Python converts
        return 0.0
    ranking = [i or num_passages for i in identifiers if i <= num_passages]
    from_the_back = list(dict.fromkeys(reversed(ranking)))  # of a passage named twice the last place counts
    return from_the_back[::-1], written


def _read_strict(completion: str, gold_ranking: list[int], num_passages: int) -> Reading:
    """Read an answer as the paper words it: each tag once, nothing around the blocks, a true permutation."""
    if _TAG.findall(completion) != list(answers.TAGS) or not _STRICT.fullmatch(completion):
        return -1.0
    answer = answers.parse(completion, num_passages)
    if answer.status != "ok":
        return 0.0
    return answer.ranking, [str(i) for i in answer.ranking]

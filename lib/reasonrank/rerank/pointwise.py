"""The pointwise reasoning reranker, in the way of Rank1 (Weller et al. 2025): one chain for each passage.

The model reasons and says whether the passage is relevant; the score is the probability of "true" against
"false" where the verdict stands. It is what the paper's latency study compares with (Figures 1 and 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reasonrank.answers import THINK_END
from reasonrank.engines import Completion, Sampling

from .run import Job, Reranked, Reranker, as_one, gather

VERDICT = Sampling(max_tokens=1, logprobs=20)
_SAID = ("true", "false", "True", "False")  # what ends an answer, after its reasoning
_RESERVE = 16  # tokens kept free for closing the reasoning and for the verdict


@dataclass
class PointwiseReranker(Reranker):
    """Scores every passage by itself and sorts by score; ties keep the order of the first stage.

    `sampling` is that of the answer, which ends at a verdict after `</think>` or after `max_tokens`; the score is read
    from the log-probabilities where the verdict stands. A trace is of one passage, its `status` "ok"; "truncated" (the
    reasoning met its limit and was closed); or "undecided" (neither verdict was among the likely tokens; the score is
    0.5). One call where the model gives its verdict by itself. Else a second one repeats prompt and reasoning with one
    token to come.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sampling = replace(self.sampling, stop=_SAID, chain=True, logprobs=VERDICT.logprobs)

    async def _rerank(self, job: Job, docids: list[str]) -> Reranked:
        traces = await gather(self._rank_window(job, [d], rank, rank + 1) for rank, d in enumerate(docids))
        best_first = sorted(traces, key=lambda trace: -trace.score)
        return Reranked([trace.docids[0] for trace in best_first], traces)

    async def _answer(self, prompt: list[int], num_passages: int) -> tuple[list[Completion], dict[str, Any]]:
        text, closed, score, done = "", True, None, []
        if self.prompt.chain:
            room = max(1, self.engine.max_model_len - len(prompt) - _RESERVE)
            answer = replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))
            done.append(await self.engine.generate(prompt, answer))
            text, closed, said = done[0].text.partition(THINK_END)
            if said.endswith(_SAID):
                score = verdict_score(done[0].logprobs[-1])
            text += THINK_END + (said if score is not None else "")
        if score is None:
            ending = self.engine.tokenizer.encode(text, add_special_tokens=False)
            done.append(await self.engine.generate([*prompt, *ending], VERDICT))
            score, text = verdict_score(done[-1].logprobs[0]), text + done[-1].text
        status = "undecided" if score is None else "ok" if closed else "truncated"
        score = 0.5 if score is None else score
        return [as_one(done, prompt, text)], {"ranking": [1], "status": status, "score": score}


def verdict_score(logprobs: Mapping[str, float]) -> float | None:
    """P(true) / (P(true) + P(false)) from one position's log-probabilities; None where neither is among them.

    Blanks around a token and its case do not count, so " true" and "True" are both "true".
    """
    mass = {"true": 0.0, "false": 0.0}
    for token, logprob in logprobs.items():
        if (word := token.strip().lower()) in mass:
            mass[word] += math.exp(logprob)
    total = mass["true"] + mass["false"]
    return mass["true"] / total if total > 0 else None

"""The pointwise reasoning reranker, in the way of Rank1 (Weller et al. 2025): one chain for each passage.

The model reasons and says whether the passage is relevant; the score is the probability of "true" against
"false" where the verdict stands. It is what the paper's latency study compares with (Figures 1 and 5).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reasonrank.answers import THINK_END
from reasonrank.engines import GREEDY, Engine, Sampling
from reasonrank.prompts import Prompt

from .run import Gate, Reranked, Reranker, Trace, gather, took

VERDICT = Sampling(max_tokens=1, logprobs=20)
_SAID = ("true", "false", "True", "False")  # what ends an answer, after its reasoning
_RESERVE = 16  # tokens kept free for closing the reasoning and for the verdict


@dataclass(frozen=True, kw_only=True)
class PointTrace(Trace):
    """One passage at its first-stage `rank` (from 0): its score in 0..1 and the chain behind it.

    `status`: "ok"; "truncated" (the reasoning met its limit and was closed); "undecided" (neither verdict was
    among the likely tokens; the score is 0.5). One call where the model gives its verdict by itself. Else a second one
    repeats prompt and reasoning with one token to come; the prompt is counted once.
    """

    rank: int
    docid: str
    score: float


class PointwiseReranker(Reranker):
    """Scores every passage by itself and sorts by score; ties keep the order of the first stage.

    `sampling` is that of the answer, which ends at a verdict after `</think>` or after `max_tokens`; the score is read
    from the log-probabilities where the verdict stands.
    """

    def __init__(
        self, engine: Engine, prompt: Prompt, *, sampling: Sampling = GREEDY, max_in_flight: int = 64
    ) -> None:
        sampling = replace(sampling, stop=_SAID, chain=True, logprobs=VERDICT.logprobs)
        super().__init__(engine, prompt, sampling=sampling, max_in_flight=max_in_flight)

    def answers_needed(self, num_candidates: int) -> int:
        return num_candidates

    async def _rerank(self, query: str, docids: list[str], texts: Mapping[str, str], gate: Gate) -> Reranked:
        traces = await gather(self._judge(query, rank, d, texts[d], gate) for rank, d in enumerate(docids))
        best_first = sorted(traces, key=lambda trace: -trace.score)
        return Reranked([trace.docid for trace in best_first], traces)

    async def _judge(self, query: str, rank: int, docid: str, passage: str, gate: Gate) -> PointTrace:
        text, closed, score, completions = "", True, None, []
        async with gate.slots:
            began = time.perf_counter()
            prompt = self.prompt.render(query, [passage])
            if self.prompt.chain:
                room = max(1, self.engine.max_model_len - len(prompt.ids) - _RESERVE)
                answer = replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))
                completions.append(chain := await self.engine.generate(prompt.ids, answer))
                text, closed, said = chain.text.partition(THINK_END)
                if said.endswith(_SAID):
                    score = verdict_score(chain.logprobs[-1])
                text += THINK_END + (said if score is not None else "")
            if score is None:
                ending = self.engine.tokenizer.encode(text, add_special_tokens=False)
                completions.append(verdict := await self.engine.generate([*prompt.ids, *ending], VERDICT))
                score, text = verdict_score(verdict.logprobs[0]), text + verdict.text
        gate.count(answered=1)
        once = {"prompt_tokens": len(prompt.ids), "cached_tokens": completions[0].cached_tokens}
        return PointTrace(
            rank=rank,
            docid=docid,
            score=0.5 if score is None else score,
            status="undecided" if score is None else "ok" if closed else "truncated",
            text=text,
            **took(completions, prompt, [docid], began) | once,
        )


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

"""GRPO on a prompt once per group, then its G answers: P - 1 + G (R + 1) tokens instead of G (P + R).

A row holds a group: the prompt without its last token, then for each answer that last token and the answer.
An answer sees the prompt and itself (a block mask) at the positions it would have alone, so logits, loss and
gradients are those of the plain way. The prompt's last token is repeated since it predicts the first token of
every answer. `SharedPrefixGRPOTrainer` changes where TRL computes log-probabilities, of policy, old policy and
reference alike, and nothing of the loss.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from .common import ResumableSampling
from .label_head import use_label_head
from .processor import GROUPED, write_lora
from .rollouts import draw, merged, saved_policy

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Mean absolute difference of log-probabilities (nats) that the self-check allows, by compute type."""


@dataclass(frozen=True)
class Packed:
    """Groups of answers, one group a row of length T.

    `input_ids`, `position_ids`, `labels` (shifted: the token that follows; -100 where none is scored): (groups,
    T). `mask`: (groups, 1, T, T), true where the second may be seen by the first. `rows`, `places`: for each
    scored token, in the order of `labels[labels != -100]`, its row and column in the plain (answers, tokens).
    `answers`: for each row, where its answers begin and end.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    answers: list[list[tuple[int, int]]]

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.input_ids.numel()


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, answer_width: int) -> Packed:
    """Pack (answers, prompt + answer) with left-padded prompts and right-padded answers by equal prompts.

    `answer_width`: columns that hold answers, at the right. Rows with equal prompts need not be neighbours.
    """
    split = input_ids.size(1) - answer_width
    groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    for row, (ids, keep) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
        prompt, answer = (ids[part][keep[part]].tolist() for part in (slice(split), slice(split, None)))
        groups.setdefault(tuple(prompt), []).append((row, answer))
    packed, scored, bounds = [], [], []
    for (*prompt, last), answers in groups.items():
        tokens, positions = [*prompt], [*range(len(prompt))]
        labels, owners = [-100] * len(prompt), [0] * len(prompt)
        bounds.append([])
        for number, (row, answer) in enumerate(answers, start=1):
            bounds[-1].append((len(tokens), len(tokens) + 1 + len(answer)))
            tokens += [last, *answer]
            labels += [*answer, -100]
            positions += range(len(prompt), len(prompt) + 1 + len(answer))
            owners += [number] * (1 + len(answer))
            scored += [(row, place) for place in range(len(answer))]
        packed.append([torch.tensor(line) for line in (tokens, positions, labels, owners)])
    padding = zip(zip(*packed, strict=True), (0, 0, -100, -1), strict=True)
    tokens, positions, labels, owners = (pad_sequence(lines, True, value) for lines, value in padding)
    rows, places = torch.tensor(scored, dtype=torch.long).reshape(-1, 2).T
    made = (tokens, positions, labels, block_mask(owners), rows, places)
    return Packed(*(tensor.to(input_ids.device) for tensor in made), bounds)


def block_mask(owner: torch.Tensor) -> torch.Tensor:
    """Who sees whom: `owner` (groups, T) is 0 for the prompt, 1..G for an answer, -1 for padding.

    True where the second token is no later and belongs to the prompt or to the same answer; padding sees
    itself, so that no row of the softmax is empty. Returns (groups, 1, T, T).
    """
    length = owner.size(1)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mine, theirs = owner[:, :, None], owner[:, None, :]
    seen = causal & (theirs >= 0) & ((theirs == 0) | (theirs == mine)) & (mine >= 0)
    return (seen | torch.eye(length, dtype=torch.bool)).unsqueeze(1)


class SharedPrefixGRPOTrainer(ResumableSampling, GRPOTrainer):
    """TRL's GRPOTrainer with shared prompts. Text only; the model's attention is `sdpa`, `eager` or "grouped".

    Before the first gradient step the packed log-probabilities of one micro-batch are compared with TRL's own;
    where they differ by more than `TOLERANCE` a warning says so and TRL's own way serves from then on.
    `rollouts`: the engine that writes the answers, or None, which leaves them to TRL. `shared_prefix`: whether packing
    is in use. A row of the log has `packed_tokens`, those computed for it, and `plain_tokens`, those of the plain way;
    equal while packing is off.
    """

    def __init__(self, *args: Any, rollouts: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollouts = rollouts
        own = {"temperature": self.temperature, "entropy_gradient": bool(self.args.entropy_coef)}
        for model in filter(None, (self.model, self.ref_model)):
            use_label_head(model, self.accelerator.device, **own)
        write_lora(self.model, self.accelerator.device)
        self.packed_tokens = self.plain_tokens = 0
        self.checked: float | None = None
        self._unchanged = 0  # rows at the head of the next batch for the old policy that need no pass
        # one answer shares its prompt with no other
        self.shared_prefix = self.args.per_device_train_batch_size > 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        counts = torch.tensor([self.packed_tokens, self.plain_tokens], device=self.accelerator.device)
        packed, plain = self.accelerator.reduce(counts).tolist()
        self.packed_tokens = self.plain_tokens = 0
        super().log({**logs, "packed_tokens": packed, "plain_tokens": plain}, start_time)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Prompts given as token ids stay what they are; text is left to TRL."""
        given = not isinstance(prompts[0], str)
        return (prompts, None, {}) if given else super()._tokenize_prompts(prompts)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """Answers by the engine, or by TRL: by its `generate` from a copy with the adapter merged, which takes the
        memory of a second model and has less to compute for each token."""
        model, wrapped = self.accelerator.unwrap_model(self.model), self.model_wrapped
        if self.rollouts is not None:
            passes = self.args.steps_per_generation * self.num_iterations
            batch = self.state.global_step * self.args.gradient_accumulation_steps // passes
            with saved_policy(model, self.processing_class) as folder:
                return [list(done.token_ids) for done in draw(self.rollouts, folder, prompt_ids, batch)], None
        if not self.use_vllm and self.accelerator.num_processes == 1:
            self.model_wrapped = merged(model)
        try:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        finally:
            self.model_wrapped = wrapped

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL does, but groups stay whole: prompts come shuffled already, rows are not shuffled again."""
        if not (self.shared_prefix and self.model.training):
            return super()._prepare_inputs(generation_batch)
        passes = self.args.steps_per_generation
        if self._step % (passes * self.num_iterations) == 0 or self._buffered_inputs is None:
            # Before the first optimiser step of a batch the old policy is the present one, whose log-probabilities the
            # loss has anyway.
            first = self.args.gradient_accumulation_steps
            unchanged = first if first < passes and self.num_iterations == 1 and not self.use_vllm else 0
            self._unchanged = unchanged * self.args.per_device_train_batch_size
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, passes)
            for part in self._buffered_inputs[:unchanged]:
                del part["old_per_token_logps"]
        return self._buffered_inputs[self._step % passes]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **extra: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        plain = super()._get_per_token_logps_and_entropies
        packs = self.shared_prefix and all(value is None or value is False for value in extra.values())
        if packs and self.checked is None:
            packs = self._passes_check(plain, model, input_ids, attention_mask, logits_to_keep)
        self.plain_tokens += input_ids.numel()
        if not packs:
            self.packed_tokens += input_ids.numel()
            own = (model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy)
            return plain(*own, **extra)
        size, skipped, self._unchanged = batch_size or len(input_ids), self._unchanged, 0
        batches = zip(input_ids[skipped:].split(size), attention_mask[skipped:].split(size), strict=True)
        parts = [self._packed_log_probs(model, ids, mask, logits_to_keep) for ids, mask in batches]
        parts.insert(0, (parts[0][0].new_zeros(skipped, logits_to_keep),) * 2)
        log_probs, entropies = (torch.cat(each) for each in zip(*parts, strict=True))
        return log_probs, entropies, None

    def _packed_log_probs(
        self, model: Any, input_ids: torch.Tensor, mask: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies, of shape (answers, width); zero after the end."""
        packed = pack(input_ids, mask, width)
        config = self.accelerator.unwrap_model(model).config
        by_answer = {"answers": packed.answers} if config._attn_implementation == GROUPED else {}
        with self.accelerator.autocast():
            outputs = model(
                input_ids=packed.input_ids,
                attention_mask=packed.mask,
                position_ids=packed.position_ids,
                shift_labels=packed.labels,
                fused_lm_head=True,
                **by_answer,
            )
        self.packed_tokens += packed.tokens
        scored = packed.labels != -100

        def unpack(values: torch.Tensor) -> torch.Tensor:
            empty = values.new_zeros(len(input_ids), width)
            return empty.index_put((packed.rows, packed.places), values[scored])

        return unpack(outputs.log_probs), unpack(outputs.entropy)

    @torch.no_grad()
    def _passes_check(
        self, plain: Any, model: Any, input_ids: torch.Tensor, mask: torch.Tensor, width: int
    ) -> bool:
        """Compare one group with TRL's own log-probabilities; turn packing off where they differ."""
        ids, mask = input_ids[: self.num_generations], mask[: self.num_generations]
        ours, theirs = self._packed_log_probs(model, ids, mask, width), plain(model, ids, mask, width)
        self.packed_tokens, differences = 0, ours[0] - theirs[0]  # the check is no part of the training
        difference = differences[mask[:, -width:].bool()].abs().mean()
        self.checked = float(self.accelerator.gather(difference).max())  # all processes go the same way
        allowed = TOLERANCE[torch.bfloat16 if self.args.bf16 else model.dtype]
        self.shared_prefix = self.checked <= allowed
        if not self.shared_prefix:
            said = "log-probabilities differ from TRL's by %.2g nats on average, more than %.2g"
            logger.warning(f"shared prefix is off: {said}", self.checked, allowed)
        return self.shared_prefix

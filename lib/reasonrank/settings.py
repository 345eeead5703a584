"""The settings of a run: every section and key of a profile, with its type and bounds. Unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from .rewards import Reward
from .stages import ROOT

T = TypeVar("T")


class Strict(BaseModel):
    """What a file of ours holds: no other keys, no infinite numbers, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_yaml(path: Path) -> Any:
    """Read YAML; a ValueError names the file, and the line where it is not valid."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: not valid YAML: {' '.join(str(error).split())}") from None


def checked(content: Any, kind: type[T], place: str) -> T:
    """`content` as `kind`; a ValueError names `place` and each key that is wrong."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        each = [(".".join(map(str, e["loc"])) or "content", e["msg"], e["input"]) for e in error.errors()]
        wrong = "; ".join(f"{key}: {message} (got {value!r:.60})" for key, message, value in each)
        raise ValueError(f"{place}: {wrong}") from None


class Model(Strict):
    name: str  # "smollm2-135m-instruct" (embedded), a folder, or a repository on the hub
    dtype: Literal["float32", "bfloat16", "float16"]
    max_length: int = Field(gt=0)  # tokens of prompt and answer


class Data(Strict):
    folder: str | None  # of published data, as in docs/DATA.md, relative to the project; None: the hub
    pinned: dict[str, str]  # an input as records name it, as "bright/biology/qrels.txt" -> its SHA-256

    path = property(lambda self: ROOT / self.folder if self.folder else None)


class Prompting(Strict):
    template: str | None  # None: ours; "recovered": the authors', from their RL data; else a Jinja file
    passage_tokens: int = Field(gt=0)
    query_tokens: int = Field(gt=0)
    reasoning: bool  # False: prompts, labels and answers have no chain (paper, Table 3, non-reasoning)
    repeat: bool  # query and identifiers stand twice, for small models (see prompts.Prompt)


class RemoteTeacherSettings(Strict):
    """A chat endpoint with OpenAI's interface, and what it may cost. Prices are per million tokens."""

    base_url: str
    model: str
    key_variable: str  # name of the environment variable that holds the key; "": no key
    max_in_flight: int = Field(gt=0)
    timeout: float = Field(gt=0)  # seconds for one request
    attempts: int = Field(gt=0)  # requests for one question in a run
    answers: int = Field(gt=0)  # paid answers for one question that may be unusable, over all runs
    backoff: float = Field(ge=0)  # seconds before the second request, doubled for each later one
    max_tokens: int = Field(gt=0)  # of reasoning and answer
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    input_price: float = Field(ge=0)
    output_price: float = Field(ge=0)
    token_budget: int | None
    money_budget: float | None


class Synthesis(Strict):
    teacher: Literal["offline", "remote"]
    published: Literal["13k", "sft", "rl"] | None  # the authors' data in place of stage 01; None: ours
    first_stage: dict[str, Literal["dense", "bm25"]]  # by collection, "default" for the others
    train_queries: int | None  # per collection, None: all
    candidates: int = Field(gt=1)  # K of the first stage
    extra_queries: bool  # parts of training queries as queries too, where a collection has them
    window: int = Field(gt=1)  # passages of a list
    smallest_window: int | None = Field(gt=1)  # lists have this many passages to `window`; None: all `window`
    shuffled: float = Field(ge=0, le=1)  # share of lists in random order in place of the first stage's
    max_positives: int = Field(gt=0)
    max_hard_negatives: int = Field(ge=0)
    without_positives: float = Field(ge=0, lt=1)  # share of lists from which the positives are left out
    lists_per_query: int = Field(gt=0)
    near_duplicate: float = Field(gt=0, le=1)  # of two passages this similar the later one is dropped
    threshold: float  # offline teacher: evidence needed to move a passage up
    annotated: float = Field(ge=0)  # offline teacher: what a human judgement adds to that evidence
    chain: Literal["evidence", "needs"]  # offline teacher: the form of its reasoning
    remote: RemoteTeacherSettings

    @model_validator(mode="after")
    def _has_room(self) -> Synthesis:
        if not self.max_positives < (self.smallest_window or self.window) <= self.window:
            raise ValueError(f"a list needs room for {self.max_positives} positives and a negative")
        return self


class Filtering(Strict):
    alpha: float = Field(ge=0, le=1)
    alphas: list[float]
    datasets: list[str] | None  # examples of these collections alone; None: all


class Lora(Strict):
    rank: int = Field(gt=0)
    alpha: int = Field(gt=0)
    target_modules: str | list[str]


class Training(Strict):
    """What both stages of training have."""

    lora: Lora | None  # None: full fine-tuning
    learning_rate: float = Field(gt=0)
    scheduler: str
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    batch_size: int = Field(gt=0)  # examples, or answers, per device and forward pass
    gradient_checkpointing: bool
    evaluate_every: int | None = Field(gt=0)  # steps between two scores on dev queries
    patience: int | None = Field(gt=0)  # scores in a row that are no better, after which training stops


class Sft(Training):
    epochs: float = Field(gt=0)
    cutoff: int = Field(gt=0)  # tokens of prompt and label
    max_steps: int  # -1: as many as the epochs take
    gradient_accumulation: int = Field(gt=0)
    rank_loss: float = Field(0.0, ge=0)  # weight of a loss on the order, beside that on tokens (FIRST: 10)
    validity_queries: int = Field(gt=0)  # windows for format validity before and after


class Rl(Training):
    reward: Reward
    steps: int = Field(gt=0)  # rollout batches, as the paper counts
    prompts_per_step: int = Field(gt=0)
    mini_batch_prompts: int = Field(gt=0)
    rollouts: int = Field(gt=1)  # G
    max_prompt_tokens: int = Field(gt=0)
    max_completion_tokens: int = Field(gt=0)
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    kl_coefficient: float = Field(ge=0)  # TRL's beta
    entropy_coefficient: float = Field(ge=0)
    clip_low: float = Field(gt=0)
    clip_high: float = Field(gt=0)
    dual_clip: float | None
    scale_rewards: Literal["group", "batch", "none"]
    loss_type: str
    epochs_per_batch: int = Field(gt=0)
    use_vllm: bool


class Evaluation(Strict):
    engine: Literal["auto", "vllm", "transformers", "openai"]
    systems: list[Literal["zero-shot", "SFT", "SFT + RL", "checkpoint"]] = Field(min_length=1)
    adapters: str | None  # a profile: its released adapters too, where there are any for the model
    queries: int | None  # test queries per collection, None: all
    worked_queries: int = Field(ge=0)  # of each worked collection, redone beside their record; 0: none
    first_stage: dict[str, str]  # by collection, family or "default": dense, bm25, or where TREC runs lie
    scoring: Literal["ours", "released"]  # of runs that are read; released: as the authors' code does
    top: int = Field(gt=0)
    strategy: Literal["sliding", "single", "full", "topdown", "pointwise", "direct", "logits"]
    window: int = Field(gt=0)
    step: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    sampling: Literal["greedy", "qwen3"]
    retry: bool  # ask once more, with the next seed, for a truncated or malformed answer
    overlong: Literal["error", "shorten"]  # a prompt that is too long: stop, or cap its passages lower
    constrained: bool  # hold answers to their form while they are decoded, where the engine can
    prefetch: bool  # read the next window's first passages while an answer is decoded (vllm, openai)
    max_in_flight: int = Field(gt=0)
    bootstrap: int = Field(gt=0)

    @property
    def window_strategy(self) -> str:
        """The strategy that reads the first `window` passages once: by one list, or passage by passage."""
        return "pointwise" if self.strategy == "pointwise" else "sliding"


class MethodWeights(Strict):
    """Folders of a model or a LoRA adapter, relative to the project; None: notebook 04's, else the model's own."""

    listwise: str | None
    pointwise: str | None


class Latency(Strict):
    collections: list[str]
    weights: MethodWeights
    queries: int = Field(gt=1)  # per collection, all together
    alone_queries: int = Field(gt=0)  # of these, each by itself too
    warmup: int = Field(ge=0)
    top: int = Field(gt=0)
    length_scale: float = Field(ge=0)  # of the declared lengths in a run of its own; 0: no such run
    growth: list[int]  # other numbers of candidates, on the first collection
    growth_queries: int = Field(gt=0)
    listwise_tokens: int = Field(gt=0)
    pointwise_tokens: int = Field(gt=0)
    strategy_queries: int = Field(gt=0)  # per collection, for the table of strategies


class Hardware(Strict):
    """What a profile is meant for; `preflight` holds its plan against it, and RL takes vLLM's share from here."""

    gpus: int = Field(ge=0)  # 0: the processor
    gpu_memory: float = Field(gt=0)  # GiB of one GPU; of the machine, where there is none
    zero_stage: int = Field(ge=0, le=3)  # of DeepSpeed, see profiles/accelerate
    vllm_memory: float = Field(gt=0, lt=1)  # share of a GPU for vLLM beside training
    vllm_tensor_parallel: int = Field(gt=0)


class Profile(Strict):
    """All settings of a run. `overrides` lists what a caller changed, for the record."""

    name: str
    about: str
    seed: int = Field(ge=0, lt=2**32)
    report_to: Literal["none", "tensorboard", "wandb", "trackio"]  # where training logs go
    stages: list[str] = Field(min_length=1)  # notebooks that a run of this profile has
    data: Data
    collections: list[str] = Field(min_length=1)
    model: Model
    prompting: Prompting
    synthesis: Synthesis
    filtering: Filtering
    sft: Sft
    rl: Rl
    evaluation: Evaluation
    latency: Latency
    hardware: Hardware
    overrides: dict[str, Any] = Field(default_factory=dict)

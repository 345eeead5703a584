"""The prompt template of the released checkpoints, learnt from the authors' published RL data.

Their prompts are not part of this project. A row of that data holds the messages that a template made of a
query and passages which are known, so the template is what remains when these are taken out. A recovered
template must render every row anew, character by character; its hashes (data/prompt_hashes.json) tell whether it is the
one that a checkpoint was trained with. A template may also come from a Jinja file, see `read_template`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any

from .answers import clean_identifiers
from .prompts import ListwisePrompt, Piece, Template, block, fill
from .settings import Profile
from .sources import published13k
from .stages import ROOT, read_json

HASHES = ROOT / "data" / "prompt_hashes.json"
ROWS = 500  # of the RL set that are looked at, one of each number of passages
CAP = 512  # tokens of a passage in them, as in evaluation
_LIST = "\0"  # stands for the passages
LIMIT = 14  # places of the query and the number in one message; more would take too many trials


def template_of(profile: Profile) -> Template | None:
    """The template that a profile names: recovered, or from a Jinja file relative to the project; None: our own.

    ValueError or FileNotFoundError, with the file, for one that is none, or that is not the model's.
    """
    named = profile.prompting.template
    if named == "recovered":
        return published(profile.data.path, profile.model.name)
    return read_template(ROOT / named) if named else None


@cache
def published(data_dir: Path | None, model: str) -> Template:
    """The template behind the authors' RL data, as `published13k.prompts` finds them.

    ValueError where it is not the one that `model` was trained with, told by the name of a released checkpoint
    (data/prompt_hashes.json); a model of another name takes any. Other errors as for `recover`.
    """
    from .models import load_tokenizer

    known, rows = read_json(HASHES), islice(published13k.prompts(data_dir), ROWS)
    made = recover(rows, known, tokenizer=load_tokenizer(model), passage_tokens=CAP)
    name, entries = Path(model).name.lower(), {key: e for key, e in known.items() if isinstance(e, Mapping)}
    wanted = [key for key, e in entries.items() if name in [used.split()[0].lower() for used in e["used_by"]]]
    if wanted and known_as(made, known) not in wanted:
        wrong = f"the recovered template is not the one of {model}: its hashes are not in {HASHES.name}"
        raise ValueError(f"{wrong}; get the RL data again, or give prompting.template a Jinja file")
    return made


def read_template(path: Path) -> Template:
    """A template from a Jinja file with the blocks `system` and `user`, in which `{{ num }}`, `{{ query }}` and, once,
    `{{ passages }}` (lines `[i] text`, each with its line break) stand. A line break right after a tag is left out.

    FileNotFoundError, or ValueError with file and line, for one that is none.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such template; expected a Jinja file")
    strict = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True, "trim_blocks": True}
    try:
        made = ImmutableSandboxedEnvironment(**strict).from_string(path.read_text(encoding="utf-8-sig"))
        context = made.new_context({name: f"{{{name}}}" for name in ("num", "query", "passages")})
        texts = {role: "".join(made.blocks[role](context)) for role in ("system", "user")}
    except KeyError as error:
        raise ValueError(f"{path}: no block {error}; expected the blocks system and user") from None
    except (jinja2.TemplateError, UnicodeDecodeError) as error:
        place = f"{path}, line {error.lineno}" if hasattr(error, "lineno") else path
        raise ValueError(f"{place}: {getattr(error, 'message', error)}") from None
    if texts["user"].count("{passages}") != 1 or "{query}" not in texts["system"] + texts["user"]:
        raise ValueError(f"{path}: expected {{{{ passages }}}} once in the block user, and {{{{ query }}}}")
    return Template(**texts)


def record(profile: Profile) -> dict[str, Any]:
    """What a record says of the template: where it is from, its hashes, and the name that they are known by."""
    template = template_of(profile)
    if template is None:
        return {"source": "this project"}
    found = {"source": profile.prompting.template, "known_as": known_as(template, read_json(HASHES))}
    return found | {"sha256": _hashes(template), "choices": template.choices}


def recover(
    rows: Iterable[Mapping[str, Any]],
    known: Mapping[str, Any] | None = None,
    *,
    tokenizer: Any = None,
    passage_tokens: int | None = None,
) -> Template:
    """Learn the template that made `rows`, and render one of each number of passages anew to be sure.

    A row has `messages`: a system and a user message, each with `role` and `content`; `query`;
    `passages`, best with more than one number of passages over all rows. Query and passages stand in the
    messages as given or as `prepare` makes them, the passages cut to `passage_tokens` of `tokenizer`; rows in which
    they were made in another way are passed over. `known`: hashes as for `known_as`. Of several templates that fit, a
    known one is taken, else the one with the most places. Raises ValueError where no row can be used, naming the last
    one, and where no template fits.
    """
    read: dict[str, dict[str, str]] = {}
    refused = ValueError("no rows to learn a template from")
    for number, row in enumerate(rows, start=1):
        if (size := str(len(row["passages"] or ()))) not in read:
            try:
                read[size] = _row(row, f"row {number}", tokenizer, passage_tokens)
            except ValueError as error:
                refused = error
    if not read:
        raise refused
    systems, users = (_fitting(role, list(read.values())) for role in ("system", "user"))
    choices = len(systems) * len(users)
    made = [Template(s, user.replace(_LIST, "{passages}"), choices) for s, user in product(systems, users)]
    ours = [template for template in made if known_as(template, known or {})]
    return max(ours or made, key=lambda t: len(re.findall(r"\{(?:num|query|passages)\}", t.system + t.user)))


def known_as(template: Template, known: Mapping[str, Any]) -> str | None:
    """The name under which `known` (name -> SHA-256 of the text in UTF-8, by role) has this template, or None."""
    own = _hashes(template)
    names = (name for name, e in known.items() if isinstance(e, Mapping) and own.items() <= e.items())
    return next(names, None)


def _hashes(template: Template) -> dict[str, str]:
    texts = {"system": template.system, "user": template.user}
    return {role: hashlib.sha256(text.encode()).hexdigest() for role, text in texts.items()}


def _row(row: Mapping[str, Any], place: str, tokenizer: Any, tokens: int | None) -> dict[str, str]:
    """The messages of a row by role, the passages in them as `_LIST`, and its query and number as they stand there."""
    roles, texts = ([message.get(key) for message in row["messages"] or ()] for key in ("role", "content"))
    if roles != ["system", "user"] or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{place}: expected a system and a user message with their text, got roles {roles}")
    (system, user), query, passages = texts, row["query"], row["passages"]
    if not query or not passages:
        raise ValueError(f"{place}: expected a query and passages that are not empty")
    for texts in (passages, [prepare(text, tokenizer, tokens) for text in passages]):
        before, found, after = user.partition(block(texts))
        for asked in (query, prepare(query)) if found else ():
            if any(asked in part for part in (before, after, system)):
                found = {"system": system, "user": before + _LIST + after}
                return found | {"query": asked, "num": str(len(texts))}
    raise ValueError(f"{place}: its query, or its passages as '[i] text' lines, are not in its messages")


def _fitting(role: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The templates that render this message of every row, learnt from the row with the fewest places."""
    readings = min((_readings(row, role) for row in rows), key=len)
    if (count := len(readings) // 2) > LIMIT:
        raise ValueError(f"the query or the number stands at {count} places of a message, too many to try")
    made = dict.fromkeys(map("".join, product(*readings)))
    if found := [text for text in made if all(fill(text, row) == row[role] for row in rows)]:
        return found
    raise ValueError(f"no template makes the {role} messages of all {len(rows)} rows")


def _readings(row: Mapping[str, str], role: str) -> list[list[str]]:
    """A message in parts, and how to read each: every second one may be the query or the number, or is plain text."""
    parts = re.split(rf"({re.escape(row['query'])}|(?<!\d){row['num']}(?!\d))", row[role])
    names = [
        [name for name in ("query", "num") if n % 2 and row[name] == part] for n, part in enumerate(parts)
    ]
    return [[*(f"{{{name}}}" for name in found), part] for found, part in zip(names, parts, strict=True)]


def prepare(text: str, tokenizer: Any = None, tokens: int | None = None) -> str:
    """A query or passage as it enters a prompt: fixed by ftfy, cut to `tokens` model tokens, `[12]` made `(12)`."""
    from ftfy import fix_text

    text = fix_text(text.strip())
    if tokenizer is not None and tokens is not None:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if len(ids) > tokens:
            text = tokenizer.decode(ids[:tokens], skip_special_tokens=True).rstrip("\ufffd")
    return clean_identifiers(text)


class RecoveredPrompt(ListwisePrompt):
    """A listwise prompt with a recovered `template`, its query and passages prepared as the authors do.

    The paper caps passages at 512 tokens on BRIGHT and R2MED, at 100 on BEIR, and leaves queries whole.
    """

    def cut(self, text: str, limit: int) -> Piece:
        kept = prepare(text, self.tokenizer, limit)
        return Piece(kept, self._tokenise(kept), was_cut=kept != prepare(text))

"""The prompt template of the released checkpoints, learnt from the authors' published RL data.

Their prompts are not part of this project. A row of that data holds the messages that a template made of a
query and passages which are known, so the template is what remains when these are taken out. A recovered
template must render every row anew, character by character; its hashes (data/prompt_hashes.json) tell whether it is the
one that a checkpoint was trained with. A template may also come from a Jinja file, see `read_template`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, combinations, islice, pairwise, product
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

    known, tokenizer = read_json(HASHES), load_tokenizer(model)
    chosen: dict[int, Mapping[str, Any]] = {}
    refused = ValueError("no rows to learn a template from")
    for number, row in enumerate(islice(published13k.prompts(data_dir), ROWS), start=1):
        if (size := len(row["passages"])) not in chosen:
            try:  # a passage that was cut in another way hides the template
                _row(row, f"row {number}", tokenizer, CAP)
                chosen[size] = row
            except ValueError as error:
                refused = error
    if not chosen:
        raise ValueError(f"{published13k.HUB['rl']}: {refused}")
    made = recover(chosen.values(), known, tokenizer=tokenizer, passage_tokens=CAP)
    name = model.rstrip("/").rpartition("/")[2].lower()
    theirs = [e["used_by"] for e in known.values() if isinstance(e, Mapping)]
    wanted = next((used for used in theirs if name in [word.split()[0].lower() for word in used]), None)
    found = known_as(made, known)
    if wanted and (found is None or known[found]["used_by"] != wanted):
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
        raise FileNotFoundError(
            f"{path}: no such template; expected a Jinja file with blocks system and user"
        )
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
    """Learn the template that made `rows`, and render each of them anew to be sure.

    A row has `messages` (or `prompt`): a system and a user message, each with `role` and `content`; `query`;
    `passages`, best with more than one number of passages over all rows. Query and passages stand in the
    messages as given or as `prepare` makes them, the passages cut to `passage_tokens` of `tokenizer`.
    `known`: hashes as for `known_as`. Of several templates that fit, a known one is taken, else the one
    with the most places. Raises ValueError, naming the row, for one that is malformed or whose query or passages
    are not in its messages, and where no template fits all rows.
    """
    read = [_row(row, f"row {number}", tokenizer, passage_tokens) for number, row in enumerate(rows, start=1)]
    if not read:
        raise ValueError("no rows to learn a template from")
    systems, users = _fitting("system", read), _fitting("user", read)
    users, choices = [user.replace(_LIST, "{passages}") for user in users], len(systems) * len(users)
    found = [Template(system, user, choices) for system, user in product(systems, users)]
    ours = [template for template in found if known_as(template, known or {})]
    return max(ours or found, key=lambda t: len(re.findall(r"\{(?:num|query|passages)\}", t.system + t.user)))


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
    messages = [dict(message) for message in row.get("messages", row.get("prompt")) or ()]
    roles = [message.get("role") for message in messages]
    if roles != ["system", "user"] or not all(isinstance(m.get("content"), str) for m in messages):
        raise ValueError(f"{place}: expected a system and a user message with their text, got roles {roles}")
    query, passages = row.get("query"), list(row["passages"]) if row.get("passages") is not None else []
    if not isinstance(query, str) or not query or not passages:
        raise ValueError(f"{place}: expected a query and passages that are not empty")
    system, user = (message["content"] for message in messages)
    for texts in (passages, [prepare(text, tokenizer, tokens) for text in passages]):
        before, found, after = user.partition(block(texts))
        for asked in (query, prepare(query)) if found else ():
            if any(asked in part for part in (before, after, system)):
                return {
                    "system": system,
                    "user": before + _LIST + after,
                    "query": asked,
                    "num": str(len(texts)),
                }
    raise ValueError(f"{place}: its query, or its passages as '[i] text' lines, are not in its messages")


def _fitting(role: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The templates that render this message of every row, learnt from the row with the fewest places."""
    first = min(rows, key=lambda row: len(_places(row, role)))
    made = dict.fromkeys(_candidates(first[role], _places(first, role)))
    found = [text for text in made if all(fill(text, row) == row[role] for row in rows)]
    if not found:
        raise ValueError(f"no template makes the {role} messages of all {len(rows)} rows")
    return found


def _places(row: Mapping[str, str], role: str) -> list[tuple[int, int, str]]:
    """Start, end and name of all in a message that may be the query or the number."""
    patterns = {"query": re.escape(row["query"]), "num": rf"(?<!\d){row['num']}(?!\d)"}
    return sorted(
        (*m.span(), name) for name, pattern in patterns.items() for m in re.finditer(pattern, row[role])
    )


def _candidates(text: str, places: Sequence[tuple[int, int, str]]) -> Iterator[str]:
    """Templates that might have made a message: each choice of places that do not overlap."""
    if len(places) > LIMIT:
        raise ValueError(
            f"the query or the number stands at {len(places)} places of a message, too many to try"
        )
    for chosen in chain.from_iterable(combinations(places, count) for count in range(len(places), -1, -1)):
        if all(one[1] <= other[0] for one, other in pairwise(chosen)):
            made, end = "", 0
            for start, stop, name in chosen:
                made, end = f"{made}{text[end:start]}{{{name}}}", stop
            yield made + text[end:]


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

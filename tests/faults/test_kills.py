"""`rerank` and `synthesise` killed over and over while three of ten requests fail."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from fakes import rerank_script
from fakes.commands import KEY, KEYS, without_key
from fakes.rerank_script import stored, write_inputs
from fakes.teacher_server import FAULTS, PASSING, serving
from reasonrank import stages
from reasonrank.runs import read_trec
from test_own_data import asking, write

pytestmark = pytest.mark.slow
IN_FLIGHT = 8


def start(command):
    options = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "start_new_session": True,
    }
    return subprocess.Popen([sys.executable, *command], env=os.environ | KEYS, **options)


def run_through_kills(command, server, kills, needed, answered, code=0):
    """Kill `command` so often, at random moments over the `needed` requests, and start it again each time.

    `answered()`: digests of the questions whose answers are on the disk; none of them is asked after that. Returns how
    often it was killed before it ended by itself, with `code`, and what it printed then.
    """
    draw, first = random.Random(needed), len(server.asked)
    for number in range(kills + 1):
        seen, done = len(server.asked), answered()
        until = seen + draw.randint(1, max(1, 2 * (first + needed * (number + 1) // (kills + 1) - seen)))
        process = start(command)
        while (len(server.asked) < until or number == kills) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        if ended := process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not done & set(server.asked[seen:])
    said = process.communicate()[0]
    assert ended and process.returncode == code and number > kills // 2, said
    assert done and not done & set(server.asked[seen:])
    return number, said


def test_rerank(tmp_path, size, report):
    queries, kills = size(100, 12), size(20, 2)
    with serving(rate=0.2, hang=2.0) as server, serving() as calm:  # one in ten answers is poor besides
        folders, commands = (tmp_path / "killed", tmp_path / "calm"), []
        for folder, at in zip(folders, (server, calm), strict=True):
            folder.mkdir()
            arguments = write_inputs(folder, queries, candidates=22)  # ten windows a query
            arguments[arguments.index("--model") + 1] = "made-up"
            url = f"http://127.0.0.1:{at.server_address[1]}/v1"
            more = ["--base-url", url, "--max-in-flight", str(IN_FLIGHT)]
            commands.append([rerank_script.__file__, *arguments, *more])
        answers = folders[0] / "out.trec.journal.answers"

        def answered():
            texts = [completion["text"] for completion in stored(answers).values()]
            return {text.split("</think>")[0].split()[-1] for text in texts if "it starts with" in text}

        kills, said = run_through_kills(commands[0], server, kills, queries * 10, answered)
        last = start(commands[1])
        assert last.wait() == 0, last.stdout.read()
    killed, undisturbed = (stored(folder / "out.trec.journal") for folder in folders)
    assert killed == undisturbed and len(killed) == queries and not answers.exists()
    assert (folders[0] / "out.trec").read_bytes() == (folders[1] / "out.trec").read_bytes()
    assert len(read_trec(folders[0] / "out.trec")) == queries
    result = stages.read_json(folders[0] / "out.trec.json")["result"]
    counted, billed = result["prompt_tokens"] + result["output_tokens"], sum(server.tokens.values())
    assert result["calls"] == len(server.whole) == queries * 10 and counted == billed
    assert set(PASSING) <= set(server.faults)
    twice = sum(server.whole.values()) - len(server.whole)  # answers on their way when a kill came
    assert twice <= kills * IN_FLIGHT
    assert without_key(folders[0]) and KEY not in said
    report(
        "rerank killed, at a faulty server",
        **{"kills": kills, "requests": len(server.seen), "failed requests": server.faults.total()},
        **{"answers on the disk asked for again": 0, "answers lost on their way": twice},
        **{"tokens counted": counted, "tokens of answers kept": billed},
    )


def test_synthesise(tmp_path, size, report):
    queries, kills = size(280, 40), size(10, 1)  # three questions each
    texts = {"text": "How is thing {} made?", "answer": "By way {}."}
    rows = [{"id": f"q{i}"} | {key: text.format(i) for key, text in texts.items()} for i in range(queries)]
    passages = [{"id": f"p{i}", "text": f"Thing {i} is made by way {i * 3} or {i}."} for i in range(40)]
    (tmp_path / "mine").mkdir()
    data, out = write(tmp_path / "mine", rows, passages, None), tmp_path / "run"
    more = {"key_variable": "REASONRANK_TEACHER_KEY", "max_in_flight": IN_FLIGHT, "max_tokens": 50}
    with serving(rate=0.3, seed=5, hang=2.0) as server, serving() as calm:
        commands = [["-m", "reasonrank", *asking(data, at, **more)] for at in (server, calm)]
        last = start([*commands[1], "--out", str(tmp_path / "calm")])
        assert last.wait() == 0, last.stdout.read()
        command, budget = [*commands[0], "--out", str(out)], sum(calm.tokens.values()) * 6 // 5

        def records():
            return list(stored(out / "teacher.sqlite").values())

        def answered():
            return {value["reasoning"].split()[-1] for value in records() if value["kind"] == "ok"}

        limited = [*command, "-p", f"synthesis.remote.token_budget={budget}"]
        first, said = run_through_kills(limited, server, kills, queries, answered, code=1)
        spent = sum(sum(value["usage"]) for value in records())
        assert "the budget would be passed" in said and 0.5 * budget < spent <= budget
        second, more_said = run_through_kills(command, server, kills, 2 * queries, answered)
    for value in records():
        if value["kind"] == "ok":
            assert sum(value["usage"]) == server.tokens[value["reasoning"].split()[-1]]
    examples = [folder / "01_synthesis" / "examples.jsonl" for folder in (out, tmp_path / "calm")]
    assert examples[0].read_text() == examples[1].read_text()
    assert len(answered()) == len(calm.asked) == 3 * queries
    kinds = {"ok", "time-out", "cut", "empty", "unreadable", "no permutation", "foreign identifiers"}
    assert set(FAULTS) == set(server.faults) and kinds <= {value["kind"] for value in records()}
    cost = stages.read_json(out / "01_synthesis" / "record.json")["result"]["cost"]
    counted, billed = cost["prompt_tokens"] + cost["output_tokens"], sum(server.tokens.values())
    lost = sum(server.whole.values()) - sum(any(value["usage"]) for value in records())
    assert counted >= billed and lost <= (first + second) * IN_FLIGHT
    assert without_key(tmp_path) and KEY not in said + more_said
    report(
        "synthesise killed, at a faulty server",
        **{"kills": first + second, "requests": len(server.seen), "failed requests": server.faults.total()},
        **{"answers on the disk asked for again": 0, "answers lost on their way": max(0, lost)},
        **{"tokens counted": counted, "tokens of answers kept": billed},
        **{"budget": budget, "spent of it": spent},
    )

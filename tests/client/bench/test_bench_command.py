"""`stretto bench` as people and programs meet it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stretto.common.v1 import model_pb2
from stretto_client import Overloaded

Run = Callable[..., tuple[int, str, str]]


def test_a_table_comes_first_and_one_line_of_json_last(run: Run, stage: Any, tmp_path: Path) -> None:
    png = tmp_path / "a.png"
    status, out, err = run(
        *("a waltz", "a tango", "--concurrency", "1,2", "--rate", "50", "--requests", 3, "--duration-s", 2),
        *("--seed", 9, "--cascade", "mine", "--buffer-s", 0.5, "--picture", png),
    )
    assert (status, err) == (0, "")
    for part in ("1 at once", "2 at once", "50 a second", "continuity", "100.0%", "first audio"):
        assert part in out
    found = json.loads(out.splitlines()[-1])
    assert found["benchmark"] == "stretto_bench"
    assert (found["address"], found["cascade"], found["picture"]) == (stage.address, "mine", str(png))
    assert (found["plan"]["duration_s"], found["plan"]["buffer_s"]) == (2.0, 0.5)
    assert [level["concurrency"] for level in found["levels"]] == [1, 2, None]
    assert [level["rate_hz"] for level in found["levels"]] == [None, None, 50.0]
    for level in found["levels"]:
        assert (level["ok_count"], level["audio_continuity_ok"], level["audio_underrun_s"]) == (3, 1.0, 0.0)
        assert level["audio_ttfp_s"]["p50"] > 0 and level["audio_rtf"]["p95"] > 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert {(request.prompt, request.seed) for request in stage.requests} == {
        ("a waltz", 9),
        ("a tango", 10),
        ("a waltz", 11),
    }


def test_every_request_asks_for_the_pace_of_the_plan(run: Run, stage: Any) -> None:
    status, out, _ = run("--concurrency", 1, "--requests", 2, "--pace", "realtime", "--json-only")
    assert (status, json.loads(out)["plan"]["pace"]) == (0, "realtime")
    assert [request.pace for request in stage.requests] == [model_pb2.PACE_REALTIME] * 3  # one warms up
    run("--concurrency", 1, "--requests", 1, "--json-only")
    assert stage.requests[-1].pace == model_pb2.PACE_BEST_EFFORT


def test_json_only_prints_one_line(run: Run) -> None:
    status, out, _ = run("--rate", 5, "--requests", 1, "--json-only")
    assert (status, len(out.splitlines())) == (0, 1)
    assert json.loads(out)["levels"][0]["ok_count"] == 1


def test_refusals_are_a_result_and_no_failure(run: Run, stage: Any, script: Any) -> None:
    full = Overloaded("All [slots] are taken.", retry_after_s=0.1)
    stage.script_of = lambda number: script(error=full if number == 1 else None)
    status, out, err = run("--concurrency", 1, "--requests", 2)
    level = json.loads(out.splitlines()[-1])["levels"][0]
    assert (status, err) == (0, "")
    assert (level["refused_count"], level["errors"][0]["retry_after_s"]["p50"]) == (1, pytest.approx(0.1))
    assert "All [slots] are taken." in out


def test_a_failure_under_load_is_one_line_after_the_numbers(run: Run, stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(chunks=((0.0, 1.0),), breaks=True) if number == 2 else script()
    status, out, err = run("--concurrency", 1, "--requests", 2)
    assert status == 1
    assert json.loads(out.splitlines()[-1])["levels"][0]["failed_count"] == 1
    assert "1 requests at 1 at once failed (SERVER_FAILURE" in err
    assert [line[:9] for line in err.splitlines() if line.strip()] == ["stretto: "]


def test_other_bytes_for_the_same_piece_are_a_failure(run: Run, stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(salt=str(number))
    status, out, err = run("--concurrency", 1, "--requests", 1)
    assert (status, json.loads(out.splitlines()[-1])["byte_difference_count"]) == (1, 1)
    assert "other bytes" in err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--concurrency", "1,x"), 1, "--concurrency: expected whole numbers with commas, as in 1,2,4,8, got 'x'"),
        (("--concurrency", "0"), 1, "expected 1 to 250 listeners, got 0"),
        (("--concurrency", "1,,2"), 1, "got ''"),
        (("--rate", "-1"), 1, "--rate: expected above 0"),
        (("--rate", "nan"), 1, "--rate: expected above 0"),
        (("--rate", "fast"), 1, "got 'fast'"),
        (("--requests", "0"), 2, "--requests"),
        (("--requests", "3"), 1, "--requests: expected at least one for each of 8 listeners, got 3"),
        (("--requests", "10001"), 2, "--requests"),
        (("--run-s", "inf"), 2, "--run-s"),
        (("--run-s", "nan"), 2, "--run-s"),
        (("--duration-s", "31"), 2, "--duration-s"),
        (("--buffer-s", "-1"), 2, "--buffer-s"),
        (("--timeout-s", "0"), 2, "--timeout-s"),
        (("--timeout-s", "inf"), 1, "--timeout-s"),
        (("--seed", str(2**64)), 1, "--seed"),
        (("--picture", "{}/a.txt"), 1, ".png"),
        (("--picture", "{}/no/a.png"), 1, "Create it first"),
        (("",), 1, "PROMPTS"),
        (("--address", "127.0.0.1:1"), 1, "before any load, failed: No server answers"),
        (("--address", "nonsense"), 1, "host:port"),
    ],
)
def test_a_mistake_is_one_clear_line_and_no_load(
    run: Run, stage: Any, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    got, out, err = run(*(argument.format(tmp_path) for argument in arguments))
    assert (got, out) == (status, "")
    assert said in err
    assert "Traceback" not in err
    assert [line[:9] for line in err.splitlines() if line.strip()] == ["stretto: "]
    assert stage.requests == []
    assert list(tmp_path.iterdir()) == []

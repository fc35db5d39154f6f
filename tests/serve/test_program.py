"""The program that serves: who may be let in, what is checked before models are loaded, what it says."""

import json
import re
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decode import serve
from sia_jax.runs import runner
from sia_jax.runs.cli import read_options
from sia_jax.serve.lifecycle import open_socket
from sia_jax.serve.settings import Settings
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.tilts import Advantage, Clipped
from sia_jax.world.files import world_models
from tests.support.tiny_app import StubEngine, fetched, tiny_app
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serve.KEYS, raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> str:
    file = tmp_path / "keys"
    file.write_text("sesame-open-1\nsesame-open-2\n")
    file.chmod(0o600)
    return str(file)


def refusal(args: serve.Args) -> str:
    with pytest.raises(SystemExit) as ended:
        serve.main(args)
    return str(ended.value.code)


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_a_host_that_others_reach_without_keys_is_refused_with_the_remedy(host: str) -> None:
    said = refusal(serve.Args(host=host, port=0))
    assert said.startswith(f"decode.serve: --host {host} can be reached by others, and there are no keys")
    assert "give --keys FILE, or --open" in said


@pytest.mark.parametrize(("given", "digests"), [({"open": True}, 0), ({}, 1), ({"host": "127.0.0.1"}, 0)])
def test_it_is_served_where_it_is_meant_to(given: dict[str, Any], digests: int) -> None:
    serve.check_open(serve.Args(**{"host": "0.0.0.0"} | given), [b"x" * 32] * digests)


@pytest.mark.usefixtures("no_loading")
def test_keys_and_none_at_the_same_time_are_refused(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "leave out --open" in refusal(serve.Args(keys=keys, open=True))
    monkeypatch.setenv(serve.KEYS, "sesame-open-3")
    assert "leave out --open" in refusal(serve.Args(open=True))


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": 65536}, "--port must be at most 65535, got 65536"),
        ({"port": -1}, "--port must be 0 or more, got -1"),
        ({"rows": 0}, "--rows must be 1 or more, got 0"),
        ({"top_logprobs": -1}, "--top-logprobs must be 0 or more"),
        ({"name": ""}, "--name must not be empty"),
        ({"keys": "nowhere"}, "nowhere: no such file of keys"),
        ({"policy": "nowhere"}, "nowhere"),
        ({"policy": "p", "threshold": 1.0}, "--threshold 1 steers, which needs a value model"),
        ({"temperature": -1.0}, "--temperature must be"),
        ({"gate": "sometimes"}, "--gate"),
    ],
)
def test_what_is_wrong_with_options_is_said_before_models_are_loaded(
    given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said in refusal(serve.Args(**{"port": 0} | given))


@pytest.mark.usefixtures("no_loading")
def test_a_port_that_is_taken_is_found_before_models_are_loaded() -> None:
    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1, port {port}: Address already in use; give another --port" in refusal(
            serve.Args(port=port)
        )


def test_limits_are_options_of_their_own_names(capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split("--max-n 4 --drain-seconds 1.5 --no-page-open --max-prompt-tokens 99 --log-prompts")
    changes = dict(max_n=4, drain_seconds=1.5, page_open=False, max_prompt_tokens=99, log_prompts=True)
    assert read_options(serve.Args, words).limits == replace(Settings(), **changes)
    with pytest.raises(SystemExit):
        read_options(serve.Args, ["--max-n", "0"])
    assert "max_n must be 1 or more, got 0" in " ".join(capsys.readouterr())


def test_without_a_policy_it_is_the_embedded_world_at_its_calibrated_threshold() -> None:
    folder = world_models()
    found = serve.sampling_args(serve.Args())
    assert (found.policy, found.value) == (str(folder / "policy"), str(folder / "value-token"))
    facts = json.loads((folder / "thresholds.json").read_text())
    (threshold,) = (one["threshold"] for one in facts["thresholds"] if one["ratio"] == 0.2)
    assert found.threshold == threshold
    assert serve.sampling_args(serve.Args(threshold=0.7)).threshold == 0.7
    assert serve.sampling_args(serve.Args(gate="always")).threshold is None
    assert serve.sampling_args(serve.Args(value="mine")).value == "mine"
    other = serve.sampling_args(serve.Args(policy="p", value="v"))
    assert (other.policy, other.value, other.threshold) == ("p", "v", None)


def test_every_option_of_models_and_numbers_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}
    monkeypatch.setattr(serve.sia_jax, "Engine", lambda policy, value, **options: got.update(options))
    args = serve.Args(
        **dict(temperature=0.5, top_k=7, beta=2.5, min_new_tokens=3, tilt_bound=1.5, num_candidates=6),
        **dict(rows=3, max_length=99, top_logprobs=5, max_logit_bias=9, record=False, prefix_caching=True),
        threshold=0.25,
    )
    policy = SimpleNamespace(config=SimpleNamespace(eos_token_ids=(1, 2)), tokenizer=None)
    serve.make_engine(args, serve.sampling_args(args), runner.Models(policy, None))  # type: ignore[arg-type]
    steering = got.pop("steering")
    assert (steering.temperature, steering.top_k, steering.beta, steering.min_new_tokens) == (0.5, 7, 2.5, 3)
    assert (steering.tilt, steering.num_candidates) == (Clipped(1.5, Advantage()), 6)
    assert (steering.top_p, steering.min_p) == (1.0, 0.0)
    assert got == {
        **dict(rows=3, max_length=99, threshold=0.25, record=None, max_stop_ids=34, max_logit_bias=9),
        **dict(prefix_caching=True, top_logprobs=5),
    }


class Loaded(StubEngine):
    """Of the program's own making."""

    lengths = (256, 512)
    value = SimpleNamespace(name="value-token")
    policy = SimpleNamespace(name="policy", tokenizer=None)
    tokenizing = threading.Lock()
    terms = SimpleNamespace(value=value, config=SimpleNamespace(steering=SteeringConfig()))


def served(
    args: serve.Args, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[int, Any], None]
) -> StubEngine:
    """Run the program with a stub for its engine; `meanwhile` gets its port and its service, in a thread."""
    engine, made = Loaded(), list[Any]()
    monkeypatch.setattr(serve.runner, "load_models", lambda args: None)
    monkeypatch.setattr(serve, "make_engine", lambda *_: engine)

    def create_app(service: Any, *, keyed: bool) -> Any:
        made.append(service)
        return tiny_app(service)

    monkeypatch.setattr(serve, "create_app", create_app)
    opened = serve.open_socket

    def opening(host: str, port: int) -> Any:
        listening = opened(host, port)
        made.append(listening.getsockname()[1])
        return listening

    monkeypatch.setattr(serve, "open_socket", opening)
    failures: list[BaseException] = []

    def watch() -> None:
        wait_until(lambda: len(made) == 2)
        try:
            meanwhile(*made)
        except BaseException as error:
            failures.append(error)
        made[1].settings = Settings(dead_seconds=0.0)
        engine.failure = RuntimeError("of the test")

    thread = threading.Thread(target=watch)
    thread.start()
    with pytest.raises(SystemExit, match=r"^decode\.serve: the engine has failed: of the test$"):
        serve.main(args)
    thread.join(20)
    assert not failures, failures
    return engine


def test_it_says_what_it_serves_where_and_how_to_try_it(
    keys: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports: list[int] = []

    def meanwhile(port: int, service: Any) -> None:
        wait_until(lambda: service.state.value == "ready")
        assert fetched(port, "/health")[0] == 200
        assert fetched(port, "/v1/whole", "POST")[0] == 401
        ports.append(port)

    engine = served(serve.Args(port=0, keys=keys, rows=4), monkeypatch, meanwhile)
    assert engine.closed
    said = capsys.readouterr()
    url = f"http://127.0.0.1:{ports[0]}"
    assert said.out.startswith("policy, steered by value-token: models world, world-sia\n4 replies at a time")
    assert f"The page: {url}/\n" in said.out
    (command,) = re.findall(r"curl (?:.*\\\n)*.*", said.out)
    words = shlex.split(command)
    assert words[1] == f"{url}/v1/chat/completions"
    assert "Authorization: Bearer $KEY" in words
    body = json.loads(words[-1])
    assert (body["model"], body["messages"][0]["role"]) == ("world-sia", "user")
    assert re.search(r"^\S+Z GET /health 200 seconds=\S+ id=\w+$", said.err, re.MULTILINE)
    assert re.search(r"^\S+Z POST /v1/whole 401 ", said.err, re.MULTILINE)
    assert "ready after" in said.err


def test_the_log_may_be_json_and_names_may_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def meanwhile(port: int, service: Any) -> None:
        wait_until(lambda: service.state.value == "ready")
        assert fetched(port, "/health")[0] == 200
        assert service.metrics.model_name == "mine"

    served(serve.Args(port=0, log="json", name="mine"), monkeypatch, meanwhile)
    said = capsys.readouterr()
    assert "models mine, mine-sia" in said.out
    assert "Bearer" not in said.out
    lines = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert [(line["route"], line["status"]) for line in lines] == [("/health", 200)]


def test_presets_that_cannot_be_read_close_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Loaded()
    monkeypatch.setattr(serve.runner, "load_models", lambda args: None)
    monkeypatch.setattr(serve, "make_engine", lambda *_: engine)
    assert "nowhere" in refusal(serve.Args(port=0, presets="nowhere"))
    assert engine.closed

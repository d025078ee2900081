"""The server: the runtime's answers over HTTP, sentences for bad requests, limits, and nothing lost at its end.

The reference is the runtime on the same folder, in single precision, where a batch does not change an answer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from tiny import tiny_model, tiny_tokenizer
from urllib3 import PoolManager
from urllib3.util import Retry

from hf_rnn_seq2seq.data.tokenizers import save_tokenizers
from hf_rnn_seq2seq.recipes.command_line import main as command_line
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.pronounce import Lexicon, normalizer_of
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime
from hf_rnn_seq2seq.sharing.server import create_app
from hf_rnn_seq2seq.sharing.service import GenerateRequest, ServerOptions, Service


ROOT = Path(__file__).parents[2]
TEXTS = ["abc", "h", "deadbeef", "cafe", "fade", "bad"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of letters whose targets end, exported in single precision."""
    folder = tmp_path_factory.mktemp("served")
    model = tiny_model("luong", dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.bias[:3] -= 20  # special symbols are none of a target
        model.lm_head.bias[3] += 1
    model.generation_config.max_new_tokens = 12
    model.save_pretrained(folder / "model")
    save_tokenizers(folder / "model", tiny_tokenizer(), tiny_tokenizer())
    return export_model(folder / "model", folder / "out", quantize=None)


@pytest.fixture(scope="module")
def runtime(exported: Path) -> RnnSeq2SeqRuntime:
    return RnnSeq2SeqRuntime.from_pretrained(exported)


class Server:
    """The application in this process."""

    def __init__(self, exported: Path, entries: dict[str, list[str]] | None = None, **options: Any) -> None:
        runtime = RnnSeq2SeqRuntime.from_pretrained(exported)
        lexicon = Lexicon(normalizer_of(runtime), entries)
        self.service = Service(runtime, ServerOptions(**options), lexicon)
        self.client = TestClient(create_app(self.service), raise_server_exceptions=False)

    def __enter__(self) -> Server:
        self.client.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.client.__exit__(*error)

    def post(self, content: Any, path: str = "/generate") -> tuple[int, Any]:
        body = content if isinstance(content, (str, bytes)) else json.dumps(content)
        answer = self.client.post(path, content=body, headers={"Content-Type": "application/json"})
        return answer.status_code, answer.json()

    def metrics(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {
            " ".join([sample.name.removeprefix("rnn_seq2seq_"), *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with Server(exported) as started:
        yield started


def wanted(runtime: RnnSeq2SeqRuntime, texts: list[str], **options: Any) -> list[list[Any]]:
    return [
        [(hypothesis.text, pytest.approx(hypothesis.score, abs=1e-5)) for hypothesis in ranked]
        for ranked in runtime.generate(texts, **options)
    ]


def told(answer: tuple[int, Any]) -> list[list[Any]]:
    status, content = answer
    assert status == 200, content
    assert all(one["from"] == "model" for ranked in content["predictions"] for one in ranked)
    return [[(one["text"], one["score"]) for one in ranked] for ranked in content["predictions"]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 3, "length_penalty": 2, "early_stopping": "never", "max_new_tokens": 5, "min_new_tokens": 2},
        {"do_sample": True, "seed": 3, "temperature": 1.5, "top_k": 5, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_answers_are_the_runtime_s(server: Server, runtime: RnnSeq2SeqRuntime, options: dict[str, Any]) -> None:
    assert told(server.post({"text": "deadbeef", **options})) == wanted(runtime, ["deadbeef"], **options)
    if "seed" not in options:
        assert told(server.post({"texts": TEXTS, **options})) == wanted(runtime, TEXTS, **options)


def test_many_clients_share_batches_and_each_gets_its_own_answer(server: Server, runtime: RnnSeq2SeqRuntime) -> None:
    asked = [
        {"text": text, **options}
        for text in TEXTS * 5
        for options in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "seed": 7})
    ]
    before = server.metrics()
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(server.post, asked))
    for request, answer in zip(asked, answers, strict=True):
        text, options = request["text"], {name: value for name, value in request.items() if name != "text"}
        assert told(answer) == wanted(runtime, [text], **options)
    after = server.metrics()
    batches, texts = (after[f"batch_size_{part}"] - before[f"batch_size_{part}"] for part in ("count", "sum"))
    assert texts == len(asked) and batches < texts
    assert after["requests_total /generate 200"] - before["requests_total /generate 200"] == len(asked)


def test_a_stream_gives_the_text_in_pieces(server: Server, runtime: RnnSeq2SeqRuntime) -> None:
    for text in TEXTS:
        with server.client.stream("POST", "/stream", json={"text": text, "max_new_tokens": 9}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
        assert list(events[-1]) == ["done"]
        assert "".join(event["text"] for event in events[:-1]) == events[-1]["done"]
        assert events[-1]["done"] == runtime.generate(text, max_new_tokens=9)[0][0].text
    assert server.metrics()["streams"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "body: got no JSON (Expecting ',' delimiter at byte 2), wanted an object such as"),
        ([], "body: got no JSON object"),
        ({}, "text, texts: got none, wanted one of them"),
        ({"text": "a", "texts": ["a"]}, "text, texts: got both, wanted one of them"),
        ({"text": 5}, "text: got 5, wanted a valid string"),
        ({"texts": ["a", None]}, "texts.1: got null, wanted a valid string"),
        ({"texts": []}, "texts: got 0, wanted 1 to 64"),
        ({"texts": ["a"] * 65}, "texts: got 65, wanted 1 to 64"),
        ({"text": " "}, "source 0 is empty"),
        ({"texts": ["a", ""]}, "source 1 is empty"),
        ('{"text": "\\ud800"}', "text 0: got half a character"),
        ({"text": "a" * 2000}, "text 0: got 2001 symbols, wanted at most 1000"),
        ({"text": "a", "beams": 2}, "beams: got an unknown field, wanted one of text, texts, num_beams"),
        ({"text": "a", "num_beams": 2.5}, "num_beams: got 2.5, wanted a valid integer"),
        ({"text": "a", "num_beams": True}, "num_beams: got true, wanted a valid integer"),
        ({"text": "a", "num_beams": 0}, "num_beams must be at least 1; got 0"),
        ({"text": "a", "num_beams": 17}, "num_beams: got 17, wanted at most 16"),
        ({"text": "a", "num_return_sequences": 2}, "num_return_sequences=2 is more than num_beams=1"),
        ({"text": "a", "max_new_tokens": 257}, "max_new_tokens: got 257, wanted at most 256"),
        ({"text": "a", "seed": -1}, "seed: got -1, wanted greater than or equal to 0"),
        ('{"text": "a", "length_penalty": NaN}', "length_penalty: got NaN, wanted a finite number"),
        ({"text": "a", "length_penalty": 1e308}, "length_penalty: got 1e+308, wanted less than or equal to 100"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("path", ["/generate", "/stream"])
def test_a_bad_request_gets_one_sentence(server: Server, path: str, content: Any, message: str) -> None:
    status, answer = server.post(content, path)
    if path == "/stream" and isinstance(content, dict) and "texts" in content and "text" not in content:
        message = "texts" if None in content["texts"] else "texts: a stream is of one text"
    assert status == 400 and list(answer) == ["error"]
    assert message in answer["error"] and "\n" not in answer["error"]


def test_a_stream_is_of_one_hypothesis(server: Server) -> None:
    status, answer = server.post({"text": "a", "num_beams": 2}, "/stream")
    assert status == 400 and "a stream is of one hypothesis" in answer["error"]


def test_what_is_not_there_is_told_as_json(server: Server) -> None:
    assert server.client.get("/nothing").json() == {"error": "Not Found"}
    assert server.client.get("/generate").status_code == 405
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/").json()["limits"]["max_texts"] == 64


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_large_slow_and_too_many_requests_are_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(exported, max_body_bytes=100, timeout=2, max_queue=1, max_streams=1) as server:
        status, answer = server.post({"text": "a" * 100})
        assert (status, answer) == (413, {"error": "body: got more than 100 bytes, wanted no more"})
        release, generate = threading.Event(), server.service.runtime.generate
        reached = threading.Event()

        def slow(*args: Any, **options: Any) -> Any:
            reached.set()
            release.wait(20)
            return generate(*args, **options)

        monkeypatch.setattr(server.service.runtime, "generate", slow)
        with ThreadPoolExecutor(3) as clients:
            # One is at work, one waits, one is too many.
            answers = [clients.submit(server.post, {"text": "a"})]
            assert reached.wait(10)
            for _ in range(2):
                answers.append(clients.submit(server.post, {"text": "a"}))
                wait_until(lambda: len(server.service.batcher) == 1)
            statuses = [future.result() for future in answers]
        assert [status for status, _ in statuses] == [504, 504, 503]
        assert statuses[0][1] == {"error": "no answer within 2 s: ask for less, or later"}
        assert statuses[2][1] == {"error": "too much at once: 1 requests wait, wanted at most 1"}
        release.set()
        assert server.post({"text": "a"})[0] == 200
        assert server.metrics()["requests_total /generate 504"] == 2

        def endless(*_: Any, **__: Any) -> Iterator[str]:
            while True:
                time.sleep(0.05)
                yield "a"

        monkeypatch.setattr(server.service.runtime, "stream", endless)
        with ThreadPoolExecutor(2) as clients:
            first = clients.submit(server.client.post, "/stream", json={"text": "a"})
            wait_until(lambda: server.service.streams == 1)
            assert server.post({"text": "a"}, "/stream")[0] == 503
            assert first.result().text.endswith('{"error": "not done within 2 s: ask for less, or later"}\n\n')
        assert server.service.streams == 0


def test_a_failure_of_the_model_is_the_server_s(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    with Server(exported) as server:
        monkeypatch.setattr(server.service.runtime, "generate", broken)
        assert server.post({"text": "a"}) == (500, {"error": "the server failed; its log says more"})
        assert server.metrics()["requests_total /generate 500"] == 1


def test_the_lexicon_goes_before_the_model(exported: Path, runtime: RnnSeq2SeqRuntime) -> None:
    with Server(exported, entries={"abc": ["x", "y", "z"], "e\u0301": ["é"]}) as server:
        search = {"num_beams": 2, "num_return_sequences": 2}
        status, content = server.post({"texts": ["cafe", " abc ", "\u00e9"], **search})
        assert status == 200
        model, *known = content["predictions"]
        assert [one["text"] for one in model] == [text for text, _ in wanted(runtime, ["cafe"], **search)[0]]
        entry = {"score": None, "log_probability": None, "from": "lexicon"}
        assert known == [[{"text": "x", **entry}, {"text": "y", **entry}], [{"text": "é", **entry}]]
        assert server.metrics()["lexicon_answers_total"] == 2
        assert 'data: {"done": "x"}' in server.client.post("/stream", json={"text": "abc"}).text
        assert server.client.get("/").json()["lexicon"] == 2


def test_the_lexicon_compares_texts_as_the_model_reads_them(runtime: RnnSeq2SeqRuntime, tmp_path: Path) -> None:
    from hf_rnn_seq2seq.data.tokenizers import TokenizerOptions, train_tokenizer

    lower = train_tokenizer(["abc"], TokenizerOptions("character", lowercase=True)).backend_tokenizer
    one = RnnSeq2SeqRuntime(runtime.encoder, runtime.decoder_step, runtime.settings, runtime.generation, lower, lower)
    file = tmp_path / "lexicon.tsv"
    file.write_bytes(b"\xef\xbb\xbfAbc\tone\r\n\r\nABC\ttwo\n")
    lexicon = Lexicon.read(file, normalizer_of(one))
    assert lexicon.get("aBc") == ["one", "two"] and lexicon.get("ab") is None and len(lexicon) == 1
    assert Lexicon.read(file, normalizer_of(runtime)).get("abc") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc x\n", "line 1: got 'abc x', wanted a text, a tab and its answer"),
        (b"a\tb\n\nc\td\te\n", "line 3: got "),
        (b" \tb\n", "line 1: got "),
        (b"\xff\tb\n", "not UTF-8"),
    ],
)
def test_a_bad_lexicon_is_refused(exported: Path, tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "lexicon.tsv"
    file.write_bytes(content)
    with pytest.raises(SystemExit, match=f"error: .*lexicon.tsv.*{message}"):
        command_line(["serve", str(exported), "--port", "0", "--lexicon", str(file)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{empty}"], "error: .* holds no runtime_config.json"),
        (["{exported}", "--max_texts", "0"], "error: max_texts: got 0, wanted more than 0"),
        (["{exported}", "--lexicon", "nowhere.tsv"], "error: .*nowhere.tsv"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(
    exported: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        command_line(["serve", *(one.format(empty=tmp_path, exported=exported) for one in arguments)])


# ---- In a process of its own: the layout of the Dockerfile, where neither torch nor transformers is there -----------

_PROGRAM = (
    "import sys\n"
    "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'hf_rnn_seq2seq', 'onnx']))\n"
    "from served.sharing.server import main\n"
    "main(sys.argv[1:])\n"
)


@pytest.fixture
def start(exported: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    root = Path(__file__).parents[2]
    dockerfile = (root / "scripts" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for files, target in re.findall(r"^COPY (hf_rnn_seq2seq/.*) (\S+)$", dockerfile, re.MULTILINE):
        (tmp_path / target).mkdir(parents=True)
        for file in files.split():
            shutil.copy(root / file, tmp_path / target)
    started = []

    def run(*options: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", _PROGRAM, str(exported), "--port", str(port), *options]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().rpartition(" ")[2].strip()

    yield run
    for process in started:
        process.kill()
        process.communicate()


LONG = {"max_new_tokens": 200, "min_new_tokens": 200}


def test_what_is_in_flight_at_sigterm_is_answered(start: Callable[..., Any], runtime: RnnSeq2SeqRuntime) -> None:
    process, address = start("--max_batch_size", "1")
    pool = PoolManager(maxsize=32, retries=False)

    def ask(number: int) -> Any:
        answer = pool.request("POST", f"{address}/generate", json={"text": TEXTS[number % len(TEXTS)], **LONG})
        return answer.status, answer.json()

    with ThreadPoolExecutor(32) as clients:
        answers = [clients.submit(ask, number) for number in range(32)]
        while " 31.0" not in urllib.request.urlopen(f"{address}/metrics").read().decode().partition("waiting")[2]:
            if sum(answer.done() for answer in answers) > 8:
                break
        process.send_signal(signal.SIGTERM)
        found = [answer.result() for answer in answers]
    assert process.wait(20) == 0
    expected = wanted(runtime, TEXTS, **LONG)
    assert [told(answer) for answer in found] == [[expected[number % len(TEXTS)]] for number in range(32)]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_clients_that_ask_again_lose_nothing_when_it_is_killed_and_restarted(
    start: Callable[..., Any], runtime: RnnSeq2SeqRuntime, end: signal.Signals
) -> None:
    process, address = start("--max_batch_size", "2")
    retries = Retry(total=60, backoff_factor=0.1, backoff_max=0.5, allowed_methods=None, status_forcelist=[503])
    pool = PoolManager(maxsize=16, retries=retries)

    def ask(number: int) -> Any:
        answer = pool.request("POST", f"{address}/generate", json={"text": TEXTS[number % len(TEXTS)], **LONG})
        return answer.status, answer.json()

    with ThreadPoolExecutor(16) as clients:
        answers = [clients.submit(ask, number) for number in range(96)]
        while sum(answer.done() for answer in answers) < 16:
            time.sleep(0.01)
        process.send_signal(end)
        process.wait(20)
        assert sum(answer.done() for answer in answers) < 96
        start("--max_batch_size", "2", port=int(address.rpartition(":")[2]))
        found = [answer.result() for answer in answers]
    expected = wanted(runtime, TEXTS, **LONG)
    assert [told(answer) for answer in found] == [[expected[number % len(TEXTS)]] for number in range(96)]


def test_a_taken_port_is_told_in_a_sentence(start: Callable[..., Any], exported: Path) -> None:
    _, address = start()
    with pytest.raises(SystemExit, match=r"error: --port: .*in use"):
        command_line(["serve", str(exported), "--port", address.rpartition(":")[2]])


def test_the_page_about_the_server_is_true() -> None:
    page = (ROOT / "docs/server.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `--(\w+)` \| (\S+) \|", page, re.MULTILINE))
    assert {one.name: str(one.default) for one in fields(ServerOptions)}.items() <= said.items()
    assert {"host", "port", "lexicon", "num_threads"} == said.keys() - {one.name for one in fields(ServerOptions)}
    asked = re.findall(r"`(\w+)`", page[page.index("A request may also set") : page.index("A stream is greedy")])
    assert {*asked, "text", "texts"} - {"generate"} == set(GenerateRequest.model_fields)
    loads = json.loads((ROOT / "scripts/results/serving.json").read_text(encoding="utf-8"))["loads"]
    for model, clients, *numbers in re.findall(
        r"^\| ([AB]) \| (\d+)" + r" \| ([\d.]+)" * 6 + r" \|$", page, re.MULTILINE
    ):
        kept = [
            load for load in loads if (load["model"], load["format"], load["clients"]) == (model, "int8", int(clients))
        ]
        kept.sort(key=lambda load: -load["max_batch_size"])
        exact = [load[name] for load in kept for name in ("per_second", "p50", "p99")]
        assert len(exact) == 6 and all(
            abs(float(number) - value) <= 0.5 * 10.0 ** -len(number.partition(".")[2]) + 1e-9
            for number, value in zip(numbers, exact)
        )

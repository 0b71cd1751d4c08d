"""`Llama` around the reference engine: words, limits, stop strings, streaming, statistics."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoints import SMALL, random_tensors, write_checkpoint
from reference import ReferenceEngine, build

from gllm_kernels.errors import FormatError, GllmError, ShapeError
from gllm_kernels.model.llama import TINY, Llama
from gllm_kernels.model.stats import Pace, Stats, peak_bytes
from gllm_kernels.model.stops import StopGate


@pytest.fixture(scope="module")
def tiny() -> Llama:
    return Llama(TINY, build=build)


@pytest.fixture
def small(tmp_path: Path) -> Llama:
    return Llama(write_checkpoint(tmp_path), build=build)


def text(llm: Llama, prompt: object = "\ndef", **options: object) -> str:
    return "".join(llm.generate(prompt, **{"seed": 1, "max_tokens": 24} | options))


def test_greedy_text_is_the_argmax_chain(tiny: Llama) -> None:
    ids = tiny.tokenize("import os\n")
    chain = list(ids)
    for _ in range(10):
        chain.append(int(np.argmax(tiny.logits(chain)[-1])))
    assert text(tiny, "import os\n", temp=0, max_tokens=10) == tiny.detokenize(chain[len(ids) :])


def test_seed_and_chunks_do_not_change_the_text(tiny: Llama) -> None:
    first = text(tiny, "class Stack:\n    def __init__(self")
    assert text(tiny, "class Stack:\n    def __init__(self") == first
    assert text(tiny, "class Stack:\n    def __init__(self", seed=2) != first
    narrow = Llama(TINY, n_batch=3, build=build)
    assert text(narrow, "class Stack:\n    def __init__(self") == first


def test_a_prompt_may_be_tokens(tiny: Llama) -> None:
    assert text(tiny, tiny.tokenize("\ndef")) == text(tiny, "\ndef")
    assert text(tiny, np.array(tiny.tokenize("\ndef"))) == text(tiny, "\ndef")


def test_logits_of_all_rows_equal_those_of_one_at_a_time(small: Llama) -> None:
    tokens = [5, 300, 17, 5, 1, 330, 0]
    rows = small.logits(tokens)
    assert rows.shape == (7, 331) and rows.dtype == np.float32
    small.reset()
    steps = [small.eval(tokens[:2]), *(small.eval([t]) for t in tokens[2:])]
    np.testing.assert_allclose(np.array(steps), rows[1:], atol=1e-5)


def test_chunked_logits(tmp_path: Path, small: Llama) -> None:
    narrow = Llama(small.path, n_batch=3, build=build)
    tokens = list(range(1, 12))
    np.testing.assert_allclose(narrow.logits(tokens), small.logits(tokens), atol=1e-5)


@pytest.mark.parametrize("heads", [(6, 6), (6, 3), (6, 1)])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_transformers(tmp_path: Path, heads: tuple[int, int], tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    changes = {"num_key_value_heads": heads[1], "tie_word_embeddings": tied, "rope_theta": 777.0}
    write_checkpoint(tmp_path, random_tensors(SMALL | changes), **changes)
    model = transformers.LlamaForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32)
    llm = Llama(tmp_path, build=build)
    for length in (1, 7, 64):
        tokens = np.random.default_rng(length).integers(0, 331, length)
        with torch.no_grad():
            wanted = model(torch.from_numpy(tokens)[None]).logits[0].numpy()
        np.testing.assert_allclose(llm.logits(tokens), wanted, atol=1e-4)


# --- limits -------------------------------------------------------------------------------------


def test_n_ctx(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    assert Llama(tmp_path, build=build).n_ctx == 128
    assert Llama(tmp_path, n_ctx=16, build=build).n_ctx == 16
    with pytest.raises(ShapeError, match="n_ctx=129: .*128 positions; use n_ctx from 1 to 128"):
        Llama(tmp_path, n_ctx=129, build=build)
    for name, value in [("n_ctx", -1), ("n_ctx", 1.5), ("n_threads", -1), ("n_batch", 0)]:
        with pytest.raises(ShapeError, match=f"{name}={value}: expected an integer"):
            Llama(tmp_path, build=build, **{name: value})


def test_the_text_ends_with_the_context(small: Llama) -> None:
    for prompt, room in (([7] * 120, 8), ([7] * 127, 1)):
        for most in (None, -1, 99):
            count = len(list(small.generate(prompt, max_tokens=most, seed=2)))
            assert 0 < count <= room
            if small.stats.finish != "end of text":
                assert small.stats.finish == "context full"
                assert small.stats.decode.tokens == room - 1
    list(small.generate([7], max_tokens=5, seed=2))
    assert small.stats.finish in ("max_tokens", "end of text")
    assert list(small.generate([7], max_tokens=0)) == []


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "prompt is empty"),
        ([], "prompt is empty"),
        ("x" * 128, "prompt needs room for 129 tokens, n_ctx is 128: shorten it"),
        ([331], r"prompt\[0\] is token 331"),
        ([1, -1], r"prompt\[1\] is token -1"),
        ([[1]], "prompt: expected a sequence of token ids"),
        ([0.5], "prompt: expected a sequence of token ids"),
    ],
)
def test_prompts_are_refused_before_the_first_piece(
    small: Llama, prompt: object, words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        small.generate(prompt)


def test_a_short_context_says_how_far_it_can_grow(tmp_path: Path) -> None:
    llm = Llama(write_checkpoint(tmp_path), n_ctx=4, build=build)
    with pytest.raises(ShapeError, match="load with n_ctx up to 128"):
        llm.generate("abcd")
    with pytest.raises(ShapeError, match="tokens needs room for 5 tokens, n_ctx is 4"):
        llm.logits([1] * 5)
    llm.eval([1, 2, 3])
    with pytest.raises(ShapeError, match="2 tokens behind 3 in the context"):
        llm.eval([1, 2])
    llm.reset()
    llm.eval([1, 2])


def test_other_arguments(small: Llama) -> None:
    for name, value in [("max_tokens", -2), ("max_tokens", 1.0), ("temp", -1), ("top_p", 3)]:
        with pytest.raises(ShapeError, match=f"{name}={value}"):
            small.generate("a", **{name: value})
    for stop in ("", ["a", ""], [3], 5, b"x", None):
        with pytest.raises(ShapeError, match="stop="):
            small.generate("a", stop=stop)


def test_arguments_of_another_type(small: Llama) -> None:
    for path in (None, 5, b"x"):
        with pytest.raises(ShapeError, match=f"path={path!r}: expected the directory"):
            Llama(path, build=build)
    for given in (None, 5, b"x"):
        with pytest.raises(ShapeError, match=f"text={given!r}: expected str"):
            small.tokenize(given)
    for tokens in (None, 5, "a", b"a", [0.5], [None], [[1], [1, 2]], [1 << 70]):
        for taking in (small.detokenize, small.logits, small.eval):
            with pytest.raises(ShapeError, match="tokens.*expected a sequence of token ids"):
                taking(tokens)
    assert small.detokenize([]) == "" and small.detokenize(np.array([66])) == "A"


def test_zero_threads_is_automatic(tmp_path: Path) -> None:
    llm = Llama(write_checkpoint(tmp_path), n_threads=0)
    assert llm.stats.threads == Llama(tmp_path, n_threads=None).stats.threads >= 1


def test_tokens_that_only_the_tokenizer_has(small: Llama) -> None:
    path = small.path / "tokenizer.json"
    fields = json.loads(path.read_text())
    row = {"content": "<extra>", "special": False, "normalized": False}
    for id in (331, 1 << 22):
        path.write_text(json.dumps(fields | {"added_tokens": [row | {"id": id}]}))
        llm = Llama(small.path, build=build)
        assert llm.tokenize("a<extra>")[-1] == id
        with pytest.raises(ShapeError, match=rf"prompt\[1\] is token {id}; .*0 to 330 \(the rows"):
            llm.generate("a<extra>")
        with pytest.raises(ShapeError, match=rf"tokens\[1\] is token {id}"):
            llm.logits([1, id])
        assert text(llm, "a") == text(small, "a")


def test_nan_weights_and_unknown_architectures_do_not_load(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors["model.norm.weight"][0] = np.nan
    with pytest.raises(FormatError, match="model.norm.weight.*value 0 is nan"):
        Llama(write_checkpoint(tmp_path / "a", tensors), build=build)
    with pytest.raises(FormatError, match="BloomForCausalLM.*LlamaForCausalLM"):
        Llama(
            write_checkpoint(
                tmp_path / "b", random_tensors(SMALL), architectures=["BloomForCausalLM"]
            ),
            build=build,
        )


def test_overflowing_weights_are_noticed(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors["lm_head.weight"][:] = 3e38
    llm = Llama(write_checkpoint(tmp_path, tensors), build=build)
    with np.errstate(all="ignore"), pytest.raises(GllmError, match="logits are not finite"):
        text(llm, "a")


# --- ends ---------------------------------------------------------------------------------------


class Scripted(ReferenceEngine):
    """Says these tokens, whatever it reads."""

    script: tuple[int, ...] = ()

    def forward(self, tokens: np.ndarray, position: int, every_row: bool) -> np.ndarray:
        logits = np.zeros((1, self.config.vocab_size), np.float32)
        logits[0, self.script[position + len(tokens) - 1]] = 50
        return logits


def scripted(path: Path, said: str, **changes: object) -> Llama:
    """A model that says `said` behind a prompt of one token, then the end of text."""

    def make(config: object, weights: object, *, n_ctx: int, **_: object) -> Scripted:
        engine = Scripted(config, weights, n_ctx)
        engine.script = tuple(byte + 1 for byte in said.encode()) + (0,)
        return engine

    return Llama(write_checkpoint(path, **changes), build=make)


def test_end_of_text_is_not_shown(tmp_path: Path) -> None:
    llm = scripted(tmp_path, "héllo")
    assert "".join(llm.generate("x", temp=0)) == "héllo"
    assert llm.stats.finish == "end of text"
    assert "".join(llm.generate("x", temp=0, max_tokens=2)) == "h\ufffd"
    assert llm.stats.finish == "max_tokens"


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        ("\n\n", "ab\nc"),
        (["zz", "c\n"], "ab\n"),
        ("abc", "ab\nc\n\nd"),
        ("d", "ab\nc\n\n"),
        ("d\n", "ab\nc\n\nd"),
        ({"c", "d"}, "ab\n"),
        (("b", "ab"), ""),
    ],
)
def test_stop_strings(tmp_path: Path, stop: object, shown: str) -> None:
    llm = scripted(tmp_path, "ab\nc\n\nd")
    assert "".join(llm.generate("x", temp=0, stop=stop)) == shown


def test_the_gate_holds_back_no_more_than_it_must() -> None:
    gate = StopGate(("aab",))
    assert [gate.push(c) for c in "xaaab"] == ["x", "", "", "a", ""]
    assert gate.hit and gate.push("y") == "" and gate.end("") == ""
    open_end = StopGate(("aab",))
    assert open_end.push("xa") == "x" and open_end.end("a") == "aa"


def test_a_new_text_ends_the_one_before(tiny: Llama) -> None:
    first = tiny.generate("\ndef", max_tokens=20, seed=1)
    next(first)
    expected = text(tiny, "import")
    with pytest.raises(GllmError, match="another call took over"):
        list(first)
    assert text(tiny, "import") == expected


def test_threads_get_an_error_or_their_text(tiny: Llama) -> None:
    wanted = text(tiny, "\nclass", max_tokens=12)
    found: list[object] = []

    def run() -> None:
        try:
            found.append(text(tiny, "\nclass", max_tokens=12))
        except GllmError as error:
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(isinstance(f, GllmError) or f == wanted for f in found)


# --- statistics ---------------------------------------------------------------------------------


def test_stats(tiny: Llama) -> None:
    text(tiny, "\ndef", max_tokens=9, seed=3)
    stats = tiny.stats
    assert stats.seed == 3 and stats.load_s > 0
    assert stats.prefill.tokens == len(tiny.tokenize("\ndef")) and stats.decode.tokens <= 8
    assert stats.prefill.seconds > 0 and stats.decode.seconds > 0
    assert peak_bytes() > 10 << 20


def test_stats_as_a_line() -> None:
    stats = Stats(0.5, 0.25, 2, 3_000_000_000, Pace(10, 2.0), Pace(40, 8.0))
    assert stats.read_gb_s == 15.0
    line = str(stats)
    for part in (
        "load 0.50 s",
        "compile 0.25 s",
        "prefill 5.0 t/s",
        "decode 5.0 t/s",
        "15.00 GB/s",
    ):
        assert part in line
    assert "peak" in line and "\n" not in line
    assert "0 tokens" in str(Stats(0.0, 0.0, 1, 1))

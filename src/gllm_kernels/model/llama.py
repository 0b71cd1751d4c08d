"""`Llama`: a checkpoint that continues text.

    llm = Llama("path/to/checkpoint")
    for piece in llm.generate("def main(", max_tokens=64):
        print(piece, end="")

The forward pass belongs to an `Engine`; here are its words: tokens in, logits, tokens out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import GllmError, ShapeError
from .checkpoint import open_checkpoint
from .config import LlamaConfig
from .sampling import RANDOM_SEED, Sampler, Sampling
from .stats import MAX_TOKENS, Pace, Stats
from .stops import StopGate, read_stops
from .weights import LlamaWeights, Progress

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
TAKEN = "another call took over this model's context; use one Llama for each text"
TINY = Path(__file__).parent / "tiny"  # the checkpoint that ships with the package


class Engine(Protocol):
    """The forward pass of one model and its KV cache."""

    @property
    def compile_s(self) -> float: ...
    @property
    def threads(self) -> int: ...
    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""

    def forward(self, tokens: I32, position: int, every_row: bool) -> F32:
        """Logits [len(tokens), vocab] of every row, or [1, vocab] of the last one.

        The tokens stand at `position`, `position + 1`, ...; what the cache holds before
        `position` is what earlier calls put there, anything from there on is overwritten.
        1 <= len(tokens) <= n_batch and position + len(tokens) <= n_ctx: the caller has checked.
        The result may be the engine's own buffer, good until the next call.
        """


class Build(Protocol):
    """Compile an engine; the weights are row-major f32 and may be repacked, never written."""

    def __call__(
        self,
        config: LlamaConfig,
        weights: LlamaWeights,
        *,
        n_ctx: int,
        n_batch: int,
        n_threads: int | None,
    ) -> Engine: ...


class Llama:
    """A model, its tokenizer and one context: a new text ends the one before."""

    def __init__(
        self,
        path: str | Path,
        n_ctx: int = 0,
        n_threads: int | None = None,
        n_batch: int = 512,
        progress: Progress | None = None,
        build: Build | None = None,
    ) -> None:
        """`path` is a directory as Hugging Face writes it, or a GGUF file.

        `n_ctx=0`: as long as the model was trained for; `n_threads=0`: by cores and quota.

        `progress(done, total)` is told bytes.
        """
        began = time.perf_counter()
        self.path = check_path(path)
        checkpoint = open_checkpoint(self.path)
        self.config = checkpoint.config
        self.n_ctx = check_context(n_ctx, self.config)
        self.n_batch = min(check_count("n_batch", n_batch), self.n_ctx)
        if n_threads is not None:
            check_count("n_threads", n_threads, low=0)
        self.tokenizer = checkpoint.tokenizer()
        weights = checkpoint.weights(progress)
        loaded = time.perf_counter()
        engine = (build or compiled)(
            self.config, weights, n_ctx=self.n_ctx, n_batch=self.n_batch, n_threads=n_threads
        )
        self._engine = engine
        self.stats = Stats(loaded - began, engine.compile_s, engine.threads, engine.weight_bytes)
        self._lock = threading.Lock()
        self._position = 0
        self._text = 0  # counts texts, so that a generator knows when another took the context

    # --- tokens ---------------------------------------------------------------------------------

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids; `special` adds what the checkpoint puts around a text, such as BOS."""
        return self.tokenizer.encode(text, special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(read_ids("tokens", tokens).tolist())

    # --- logits ---------------------------------------------------------------------------------

    def logits(self, tokens: Sequence[int]) -> F32:
        """Logits [len(tokens), vocab] of a fresh text: row i predicts the token behind i."""
        ids = self._check_tokens("tokens", tokens)
        self._check_room("tokens", len(ids), 0)
        return self._forward(self._new_text(), ids, every_row=True)

    def eval(self, tokens: Sequence[int]) -> F32:
        """Append to the context; logits [vocab] of the last token."""
        ids = self._check_tokens("tokens", tokens)
        self._check_room("tokens", len(ids), self._position)
        return self._forward(self._text, ids)[-1]

    def reset(self) -> None:
        """Forget the context."""
        self._new_text()

    # --- text -----------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = 64,
        temp: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        seed: int = RANDOM_SEED,
        stop: str | Sequence[str] = (),
    ) -> Iterator[str]:
        """The continuation of `prompt`, piece by piece, until max_tokens, `stop` or the end.

        `max_tokens=None` or -1 goes on until the context is full. `temp=0` is greedy.
        """
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        ids = self._check_tokens("prompt", tokens)
        self._check_room("prompt", len(ids) + 1, 0)
        room = self.n_ctx - len(ids)
        endless = max_tokens is None or max_tokens == -1
        wanted = room if endless else check_count("max_tokens", max_tokens, low=0)
        full = endless or wanted > room
        limit = Limit(min(wanted, room), "context full" if full else MAX_TOKENS)
        sampler = Sampler(Sampling(temp, top_k, top_p, min_p, repeat_penalty, seed))
        return self._write(ids, limit, sampler, StopGate(read_stops(stop)))

    def _write(self, ids: I32, limit: Limit, sampler: Sampler, gate: StopGate) -> Iterator[str]:
        text = self._new_text(sampler.seed)
        pieces = self.tokenizer.stream()
        tokens, fresh, finish = ids.tolist(), ids, limit.finish
        for _ in range(limit.tokens):
            token = self._next(text, fresh, tokens, sampler)
            if token in self.config.eos:
                finish = "end of text"
                break
            tokens.append(token)
            fresh = np.array([token], np.int32)
            if piece := gate.push(pieces.push(token)):
                yield piece
            if gate.hit:
                finish = "stop string"
                break
        self.stats = replace(self.stats, finish=finish)
        if rest := gate.end(pieces.end()):
            yield rest

    def _next(self, text: int, fresh: I32, tokens: Sequence[int], sampler: Sampler) -> int:
        """Evaluate `fresh`, draw the token behind it, and account for both."""
        began = time.perf_counter()
        token = sampler.next(self._forward(text, fresh)[-1], tokens)
        name = "decode" if len(tokens) > len(fresh) else "prefill"
        pace = getattr(self.stats, name).plus(len(fresh), time.perf_counter() - began)
        self.stats = replace(self.stats, **{name: pace})
        return token

    # --- the engine -----------------------------------------------------------------------------

    def _new_text(self, seed: int | None = None) -> int:
        """Empty the context; the number of the text that now owns it."""
        with self._lock:
            self._text += 1
            self._position = 0
            self.stats = replace(self.stats, prefill=Pace(), decode=Pace(), seed=seed, finish="")
            return self._text

    def _forward(self, text: int, ids: I32, every_row: bool = False) -> F32:
        """Run `ids` through the engine, at most n_batch at a time."""
        rows = []
        for start in range(0, len(ids), self.n_batch):
            part = ids[start : start + self.n_batch]
            with self._lock:
                if text != self._text:
                    raise GllmError(TAKEN)
                self._check_room("tokens", len(part), self._position)
                rows.append(self._engine.forward(part, self._position, every_row).copy())
                self._position += len(part)
        return np.concatenate(rows) if every_row else rows[-1]

    # --- checks: the engine indexes memory with what passes here ---------------------------------

    def _check_tokens(self, name: str, tokens: Sequence[int]) -> I32:
        ids = read_ids(name, tokens)
        if not ids.size:
            raise ShapeError(f"{name} is empty: give at least one token, such as the text '\\n'")
        bad = np.flatnonzero((ids < 0) | (ids >= self.config.vocab_size))
        if bad.size:
            raise ShapeError(
                f"{name}[{bad[0]}] is token {ids[bad[0]]}; "
                f"{self.path} has tokens 0 to {self.config.vocab_size - 1} "
                "(the rows of its embedding, whatever its tokenizer adds): leave it out"
            )
        return ids.astype(np.int32)

    def _check_room(self, name: str, count: int, position: int) -> None:
        if position + count > self.n_ctx:
            used = f" behind {position} in the context" if position else ""
            most = self.config.context
            grow = f", or load with n_ctx up to {most}" if self.n_ctx < most else ""
            need = f"{name} needs room for {count} tokens{used}"
            raise ShapeError(f"{need}, n_ctx is {self.n_ctx}: shorten it{grow}")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many new tokens, and why not more."""

    tokens: int
    finish: str


def compiled(
    config: LlamaConfig, weights: LlamaWeights, *, n_ctx: int, n_batch: int, n_threads: int | None
) -> Engine:
    """The engine that runs on code compiled from the scalar operators."""
    from .engine import build  # compiling pulls in every stage: not before a model is loaded

    return build(config, weights, n_ctx=n_ctx, n_batch=n_batch, n_threads=n_threads)


def check_path(path: str | Path) -> Path:
    try:
        return Path(path)
    except TypeError:
        expected = "expected the directory or the GGUF file of a checkpoint, as str or Path"
        raise ShapeError(f"path={path!r}: {expected}") from None


def read_ids(name: str, tokens: Sequence[int]) -> NDArray[np.integer]:
    """Integers in one row; what they may be is checked by who knows."""
    try:
        ids = np.asarray(tokens)
    except ValueError:  # numpy's word for rows of several lengths
        raise ShapeError(f"{name}={tokens!r}: expected a sequence of token ids") from None
    if ids.ndim == 1 and not ids.size:
        return ids.astype(np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        found = type(tokens).__name__ + (f" of {ids.dtype}{list(ids.shape)}" if ids.ndim else "")
        raise ShapeError(f"{name}: expected a sequence of token ids, got {found}")
    return ids


def check_context(n_ctx: int, config: LlamaConfig) -> int:
    """0 -> all the positions that the model was trained for."""
    if check_count("n_ctx", n_ctx, low=0) > config.context:
        raise ShapeError(
            f"n_ctx={n_ctx}: the model was trained for {config.context} positions; "
            f"use n_ctx from 1 to {config.context}, or 0 for all of them"
        )
    return n_ctx or config.context


def check_count(name: str, value: int, low: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ShapeError(f"{name}={value!r}: expected an integer of at least {low}")
    return int(value)

"""A checkpoint, whatever its container: configuration, tokenizer, weights.

    directory      config.json, tokenizer.json, *.safetensors, as Hugging Face writes them
    file.gguf      everything in one file, as llama.cpp reads it
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ..errors import FormatError
from .config import LlamaConfig, load_config
from .gguf import GgufFile, open_gguf
from .gguf_config import parse_gguf_config
from .gguf_tokenizer import parse_gguf_tokenizer
from .tokenizer import Tokens, load_tokenizer
from .weights import GGUF, HUGGING_FACE, Homes, LlamaWeights, Progress, find_tensors, load_weights


class Checkpoint(Protocol):
    """What a model is loaded from."""

    path: Path

    @property
    def config(self) -> LlamaConfig: ...
    def tokenizer(self) -> Tokens: ...
    def homes(self) -> Homes:
        """The tensors by name, and the files that hold them."""

    def weights(self, progress: Progress | None = None) -> LlamaWeights: ...


@dataclass(frozen=True)
class Directory:
    path: Path

    @cached_property
    def config(self) -> LlamaConfig:
        return load_config(self.path)

    def tokenizer(self) -> Tokens:
        return load_tokenizer(self.path)

    def homes(self) -> Homes:
        return find_tensors(self.path)

    def weights(self, progress: Progress | None = None) -> LlamaWeights:
        return load_weights(self.path, self.homes(), self.config, HUGGING_FACE, progress)


@dataclass(frozen=True)
class GgufCheckpoint:
    path: Path

    @cached_property
    def file(self) -> GgufFile:
        return open_gguf(self.path)

    @cached_property
    def config(self) -> LlamaConfig:
        return parse_gguf_config(self.file)

    def tokenizer(self) -> Tokens:
        return parse_gguf_tokenizer(self.file.fields)

    def homes(self) -> Homes:
        return dict.fromkeys(self.file.tensors.entries, self.file.tensors)

    def weights(self, progress: Progress | None = None) -> LlamaWeights:
        return load_weights(self.path, self.homes(), self.config, GGUF, progress)


def open_checkpoint(path: Path) -> Checkpoint:
    """A directory, or a GGUF file by its name's ending."""
    if path.suffix != ".gguf" or path.is_dir():
        if path.is_file():
            raise FormatError(f"{path}: is a file; give a .gguf file, or the directory of a checkpoint")
        return Directory(path)
    if not path.is_file():  # to open a FIFO is to wait for its writer
        raise FormatError(f"{path}: no such file; give a GGUF file, or the directory of a checkpoint")
    return GgufCheckpoint(path)

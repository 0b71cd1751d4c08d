"""Train the tiny Llama of the package on the sources of Python's standard library, on one core.

The directory it writes is a Hugging Face checkpoint: config.json, generation_config.json,
model.safetensors (bfloat16), tokenizer.json, tokenizer_config.json, and the licence of the text.

    python tools/train_tiny.py --out /tmp/tiny

Needs torch >= 2.9 (for its Muon), tokenizers and safetensors. The text is the library of the
Python that runs the tool, so another version of Python gives another model.
"""

import argparse
import json
import math
import os
import platform
import shutil
import sys
import sysconfig
import textwrap
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")  # the tokenizer trainer's thread pool

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

END = "<|endoftext|>"  # before every file; both BOS and EOS of the checkpoint
END_ID = 0  # the trainer numbers special tokens first
EPS = 1e-5
THETA = 10000.0

# Left out: tests and installed packages, and modules that are tables rather than code.
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idlelib", "idle_test", "encodings",
                   "pydoc_data", "__pycache__"}  # fmt: skip
SKIPPED_FOLDER_PREFIX = "config-"
SKIPPED_FILE_PREFIXES = ("_sysconfigdata", "html/entities.py", "tkinter/keysyms.py")
HELD_OUT_ONE_IN = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network. Each matrix has an input size that is a multiple of 256."""

    vocab: int = 2048
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    ffn: int = 512
    context: int = 512


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to learn."""

    steps: int
    step_tokens: int = 4096
    short_share: float = 0.6  # this share of the steps uses rows of half the context
    matrix_rate: float = 0.02  # Muon, for the matrices inside the layers
    other_rate: float = 0.006  # AdamW, for the embedding and the norms
    decay: float = 0.05
    warm_share: float = 0.02
    cool_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Text:
    """One half of the corpus: its size on disk and its token ids."""

    files: int
    size: int
    ids: Tensor


# --- text ---------------------------------------------------------------------------------------


def library_root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def is_used(path: str) -> bool:
    """Whether the module at this path, relative to the library, belongs to the corpus."""
    folders = path.split("/")[:-1]
    if any(f in SKIPPED_FOLDERS or f.startswith(SKIPPED_FOLDER_PREFIX) for f in folders):
        return False
    return not path.startswith(SKIPPED_FILE_PREFIXES)


def read_library(root: Path) -> dict[str, str]:
    """Source text by relative path, in sorted order, with tabs expanded."""
    sources = {}
    for path in sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py")):
        if is_used(path):
            sources[path] = (root / path).read_text("utf-8", errors="ignore").expandtabs(8)
    return {path: source for path, source in sources.items() if source.strip()}


def is_held_out(path: str) -> bool:
    """A hash of the path decides, so that one more file does not move the others."""
    return zlib.crc32(path.encode()) % HELD_OUT_ONE_IN == 0


def split(sources: dict[str, str]) -> tuple[list[str], list[str]]:
    """sources -> (texts to learn from, texts to measure on)."""
    learned = [text for path, text in sources.items() if not is_held_out(path)]
    held_out = [text for path, text in sources.items() if is_held_out(path)]
    return learned, held_out


# --- tokenizer ----------------------------------------------------------------------------------


def train_tokenizer(texts: list[str], vocab: int) -> Tokenizer:
    """Byte-level BPE with the GPT-2 split; every byte has a token, so all text round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> Text:
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(texts):
        ids += [END_ID, *encoding.ids]
    size = sum(len(text.encode()) for text in texts)
    return Text(len(texts), size, torch.tensor(ids))


# --- model: parameters carry the names that the checkpoint gives them ----------------------------


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        self.q_proj = nn.Linear(shape.hidden, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden, bias=False)

    def heads(self, x: Tensor, count: int) -> Tensor:
        """(rows, time, count * size) -> (rows, count, time, size)."""
        return x.unflatten(-1, (count, self.shape.head_size)).transpose(1, 2)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        shape = self.shape
        q = rotate(self.heads(self.q_proj(x), shape.heads), turn)
        k = rotate(self.heads(self.k_proj(x), shape.kv_heads), turn)
        v = self.heads(self.v_proj(x), shape.kv_heads)
        shared = shape.heads // shape.kv_heads  # query heads per key head
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))"""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=EPS)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=EPS)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Token ids (rows, time) -> logits (rows, time, vocab); input and output embedding tied."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=EPS)
        cos, sin = rotations(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        time_steps = ids.shape[1]
        turn = self.cos[:time_steps], self.sin[:time_steps]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, turn)
        return F.linear(self.norm(x), self.embed_tokens.weight).float()


def rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta ** (-2 i / head_size), each (context, head_size / 2)."""
    powers = torch.arange(0, shape.head_size, 2) / shape.head_size
    angles = torch.outer(torch.arange(shape.context).float(), THETA**-powers)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position: value i and value i + size / 2 of a head are the two coordinates."""
    cos, sin = turn
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


@torch.no_grad()
def initialise(model: Llama) -> None:
    """Outputs into the residual stream start at zero: each layer begins as the identity."""
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
        elif name == "embed_tokens.weight":
            weight.normal_(std=0.02)
        elif weight.ndim == 2:
            weight.normal_(std=0.5 / math.sqrt(weight.shape[1]))


# --- learning -----------------------------------------------------------------------------------


def rate_at(done: float, recipe: Recipe) -> float:
    """Share of the full learning rate: a short ramp up, level, then straight down to zero."""
    return min(done / recipe.warm_share, 1.0, (1.0 - done) / recipe.cool_share)


def optimisers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers; AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    norms = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": [model.embed_tokens.weight], "weight_decay": recipe.decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, momentum=0.95, weight_decay=recipe.decay),
        torch.optim.AdamW(groups, lr=recipe.other_rate, betas=(0.9, 0.95), eps=1e-10, fused=True),
    ]


def draw(ids: Tensor, length: int, rows: int) -> Tensor:
    """(rows, length + 1) tokens from random places of the text."""
    starts = torch.randint(len(ids) - length, (rows, 1))
    return ids[starts + torch.arange(length + 1)]


def loss_of(model: Llama, rows: Tensor) -> Tensor:
    """Mean nats per token, each token predicted from those to its left."""
    logits = model(rows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def learn_from(model: Llama, rows: Tensor, optims: list[torch.optim.Optimizer]) -> float:
    """One step: gradients in bfloat16 arithmetic, weights kept in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, rows)
    loss.backward()
    others = [p for group in optims[1].param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(others, 1.0)  # Muon sets the length of its own updates
    for optim in optims:
        optim.step()
        optim.zero_grad()
    return loss.item()


def learn(model: Llama, text: Text, shape: Shape, recipe: Recipe) -> Iterator[float]:
    """Train in place; yields the loss of every step."""
    optims = optimisers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda n: rate_at((n + 0.5) / recipe.steps, recipe))
        for o in optims
    ]
    for step in range(recipe.steps):
        is_short = step < recipe.short_share * recipe.steps
        length = shape.context // 2 if is_short else shape.context
        yield learn_from(model, draw(text.ids, length, recipe.step_tokens // length), optims)
        for schedule in schedules:
            schedule.step()


@torch.no_grad()
def bits_per_byte(model: Llama, text: Text, context: int) -> float:
    """Each token once, from at most `context` tokens before it in windows that do not overlap."""
    nats = 0.0
    for start in range(0, len(text.ids) - 1, context):
        rows = text.ids[None, start : start + context + 1]
        nats += loss_of(model, rows).item() * (rows.shape[1] - 1)
    return nats / math.log(2) / text.size


@torch.no_grad()
def rounded(model: Llama, shape: Shape) -> Llama:
    """A copy with the weights as they are stored, so that the measure is of the shipped model."""
    copy = Llama(shape)
    copy.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    return copy


# --- checkpoint ---------------------------------------------------------------------------------


def config_of(shape: Shape) -> dict[str, object]:
    # fmt: off
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": shape.vocab, "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size, "max_position_embeddings": shape.context,
        "hidden_act": "silu", "rms_norm_eps": EPS, "rope_theta": THETA, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
        "initializer_range": 0.02, "tie_word_embeddings": True, "use_cache": True,
        "bos_token_id": END_ID, "eos_token_id": END_ID, "torch_dtype": "bfloat16",
    }
    # fmt: on


def tokenizer_config_of(shape: Shape) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "model_max_length": shape.context,
        "clean_up_tokenization_spaces": False,
    }


def notice() -> str:
    return (
        f"The weights and the tokenizer in this directory were trained on the source text of the\n"
        f"standard library of Python {platform.python_version()}:\n\n"
        f"{textwrap.indent(sys.copyright, '    ')}\n\n"
        f"That text is under the Python Software Foundation License (LICENSE.python.txt beside\n"
        f"this file, or https://docs.python.org/3/license.html); some of its modules carry\n"
        f"notices of their own. No source file is included here, but the model can repeat\n"
        f"short passages of that text.\n"
    )


def write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_licence(out: Path) -> None:
    (out / "NOTICE.txt").write_text(notice(), encoding="utf-8")
    licence = library_root() / "LICENSE.txt"
    if licence.exists():  # some distributions of Python keep it elsewhere
        shutil.copyfile(licence, out / "LICENSE.python.txt")


def write_checkpoint(out: Path, model: Llama, tokenizer: Tokenizer, shape: Shape) -> None:
    out.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": w.bfloat16() for name, w in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # save_file lets only the owner read it
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    write_json(out / "config.json", config_of(shape))
    write_json(out / "generation_config.json", {"bos_token_id": END_ID, "eos_token_id": END_ID})
    write_json(out / "tokenizer_config.json", tokenizer_config_of(shape))
    write_licence(out)


# --- command line -------------------------------------------------------------------------------


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def show_progress(step: int, recipe: Recipe, loss: float, seconds: float) -> None:
    """A bar that redraws itself on a terminal, a plain line now and then elsewhere."""
    rate = step * recipe.step_tokens / seconds
    left = (recipe.steps - step) * seconds / step
    state = f"{step}/{recipe.steps}  loss {loss:.3f}  {rate:.0f} tokens/s  {left:.0f} s left"
    is_last = step == recipe.steps
    if sys.stderr.isatty():
        bar = "#" * (30 * step // recipe.steps)
        print(f"\r[{bar:<30}] {state}  ", end="\n" if is_last else "", file=sys.stderr, flush=True)
    elif is_last or step % 50 == 0:
        say(state)


def parse_arguments() -> argparse.Namespace:
    summary = "Train the tiny Llama of the package on the standard library's sources."
    parser = argparse.ArgumentParser(
        description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="checkpoint directory to write")
    add("--steps", type=int, default=4000, help="training steps of 4096 tokens")
    add("--seed", type=int, default=0, help="seed of the initial weights and of the batches")
    add("--threads", type=int, default=1, help="threads for the arithmetic")
    add("--save-every", type=int, default=1000, help="also write the checkpoint after n steps")
    return parser.parse_args()


def read_corpus(shape: Shape) -> tuple[Tokenizer, Text, Text]:
    texts, held_out_texts = split(read_library(library_root()))
    tokenizer = train_tokenizer(texts, shape.vocab)
    text, held_out = encode(tokenizer, texts), encode(tokenizer, held_out_texts)
    for name, part in (("training", text), ("held out", held_out)):
        say(f"{name}: {part.files} files, {part.size} bytes, {len(part.ids)} tokens")
    return tokenizer, text, held_out


def train(model: Llama, text: Text, tokenizer: Tokenizer, options: argparse.Namespace) -> float:
    """Run the recipe with progress and checkpoints on the way; returns the seconds it took."""
    shape, recipe = Shape(), Recipe(options.steps)
    start, mean = time.perf_counter(), 0.0
    for step, loss in enumerate(learn(model, text, shape, recipe), start=1):
        mean += (loss - mean) * max(0.02, 1 / step)
        show_progress(step, recipe, mean, time.perf_counter() - start)
        if step % options.save_every == 0:
            write_checkpoint(options.out, model, tokenizer, shape)
    write_checkpoint(options.out, model, tokenizer, shape)
    return time.perf_counter() - start


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    say(f"Python {platform.python_version()}, torch {torch.__version__}, seed {options.seed}")
    shape = Shape()
    tokenizer, text, held_out = read_corpus(shape)
    model = Llama(shape)
    initialise(model)
    seconds = train(model, text, tokenizer, options)
    bits = bits_per_byte(rounded(model, shape), held_out, shape.context)
    print(f"{options.steps} steps in {seconds:.0f} s, held out: {bits:.4f} bits per byte")


if __name__ == "__main__":
    main()

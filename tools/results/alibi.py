"""Trains a small model of MPT's kind and holds brooklet to it: dense, and as a stream of the StreamingLLM paper.

usage: alibi.py BROOKLET BOOK FOLDER REPORT

Needs NumPy and PyTorch, 1.13 or newer; a build for CPUs will do: Debian's python3-torch (with libopenblas0, or it takes
ten times as long) or PyPI's torch. Training takes five to ten minutes of one core. The model learns from all of BOOK
but its last 64 KiB, which are left in FOLDER/held.txt to measure on. FOLDER also gets the weights, alibi.pt, and the
model, alibi.gguf; weights that are there already are not trained anew. REPORT is a JSON of what was found.

The model is MPT in small: LayerNorm without biases, Q, K and V in one product, exact GELU, ALiBi with a bias of 8, a
tied embedding. A token is a byte. As with MPT, a context begins anywhere in the text, without a token of its own there.
"""

import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices so small gain nothing by more
import numpy  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

DIM, LAYERS, HEADS, HIDDEN, CONTEXT = 128, 4, 4, 512, 256
VOCABULARY = 257  # the bytes, and a token that ends a text
EPSILON, BIAS = 1e-5, 8.0
STEPS, BATCH, RATE, WARMUP, DECAY, SEED = 2000, 8, 3e-3, 100, 0.1, 15
HELD = 65536
CACHES, STREAM = ((0, 64), (1, 63), (4, 60)), 640  # sinks and window, and tokens, of the streams that are compared
ALLOWED = 1e-3  # difference of a logit


def parameters() -> dict:
    """Named as in the file: what a model begins with."""
    generator = torch.Generator().manual_seed(SEED)

    def matrix(rows, columns, scale=0.02):
        return (torch.randn(rows, columns, generator=generator) * scale).requires_grad_()

    def ones():
        return torch.ones(DIM).requires_grad_()

    deep = 0.02 / math.sqrt(2 * LAYERS)
    weights = {"token_embd": matrix(VOCABULARY, DIM), "output_norm": ones()}
    for layer in range(LAYERS):
        weights |= {
            f"blk.{layer}.attn_norm": ones(),
            f"blk.{layer}.attn_qkv": matrix(3 * DIM, DIM),
            f"blk.{layer}.attn_output": matrix(DIM, DIM, deep),
            f"blk.{layer}.ffn_norm": ones(),
            f"blk.{layer}.ffn_up": matrix(HIDDEN, DIM),
            f"blk.{layer}.ffn_down": matrix(DIM, HIDDEN, deep),
        }
    return weights


def positions(tokens: int, sinks: int = 0, window: int = 1 << 30, cached: bool = True) -> torch.Tensor:
    """What is added to every head's scores, [head, query, key]: -infinity where a query sees no key, else ALiBi.

    A query sees the first `sinks` tokens and the last `window`, itself included. Distances are those of places in the
    cache: a first token is never further away than the cache is long. Unless `cached`, they are those in the text,
    which is not the paper's method.
    """
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)[None, :]
    sink = key < sinks
    seen = (key <= query) & (sink | (query - key < window))
    place = torch.where(sink, query.clamp(max=sinks + window - 1), query) if cached else query
    slopes = torch.tensor([2.0 ** (-BIAS * (head + 1) / HEADS) for head in range(HEADS)])
    bias = -slopes[:, None, None] * (place - key).float()
    return bias.masked_fill(~seen, -math.inf)


def forward(weights: dict, tokens: torch.Tensor, bias: torch.Tensor, watch=None) -> torch.Tensor:
    """Logits of [batch, token]."""
    batch, length = tokens.shape

    def norm(x, name):
        return functional.layer_norm(x, (DIM,), weights[name], None, EPSILON)

    x = weights["token_embd"][tokens]
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        qkv = functional.linear(norm(x, block + "attn_norm"), weights[block + "attn_qkv"])
        q, k, v = qkv.view(batch, length, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) * (DIM // HEADS) ** -0.5 + bias
        shares = scores.softmax(dim=-1)
        if watch is not None:
            watch.append(shares)
        mixed = (shares @ v).transpose(1, 2).reshape(batch, length, DIM)
        x = x + functional.linear(mixed, weights[block + "attn_output"])
        up = functional.linear(norm(x, block + "ffn_norm"), weights[block + "ffn_up"])
        x = x + functional.linear(functional.gelu(up), weights[block + "ffn_down"])
    return functional.linear(norm(x, "output_norm"), weights["token_embd"])


def loss_of(weights: dict, rows: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    logits = forward(weights, rows[:, :-1], bias)
    return functional.cross_entropy(logits.reshape(-1, VOCABULARY), rows[:, 1:].reshape(-1))


def context(text: torch.Tensor, start: int) -> torch.Tensor:
    """What is learnt from at once: a token more than the context, as each foretells the next."""
    return text[start : start + CONTEXT + 1]


def train(text: torch.Tensor, held: torch.Tensor) -> dict:
    weights = parameters()
    matrices = [weight for weight in weights.values() if weight.dim() == 2]
    vectors = [weight for weight in weights.values() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    bias = positions(CONTEXT)
    places = torch.Generator().manual_seed(SEED)
    begun = time.time()
    for step in range(STEPS):
        warm = min(1.0, (step + 1) / WARMUP)
        rate = RATE * warm * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / STEPS)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH,), generator=places)
        rows = torch.stack([context(text, start) for start in starts.tolist()])
        optimizer.zero_grad()
        loss = loss_of(weights, rows, bias)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == STEPS - 1:
            said = f"step {step}, {time.time() - begun:.0f} s: perplexity {math.exp(loss.item()):.2f}"
            print(f"{said}, held out {perplexity(weights, held):.2f}", file=sys.stderr, flush=True)
    return {name: weight.detach() for name, weight in weights.items()}


def rows_of(held: torch.Tensor, count: int) -> torch.Tensor:
    """Contexts of the text that was kept apart, evenly spread."""
    step = (len(held) - CONTEXT - 1) // count
    return torch.stack([context(held, i * step) for i in range(count)])


@torch.no_grad()
def perplexity(weights: dict, held: torch.Tensor, count: int = 16) -> float:
    return math.exp(loss_of(weights, rows_of(held, count), positions(CONTEXT)).item())


@torch.no_grad()
def looks(weights: dict, held: torch.Tensor) -> list:
    """The share of attention that the first token gets in each layer, over the second half of a context."""
    watch = []
    forward(weights, rows_of(held, 4)[:, :-1], positions(CONTEXT), watch)
    return [shares[:, :, CONTEXT // 2 :, 0].mean().item() for shares in watch]


def unigram(text: torch.Tensor, held: torch.Tensor) -> float:
    """The perplexity of knowing how frequent each byte is, and nothing else."""
    counts = torch.bincount(text, minlength=VOCABULARY).double() + 1
    return math.exp(-(counts / counts.sum()).log()[held].mean().item())


def gguf(path: pathlib.Path, weights: dict):
    """Writes the model as a GGUF file, version 3."""

    def string(text: str) -> bytes:
        data = text.encode()
        return struct.pack("<Q", len(data)) + data

    def key(name: str, kind: int, value: bytes) -> bytes:
        return string(name) + struct.pack("<I", kind) + value

    def number(name: str, value: int) -> bytes:
        return key(name, 4, struct.pack("<I", value))

    def real(name: str, value: float) -> bytes:
        return key(name, 6, struct.pack("<f", value))

    def array(name: str, kind: int, values: list) -> bytes:
        return key(name, 9, struct.pack("<IQ", kind, len(values)) + b"".join(values))

    # GPT-2 writes bytes that are no letters as letters from U+0100 on.
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [chr(256 + hidden.index(byte)) if byte in hidden else chr(byte) for byte in range(256)]
    end = VOCABULARY - 1
    keys = [
        key("general.architecture", 8, string("mpt")),
        key("general.name", 8, string("a small model of MPT's kind")),
        number("mpt.context_length", CONTEXT),
        number("mpt.embedding_length", DIM),
        number("mpt.block_count", LAYERS),
        number("mpt.feed_forward_length", HIDDEN),
        number("mpt.attention.head_count", HEADS),
        real("mpt.attention.layer_norm_epsilon", EPSILON),
        real("mpt.attention.max_alibi_bias", BIAS),
        key("tokenizer.ggml.model", 8, string("gpt2")),
        key("tokenizer.ggml.pre", 8, string("mpt")),
        array("tokenizer.ggml.tokens", 8, [string(token) for token in [*letters, "<|endoftext|>"]]),
        array("tokenizer.ggml.token_type", 5, [struct.pack("<i", 3 if i == end else 1) for i in range(VOCABULARY)]),
        array("tokenizer.ggml.merges", 8, []),
        number("tokenizer.ggml.eos_token_id", end),
    ]
    tensors, data = b"", b""
    for name, weight in weights.items():
        tensors += string(name + ".weight") + struct.pack("<I", weight.dim())
        tensors += b"".join(struct.pack("<Q", size) for size in reversed(weight.shape))
        tensors += struct.pack("<IQ", 0, len(data))
        data += weight.float().contiguous().numpy().astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(weights), len(keys)) + b"".join(keys) + tensors
    path.write_bytes(head + bytes(-len(head) % 32) + data)


@torch.no_grad()
def exact(weights: dict, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Logits in float64, [token]."""
    return forward({name: weight.double() for name, weight in weights.items()}, tokens[None], bias.double())[0]


@torch.no_grad()
def difference(brooklet: str, model: pathlib.Path, weights: dict, tokens: torch.Tensor, cache: list, bias) -> float:
    """The largest difference of a logit, after any of the tokens, between brooklet and the same computed in float64."""
    theirs = exact(weights, tokens, bias)
    numbers = (",".join(str(value) for value in values) for values in (tokens.tolist(), range(len(tokens))))
    command = [brooklet, "logits", "-m", str(model), "--top", "100000", "--json", "--kv", "f32", *cache]
    for option, value in zip(("--ids", "--positions"), numbers):
        command += [option, value]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    ours = torch.full_like(theirs, math.nan)
    for entry in json.loads(printed):
        for token, logit in entry["logits"]:
            ours[entry["position"], token] = logit
    return (ours - theirs).abs().max().item()  # nan where a logit is missing


def checks(brooklet: str, model: pathlib.Path, weights: dict, held: torch.Tensor) -> dict:
    """Fails where brooklet computes something else than PyTorch does."""
    dense = difference(
        brooklet, model, weights, held[:CONTEXT], ["--policy", "dense", "--window", str(CONTEXT)], positions(CONTEXT)
    )
    found = {"dense": {"tokens": CONTEXT, "difference": dense}, "streams": []}
    for sinks, window in CACHES:
        cache = ["--policy", "streaming", "--sinks", str(sinks), "--window", str(window)]
        worst = difference(brooklet, model, weights, held[:STREAM], cache, positions(STREAM, sinks, window))
        found["streams"].append({"sinks": sinks, "window": window, "tokens": STREAM, "difference": worst})
    # How much it would matter to have counted distances in the text: the comparison would notice.
    stream = held[:STREAM]
    wrong = (exact(weights, stream, positions(STREAM, *CACHES[-1], cached=how)) for how in (True, False))
    found["uncached"] = (next(wrong) - next(wrong)).abs().max().item()
    for kind in [found["dense"], *found["streams"]]:
        print(f"largest difference of a logit: {kind}", file=sys.stderr)
        if not kind["difference"] <= ALLOWED:
            sys.exit(f"brooklet's logits differ from PyTorch's by more than {ALLOWED}: {kind}")
    return found


def main():
    brooklet, book, folder, report = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    written = book.read_bytes()
    (folder / "held.txt").write_bytes(written[-HELD:])
    tokens = torch.from_numpy(numpy.frombuffer(written, dtype=numpy.uint8).astype(numpy.int64))
    text, held = tokens[:-HELD], tokens[-HELD:]
    kept = folder / "alibi.pt"
    if not kept.exists():
        begun = time.time()
        weights = train(text, held)
        torch.save({"weights": weights, "seconds": time.time() - begun}, kept)
    trained = torch.load(kept)
    weights = trained["weights"]
    gguf(folder / "alibi.gguf", weights)
    found = {
        "torch": torch.__version__,
        "parameters": sum(weight.numel() for weight in weights.values()),
        "dim": DIM,
        "layers": LAYERS,
        "heads": HEADS,
        "context": CONTEXT,
        "steps": STEPS,
        "text": len(text),
        "learnt": STEPS * BATCH * CONTEXT,
        "seconds": trained["seconds"],
        "unigram": unigram(text, held),
        "contexts": perplexity(weights, held, HELD // CONTEXT - 1),
        "first": looks(weights, held),
        "allowed": ALLOWED,
        **checks(brooklet, folder / "alibi.gguf", weights, held),
    }
    report.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

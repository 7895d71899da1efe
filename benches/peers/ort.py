"""ONNX Runtime on its WebGPU provider (Dawn), keys and values kept on the device. Told by lines of JSON on stdin:
{"start": {"model": …, "prefill": …, "context": …, "short": …, "tokens": …}}, then {"round": true} as often as wanted;
answers by {"result": …} or {"error": …}. In a virtual environment that holds requirements.txt.
"""

import json
import resource
import sys
from time import perf_counter

import numpy as np
import onnxruntime as ort

# What a text says does not change what it costs.
TOKEN = 260


class Stream:
    def __init__(self, session):
        self.session = session
        self.inputs = {i.name: i for i in session.get_inputs()}
        self.outputs = [o.name for o in session.get_outputs()]
        self.reset()

    def reset(self, length=0):
        """As if so many tokens were there: keys and values of zero cost what others cost."""
        self.length = length
        self.cache = {}
        for name, given in self.inputs.items():
            if name.startswith("past"):
                _, heads, _, size = given.shape
                zeros = np.zeros((1, heads, length, size), np.float32)
                self.cache[name] = ort.OrtValue.ortvalue_from_numpy(zeros)

    def feed(self, tokens):
        """Takes tokens in; the likeliest next one, which waits for the device."""
        end = self.length + len(tokens)
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", np.array([tokens], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, end), np.int64))
        if "position_ids" in self.inputs:
            binding.bind_cpu_input("position_ids", np.arange(self.length, end, dtype=np.int64)[None])
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, "cpu" if name == "logits" else "gpu")
        self.session.run_with_iobinding(binding)
        results = dict(zip(self.outputs, binding.get_outputs()))
        logits = results.pop("logits").numpy()
        self.cache = {name.replace("present", "past_key_values"): value for name, value in results.items()}
        self.length = end
        return int(logits[0, -1].argmax())

    def decode(self, count):
        """Tokens per second. The first ones move the cache to the device, and compile."""
        token = self.feed([self.feed([TOKEN])])
        start = perf_counter()
        for _ in range(count):
            token = self.feed([token])
        return count / (perf_counter() - start)


def begin(settings):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(settings["model"], options, providers=["WebGpuExecutionProvider"])
    if session.get_providers()[0] != "WebGpuExecutionProvider":
        raise RuntimeError(f"no WebGPU: it would run on {session.get_providers()[0]}")
    stream = Stream(session)
    # Shaders are compiled when they are first used.
    stream.feed([TOKEN] * 160)
    stream.decode(2)
    return stream


def measure(stream, prefill, context, short, tokens, **_):
    stream.reset(short)
    early = stream.decode(tokens)
    stream.reset()
    start = perf_counter()
    stream.feed([TOKEN] * prefill)
    spent = perf_counter() - start
    stream.reset(context)
    late = stream.decode(tokens)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"prefill": prefill / spent, "decode": early, "late": late, "hostBytes": peak}


def main():
    stream = settings = None
    for line in sys.stdin:
        try:
            message = json.loads(line)
            if "start" in message:
                settings = message["start"]
                stream = begin(settings)
                result = {"version": f"onnxruntime-webgpu {ort.__version__}"}
            else:
                result = measure(stream, **settings)
            answer = {"result": result}
        except Exception as error:  # whatever it is, the one who asked is to hear of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()

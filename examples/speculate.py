"""Speculative decoding through a swarm: a small model on this machine drafts, the swarm checks several tokens at once.

Every step through the swarm costs its links once, however many tokens it carries. The tokens are those of the large
model (Leviathan et al., 2023, arXiv:2211.17192); a good draft only makes them come sooner. What was drafted wrongly is
rolled back on the nodes without a message of its own.

    python examples/speculate.py --model MODEL --draft SMALLER --initial-peers ADDRESS "If the list is empty,"
"""

import argparse
import time

from nectar import AutoDistributedModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("prompt")
parser.add_argument("--model", required=True, help="a folder or a repository of the hub")
parser.add_argument("--draft", required=True, help="a smaller model with the same tokenizer")
parser.add_argument("--initial-peers", required=True, nargs="+", help="addresses that nodes print")
parser.add_argument("--drafted-tokens", type=int, default=6, help="for each step; more for longer links")
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
model = AutoDistributedModelForCausalLM.from_pretrained(options.model, initial_peers=options.initial_peers)
draft = AutoModelForCausalLM.from_pretrained(options.draft)
draft.generation_config.num_assistant_tokens = options.drafted_tokens
draft.generation_config.num_assistant_tokens_schedule = "constant"
ids = tokenizer(options.prompt, return_tensors="pt").input_ids

texts = []
for name, assistant in (("plain", None), ("with a draft", draft)):
    started_s = time.perf_counter()
    out = model.generate(ids, max_new_tokens=48, do_sample=False, assistant_model=assistant)
    tokens = out.shape[1] - ids.shape[1]
    print(f"{name}: {tokens / (time.perf_counter() - started_s):.1f} tokens/s")
    texts.append(tokenizer.decode(out[0], skip_special_tokens=True))
print(texts[1])
print("the same text" if texts[0] == texts[1] else f"plain, it was: {texts[0]}")

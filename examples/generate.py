"""Generate text through a swarm, and go on with it in the same session.

python examples/generate.py --model MODEL --initial-peers ADDRESS "If the list is empty,"
"""

import argparse

import torch
from nectar import AutoDistributedModelForCausalLM
from transformers import AutoTokenizer, TextStreamer

parser = argparse.ArgumentParser()
parser.add_argument("prompt")
parser.add_argument("--model", required=True, help="a folder or a repository of the hub")
parser.add_argument("--initial-peers", required=True, nargs="+", help="addresses that nodes print")
parser.add_argument("--then", default=" And then", help="what to go on with")
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
model = AutoDistributedModelForCausalLM.from_pretrained(options.model, initial_peers=options.initial_peers)

text = tokenizer(options.prompt, return_tensors="pt").input_ids
with model.session(max_length=256) as session:  # the nodes keep what they have read until it ends
    text = model.generate(
        text, session=session, max_new_tokens=32, do_sample=False, streamer=TextStreamer(tokenizer, skip_prompt=True)
    )
    more = tokenizer(options.then, return_tensors="pt", add_special_tokens=False).input_ids
    text = torch.cat([text, more], 1)
    text = model.generate(text, session=session, max_new_tokens=32, do_sample=False)
    route = ", ".join(f"blocks {hop.start}:{hop.stop} on {hop.peer}" for hop in session.route)
print(tokenizer.decode(text[0], skip_special_tokens=True))
print(f"({route})")

"""Look into a model that runs in a swarm: what would it say after each of its blocks, and without some of them?

The first is known as the logit lens (nostalgebraist, 2020): each block's hidden states go through the model's own final
norm and head. The second runs slices of the remote blocks one after the other, leaving some out.

    python examples/hidden_states.py --model MODEL --initial-peers ADDRESS "If the list is empty,"
"""

import argparse

import torch
from nectar import AutoDistributedModelForCausalLM
from transformers import AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("prompt")
parser.add_argument("--model", required=True, help="a folder or a repository of the hub, of the Llama kind")
parser.add_argument("--initial-peers", required=True, nargs="+", help="addresses that nodes print")
parser.add_argument(
    "--without", type=int, nargs=2, default=(2, 3), metavar=("START", "STOP"), help="blocks to leave out"
)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
model = AutoDistributedModelForCausalLM.from_pretrained(options.model, initial_peers=options.initial_peers)
ids = tokenizer(options.prompt, return_tensors="pt").input_ids


def says(hidden: torch.Tensor) -> str:
    """The likeliest next token if these hidden states were the last block's."""
    logits = model.lm_head(model.model.norm(hidden[:, -1]))
    return repr(tokenizer.decode(logits.argmax(-1)))


with torch.no_grad():
    *states, _ = model(ids, output_hidden_states=True).hidden_states  # what goes into each block; the last is normed
    for number, hidden in enumerate(states):
        print(f"before block {number:2}: {says(hidden)}")
    whole = model.blocks(states[0])
    print(f"all {len(model.blocks)} blocks: {says(whole)}")
    start, stop = options.without
    left_out = model.blocks[stop:](model.blocks[:start](states[0]))
    print(f"without {start}:{stop}: {says(left_out)}")

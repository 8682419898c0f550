"""Print how the demo model continues ten prompts, by the decoding defaults saved with it (greedy).

Run from the root of the repository: python -m demo.training.sample
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = Path(__file__).resolve().parent.parent / "nectar_demo" / "model"
PROMPTS = (
    "A good function is",
    "The easiest way to open a file is",
    "When an error happens, the program",
    "The server then sends",
    "If the list is empty,",
    "Two threads can share",
    "Every message that arrives",
    "To read the next line, you",
    "A user who wants to change the settings",
    "The first thing that a new process",
)
QUESTIONS = ("Hi!", "What is a list?", "What does the json module do?", "Explain the while statement.")


def continue_text(prompts: list[str], folder: Path, max_new_tokens: int) -> list[str]:
    """Return the greedy continuation of each prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt in prompts:
        special = not prompt.startswith(tokenizer.bos_token)
        batch = tokenizer(prompt, return_tensors="pt", add_special_tokens=special)
        with torch.no_grad():
            output = model.generate(**batch, max_new_tokens=max_new_tokens)
        new = output[0, batch["input_ids"].shape[1] :]
        found.append(tokenizer.decode(new, skip_special_tokens=True))
    return found


def answer(questions: list[str], folder: Path, max_new_tokens: int) -> list[str]:
    """Return the greedy answer to each question, asked through the chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    return continue_text(prompts, folder, max_new_tokens)


def main() -> None:
    """Print the continuations, then a few answers."""
    parser = argparse.ArgumentParser(description="Continue the ten prompts of the demo model.")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--tokens", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for prompt, text in zip(PROMPTS, continue_text(list(PROMPTS), arguments.model, arguments.tokens), strict=True):
        print(f"[{prompt}]{text}\n")
    for question, text in zip(QUESTIONS, answer(list(QUESTIONS), arguments.model, arguments.tokens), strict=True):
        print(f"user: {question}\nassistant: {text}\n")


if __name__ == "__main__":
    main()

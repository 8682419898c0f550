"""What the installed Transformers calls the argument that holds a cache: `past_key_values`, and `cache` since 5.24."""

import inspect

from transformers.masking_utils import create_causal_mask

OLD_CACHE = "past_key_values"  # callers may go on using it: Transformers warns, and renames it
CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else OLD_CACHE

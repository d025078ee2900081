"""A training step under DistributedDataParallel that reads the logits; run by test_saved_and_loaded.

It has a process of its own and leaves it without taking the group of processes down: torch joins gloo's threads with
the interpreter locked, and a thread that waits for the interpreter then waits for ever.
"""

from __future__ import annotations

import os
import sys
import tempfile

import torch
from test_saved_and_loaded import batch_of, is_made
from tiny import gradients, tiny_model
from torch.nn.parallel import DistributedDataParallel


def main(unused: bool, folder: str) -> None:
    """Compare the gradients of a loss of the caller's own with those of the bare model."""
    model = tiny_model("luong").train()
    batch = batch_of(model)
    model(**batch, skip_logits=False).logits.square().mean().backward()
    wanted = gradients(model)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)
    parallel = DistributedDataParallel(model, find_unused_parameters=unused)
    for _ in range(2):
        output = parallel(**batch)
        assert not is_made(output)
        output.logits.square().mean().backward()
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, wanted[name])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] == "unused", folder)
    sys.stdout.write("equal\n")
    sys.stdout.flush()
    os._exit(0)

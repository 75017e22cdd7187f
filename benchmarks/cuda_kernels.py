"""Kernels that a training step would launch on a CUDA device, and waits for it, counted without one; one JSON line.

For a PyTorch without CUDA, on Linux with g++. See `benchmarks.cuda_stand_in.counting` for what counts, and `train_step`
for the workload.
"""

import argparse
import json

from benchmarks.cuda_stand_in.library import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="gpt2-base")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    load()
    import torch  # only now: its names are taken

    from benchmarks.cuda_stand_in.counting import counted
    from benchmarks.train_step import Workload

    with counted() as counter:
        work = Workload(options.size, options.dtype, torch.device("cuda"), options.batch_size)
        work.step()  # the optimiser makes its moments in the first
        counter.kernels.clear()
        counter.waits.clear()
        work.step()
    told = {"kernels": counter.kernels.total(), "waits": counter.waits.total(), "by_operation": counter.kernels}
    print(json.dumps(vars(options) | told | {"by_wait": counter.waits}))


if __name__ == "__main__":
    main()
